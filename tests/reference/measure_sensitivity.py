"""How much the embedded model's answers change when one part of it alone is quantized.

`PYTHONPATH=. python tests/reference/measure_sensitivity.py FOLDER [--count N]` converts nano to
F32 and then, once a part and a type, to F32 with that part alone quantized; prints the mean KL
divergence from F32, and that divergence over (tensors of the part × the type's relative error).
A small linear theory stands behind the quotient: near the optimum the expected loss grows as a sum
over tensors of a constant times the tensor's relative squared error. Run by hand;
converters/types/fit.py says what was taken from it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from compare_types import compare, log_probabilities, texts_of

from converters import ConvertOptions, convert
from converters.types.type_errors import RELATIVE_ERRORS
from localseek.nano.prompts import __file__ as nano_file

# nano has four trunk layers (0 dense, 1–3 with experts) and its MTP layer is not read here.
TRUNK = r"blk\.[0-3]\."
PARTS = {
    "embedding": "token_embd",
    "output": r"^output\.weight",
    "attn_q_a": TRUNK + r"attn_q_a\.",
    "attn_q_b": TRUNK + r"attn_q_b\.",
    "attn_kv_a": TRUNK + r"attn_kv_a_mqa\.",
    "attn_k_b": TRUNK + r"attn_k_b\.",
    "attn_v_b": TRUNK + r"attn_v_b\.",
    "attn_output": TRUNK + r"attn_output\.",
    "dense gate": r"blk\.0\.ffn_gate\.",
    "dense up": r"blk\.0\.ffn_up\.",
    "dense down": r"blk\.0\.ffn_down\.",
    "shared gate": TRUNK + "ffn_gate_shexp",
    "shared up": TRUNK + "ffn_up_shexp",
    "shared down": TRUNK + "ffn_down_shexp",
    "routed gate": TRUNK + "ffn_gate_exps",
    "routed up": TRUNK + "ffn_up_exps",
    "routed down": TRUNK + "ffn_down_exps",
    "routed layer 1": r"blk\.1\.ffn_.*_exps",
    "routed layer 2": r"blk\.2\.ffn_.*_exps",
    "routed layer 3": r"blk\.3\.ffn_.*_exps",
}
COUNTS = {name: 4 for name in PARTS if name.startswith("attn")} | {
    name: 3 for name in PARTS if name.startswith(("shared", "routed"))
}
TYPES = ("Q4_0", "Q5_0")  # blocks of 32 fit every row of nano


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=50)
    args = parser.parse_args()
    checkpoint = Path(nano_file).parent / "checkpoint"
    whole = args.folder / "F32.gguf"
    convert(checkpoint, whole, ConvertOptions("F32", threads=1, force=True))
    texts = texts_of(whole, args.count)
    first = log_probabilities(whole, texts)
    print(f"{len(first)} positions; part, type, mean KL in nats, KL / (tensors × relative error)")
    for part, pattern in PARTS.items():
        for kind in TYPES:
            target = args.folder / "part.gguf"
            options = ConvertOptions("F32", tensor_types=((pattern, kind),), threads=1, force=True)
            convert(checkpoint, target, options)
            found = compare(first, log_probabilities(target, texts))
            quotient = found.kl_nats / (COUNTS.get(part, 1) * RELATIVE_ERRORS[kind])
            print(f"{part:15} {kind}  {found.kl_nats:.2e}  {quotient:.3f}", flush=True)


if __name__ == "__main__":
    main()
