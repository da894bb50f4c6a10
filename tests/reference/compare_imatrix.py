"""Compare files made with an importance matrix with llama-quantize --imatrix: run by hand.

    python tests/reference/compare_imatrix.py LLAMA_QUANTIZE LLAMA_IMATRIX WORK_FOLDER [TYPE…]

Computes a matrix of the embedded model over its own problems with llama-imatrix, in both formats,
converts the model with each to every mixture (or those named), and compares tensors bit for bit and
metadata key by key with llama-quantize on the same matrix. Without the MTP layer, which no matrix
has data for: llama-quantize stops there, ours falls back. Needs no torch; the smallest types take
minutes, most of which ggml spends on its search tables.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "converters")]

from compare_llama_cpp import compare_metadata, compare_tensors  # noqa: E402 - paths first
from gguf import GGUFReader  # noqa: E402

from converters import ConvertOptions, convert  # noqa: E402
from converters.types.mixtures import MIXTURES, PLAIN  # noqa: E402
from localseek import nano  # noqa: E402
from localseek.nano import problems  # noqa: E402

LAYERS = 4


def write_text(path: Path) -> None:
    rng = random.Random(5)
    made = [problems.make(rng, family, False) for family in 50 * problems.FAMILIES]
    path.write_text("\n".join(f"{one.question}\n{one.reasoning}\n{one.answer}" for one in made))


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=3600)


def main() -> None:
    quantize, imatrix, work = (Path(argument).resolve() for argument in sys.argv[1:4])
    work.mkdir(parents=True)
    whole, text = work / "F32.gguf", work / "problems.txt"
    convert(nano.CHECKPOINT, whole, ConvertOptions("F32", mtp="drop"))
    write_text(text)
    kinds = sys.argv[4:] or [name for name, one in MIXTURES.items() if one.base not in PLAIN]
    for form in ("gguf", "dat"):
        matrix = work / f"imatrix.{form}"
        run(imatrix, "-m", whole, "-f", text, "-o", matrix, "--output-format", form,
            "-c", 256, "--chunks", 12, "--no-ppl")  # fmt: skip
        for kind in kinds:
            ours, theirs = work / f"{kind}.gguf", work / f"{kind}-ref.gguf"
            options = ConvertOptions(kind, mtp="drop", imatrix=matrix, force=True)
            convert(nano.CHECKPOINT, ours, options)
            run(quantize, "--imatrix", matrix, whole, theirs, kind)
            readers = GGUFReader(ours), GGUFReader(theirs)
            print(f"{form} {kind}: {compare_tensors(*readers, LAYERS)}")
            print("\n".join(compare_metadata(*readers)), flush=True)


if __name__ == "__main__":
    main()
