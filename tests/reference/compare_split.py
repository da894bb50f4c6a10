"""Compare a split conversion, byte for byte, with llama.cpp's gguf-split of the single file.

    python tests/reference/compare_split.py LLAMA_GGUF_SPLIT CHECKPOINT SIZE_MB

LLAMA_GGUF_SPLIT is the program of the llama.cpp tree that llama-cpp-python 0.3.36 ships.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from converters import ConvertOptions, convert


def main() -> int:
    """Convert twice, split once, compare all files; return how many differ."""
    program, checkpoint, size_mb = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        convert(checkpoint, folder / "single.gguf")
        ours = convert(
            checkpoint, folder / "ours.gguf", ConvertOptions(split_bytes=size_mb * 10**6)
        ).parts
        subprocess.run(
            [program, "--split", "--split-max-size", f"{size_mb}M", folder / "single.gguf",
             folder / "theirs"],
            check=True, capture_output=True,
        )  # fmt: skip
        theirs = sorted(folder.glob("theirs-*"))
        equal = [
            one.read_bytes() == other.read_bytes() for one, other in zip(ours, theirs, strict=False)
        ]
        print(f"{len(ours)} parts, {len(theirs)} of gguf-split, {sum(equal)} equal")
        return max(len(ours), len(theirs)) - sum(equal)


if __name__ == "__main__":
    sys.exit(main())
