"""The small dense checkpoints whose logits golden_dense.npz holds, by name.

Used by the hand-run comparison that writes the file and by the test that reads it. Each value takes
the folder to make; contexts of 64 tokens reach beyond what the scaled ropes were trained for.
"""

from __future__ import annotations

from functools import partial

import checkpoints_dense as dense

MODELS = {
    "llama": dense.make_llama,
    "llama-coder-odd": partial(dense.make_llama, dims=dense.ODD, kind="coder", dtype="F32"),
    "llama-distill": partial(dense.make_llama, dims=dense.WIDE_HEADS, kind="distill"),
    "llama-prover": partial(dense.make_llama, config={"rope_scaling": dense.PROVER_ROPE}),
    "llama-tied": partial(dense.make_llama, config={"tie_word_embeddings": True}),
    "moe": dense.make_moe,
    "qwen2": dense.make_qwen2,
    "qwen3": dense.make_qwen3,
}
