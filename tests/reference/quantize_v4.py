"""Write tests/converters/golden_types_v4.json, llama-quantize's types for a V4 file: run by hand.

    python tests/reference/quantize_v4.py LLAMA_QUANTIZE WORK_FOLDER

Takes the small V4 checkpoint with FP8 experts, for llama-quantize knows no rule for stored FP4.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from quantize_types import ROOT, types_of

import checkpoints_v4  # isort: skip - quantize_types sets the path
import converters

MIXTURES = ("Q8_0", "Q4_K_M", "Q2_K", "IQ4_XS", "MXFP4_MOE")


def main() -> None:
    quantize, work = (Path(argument).resolve() for argument in sys.argv[1:3])
    folder = checkpoints_v4.make_v4(work / "v4", experts="fp8")
    path = work / "v4.gguf"
    converters.convert(folder, path, converters.ConvertOptions(type="F32"))
    found = {kind: types_of(quantize, path, kind, None) for kind in MIXTURES}
    target = ROOT / "tests" / "converters" / "golden_types_v4.json"
    target.write_text(json.dumps(found, indent=0, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
