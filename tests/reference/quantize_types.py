"""Write tests/converters/golden_types.json, llama-quantize's types for every mixture: run by hand.

    python tests/reference/quantize_types.py LLAMA_QUANTIZE WORK_FOLDER

Makes the small checkpoints of golden_models.py as F32 files and the tensor lists of
golden_shapes.py as files of zeros, and reads which types `llama-quantize --dry-run` names, for
every mixture without and with an importance matrix. Says what our rules choose otherwise. Needs
no torch. Tensors that always get the same types share a line in the file.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "converters")]

import golden_models  # noqa: E402 - the paths above come first
import golden_types  # noqa: E402
from gguf import GGUFWriter  # noqa: E402
from golden_shapes import LISTED, Listed  # noqa: E402

import converters  # noqa: E402

# [  3/ 74] blk.0.attn_k.weight - [256, 2, 1, 1], type = f32, size = 1.00 MiB -> 0.13 MiB (q4_K)
LINE = re.compile(
    r"^\[ *\d+/ *\d+\] (\S+) +- \[.*?\], type = +(\w+), size = .*?(?:\((\w+)\))?$", re.M
)


def write_zeros(path: Path, listed: Listed) -> None:
    writer = GGUFWriter(path, listed.architecture)
    for key, value in listed.values.items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"{listed.architecture}.{key}", value)
    for tensor in listed.tensors:
        writer.add_tensor(tensor.name, np.zeros(tensor.shape, np.float32))
    close(writer)


def write_imatrix(path: Path) -> None:
    """Write a matrix with one entry: that there is one is all that the types go by."""
    writer = GGUFWriter(path, "imatrix")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["none"])
    writer.add_uint32("imatrix.chunk_count", 1)
    writer.add_uint32("imatrix.chunk_size", 512)
    writer.add_tensor("none.in_sum2", np.ones((1, 256), np.float32))
    writer.add_tensor("none.counts", np.ones((1, 1), np.float32))
    close(writer)


def close(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def types_of(quantize: Path, model: Path, mixture: str, imatrix: Path | None) -> dict[str, str]:
    """Return each tensor's type, or nothing where llama-quantize knows no type that fits a row."""
    extra = ["--imatrix", str(imatrix)] if imatrix else []
    command = [str(quantize), "--dry-run", *extra, str(model), str(model) + ".out", mixture, "1"]
    done = subprocess.run(command, check=False, capture_output=True, timeout=600)
    text = (done.stdout + done.stderr).decode(errors="replace")
    if done.returncode:
        assert "no tensor type fallback is defined" in text, text
        return {}
    found = LINE.findall(text)
    return {name: (new or old).upper() for name, old, new in found}


def main() -> None:
    quantize, work = (Path(argument).resolve() for argument in sys.argv[1:3])
    work.mkdir(parents=True)
    write_imatrix(work / "imatrix.gguf")
    golden: dict[str, dict[str, list[str]]] = {}
    for name in (*golden_types.CHECKPOINTS, *LISTED):
        path = work / f"{name}.gguf"
        if name in LISTED:
            write_zeros(path, LISTED[name])
        else:
            folder = golden_models.MODELS[name](work / name)
            converters.convert(folder, path, converters.ConvertOptions(type="F32"))
        columns = [
            types_of(quantize, path, one.mixture, work / "imatrix.gguf" if one.imatrix else None)
            for one in golden_types.COLUMNS
        ]
        rows = {
            tensor: " ".join(column.get(tensor, golden_types.REFUSED) for column in columns)
            for tensor in columns[0]
        }
        same: dict[str, list[str]] = defaultdict(list)
        for tensor, row in sorted(rows.items()):
            same[row].append(tensor)
        golden[name] = same
        expected = golden_types.expand(same)
        wrong = golden_types.differences(name, work / name, expected)
        print(
            f"{name}: {len(rows)} tensors, {len(golden_types.COLUMNS)} columns, {len(wrong)} differ"
        )
        for line in wrong[:20]:
            print(f"    {line}")
        path.unlink()
    golden_types.FILE.write_text(json.dumps(golden, indent=0, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
