"""Compare V3.2 and V4 with transformers and with llama.cpp's own programs: run by hand.

    python tests/reference/compare_v32_v4.py LLAMA_CPP_TREE LLAMA_QUANTIZE WORK_FOLDER

Needs torch and transformers. Uses the tools of compare_transformers.py and compare_llama_cpp.py on
the small checkpoints of tests/checkpoints_v32.py. Prints the largest difference of logits over 64
tokens, and which tensors and metadata keys differ from those of convert_hf_to_gguf.py and
llama-quantize. Writes tests/converters/golden_v32_v4.npz (logits) and golden_types_v32_v4.json
(types that llama-quantize chose), which the test suite compares with.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]

import checkpoints_v32  # noqa: E402 - the paths above come first
import compare_llama_cpp as programs  # noqa: E402
import compare_transformers as models  # noqa: E402
from gguf import GGUFReader  # noqa: E402

import converters  # noqa: E402

GOLDEN = ROOT / "tests" / "converters" / "golden_v32_v4.npz"
GOLDEN_TYPES = ROOT / "tests" / "converters" / "golden_types_v32_v4.json"
MIXTURES = ("Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S", "Q3_K_M", "Q2_K")
V32 = {
    "v32-fp8": checkpoints_v32.make_v32,
    "v32-bf16-own-head": lambda folder: checkpoints_v32.make_v32(
        folder, dtype="BF16", shared_mtp=False, shards=3
    ),
}


def convert(folder: Path, kind: str) -> Path:
    out = folder.with_name(f"{folder.name}-{kind}.gguf")
    converters.convert(folder, out, converters.ConvertOptions(type=kind))
    return out


def runtime_logits(model: Path, tokens: np.ndarray[Any, Any]) -> Any:
    out = model.with_suffix(".npz")
    command = [sys.executable, str(models.RUNNER), str(model), str(out), ",".join(map(str, tokens))]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return np.load(out)


def compare_logits(folder: Path, golden: dict[str, Any]) -> None:
    """Compare trunk and MTP with transformers and our own PyTorch layer (the MTP is V3's)."""
    config = json.loads((folder / "config.json").read_text())
    tokens = np.random.default_rng(7).integers(3, 263, models.N_TOKENS)
    weights = models.load_weights(folder)
    logits, hidden = models.reference(folder, weights, torch.from_numpy(tokens))
    with torch.no_grad():
        drafts = models.mtp_reference(config, weights, torch.from_numpy(tokens), hidden)
    found = runtime_logits(folder.with_name(f"{folder.name}-F32.gguf"), tokens)
    golden[f"{folder.name}.tokens"] = tokens
    for key, rows in (("logits", logits), ("mtp_logits", drafts)):
        difference = float(np.abs(found[key] - rows).max())
        print(f"    {key}: max |difference| {difference:.2e} (spread {rows.std():.2f})")
        golden[f"{folder.name}.{key}"] = rows[models.GOLDEN_ROWS].astype(np.float32)


def compare_files(tree: Path, quantize: Path, folder: Path, golden: dict[str, Any]) -> None:
    """Compare tensors and metadata with both of llama.cpp's programs."""
    depth = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    for kind in programs.PLAIN:
        ours, theirs = convert(folder, kind), folder.with_name(f"{folder.name}-{kind}-ref.gguf")
        programs.reference_convert(tree, folder, theirs, kind)
        readers = GGUFReader(ours), GGUFReader(theirs)
        print(f"    {kind}: {programs.compare_tensors(*readers, depth)}")
        if kind == "F32":
            print("\n".join(programs.compare_metadata(*readers)))
    golden[folder.name] = {}
    for kind in MIXTURES:
        ours, theirs = convert(folder, kind), folder.with_name(f"{folder.name}-{kind}-ref.gguf")
        source = folder.with_name(f"{folder.name}-F32.gguf")
        command = [str(quantize), str(source), str(theirs), kind]
        subprocess.run(command, check=True, capture_output=True, timeout=600)
        readers = GGUFReader(ours), GGUFReader(theirs)
        print(f"    {kind}: {programs.compare_tensors(*readers, depth)}")
        golden[folder.name][kind] = {
            name: one.tensor_type.name
            for name, one in programs.tensors(readers[1]).items()
            if one.tensor_type.name != "F32"
        }


def main() -> None:
    tree, quantize, work = (Path(argument).resolve() for argument in sys.argv[1:4])
    work.mkdir(parents=True)
    logits: dict[str, Any] = {}
    types: dict[str, Any] = {}
    for name, make in V32.items():
        print(name)
        compare_files(tree, quantize, make(work / name), types)
    # After the forks of the reference converter, which would inherit torch's threads dead.
    for name in V32:
        print(name)
        compare_logits(work / name, logits)
    np.savez_compressed(GOLDEN, **logits)
    GOLDEN_TYPES.write_text(json.dumps(types, indent=0, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
