"""Compare GGUF → GGUF conversions with llama-quantize --allow-requantize: run by hand.

    python tests/reference/compare_requantized.py LLAMA_QUANTIZE WORK_FOLDER [MODEL.gguf…]

Converts the embedded model to F32, F16, BF16 and Q8_0, requantizes each of these and every MODEL
with both programs, compares types and bytes tensor by tensor, and writes
tests/converters/golden_requantized.json: what llama-quantize makes of the Q8_0 file, which the test
suite compares with.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from gguf import GGUFReader  # noqa: E402 - the path above comes first

from converters import ConvertOptions, convert  # noqa: E402
from localseek import nano  # noqa: E402

GOLDEN = ROOT / "tests" / "converters" / "golden_requantized.json"
KINDS = ("Q8_0", "Q6_K", "Q4_K_M", "Q3_K_M", "IQ4_XS", "Q2_K", "Q5_1", "F16", "BF16", "F32")
GOLDEN_KINDS = ("Q4_K_M", "Q2_K", "F16")
DRAFT = "blk.4."  # nano's MTP layer: ours keeps it at Q8_0


def contents(path: Path) -> dict[str, list[str]]:
    return {
        one.name: [one.tensor_type.name, hashlib.sha256(one.data.tobytes()).hexdigest()[:16]]
        for one in GGUFReader(path).tensors
    }


def compare(
    quantize: Path, source: Path, kind: str, work: Path, draft: str
) -> dict[str, list[str]]:
    ours, theirs = work / "ours.gguf", work / "theirs.gguf"
    result = convert(source, ours, ConvertOptions(type=kind, force=True))
    command = [str(quantize), "--allow-requantize", str(source), str(theirs), kind]
    subprocess.run(command, check=True, capture_output=True, timeout=3600)
    left, right = contents(ours), contents(theirs)
    assert left.keys() == right.keys()
    rest = [name for name in left if not (draft and name.startswith(draft))]
    different = [name for name in rest if left[name] != right[name]]
    warned = ", warned" if result.warnings else ""
    print(f"{source.name} → {kind}: {len(rest) - len(different)} equal{warned}", *different[:5])
    return {name: right[name] for name in right if not name.startswith(DRAFT)}


def main() -> None:
    quantize, work = Path(sys.argv[1]), Path(sys.argv[2])
    work.mkdir(parents=True, exist_ok=True)
    golden = {}
    for stored in ("F32", "F16", "BF16", "Q8_0"):
        source = work / f"nano-{stored}.gguf"
        convert(nano.CHECKPOINT, source, ConvertOptions(type=stored, force=True))
        for kind in KINDS:
            found = compare(quantize, source, kind, work, DRAFT)
            if stored == "Q8_0" and kind in GOLDEN_KINDS:
                golden[kind] = found
    GOLDEN.write_text(json.dumps(golden, indent=0, sort_keys=True) + "\n")
    for model in sys.argv[3:]:
        for kind in KINDS:
            compare(quantize, Path(model), kind, work, "")


if __name__ == "__main__":
    main()
