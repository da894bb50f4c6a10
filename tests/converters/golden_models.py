"""The small checkpoints whose types llama-quantize chose for golden_types.json.

Used by the hand-run comparison that writes the file and by the test that reads it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import checkpoints_dense as dense
from checkpoints import ODD, Dims, make_v2_lite, make_v3

_DEEP = Dims(num_hidden_layers=17, n_routed_experts=4, num_experts_per_tok=2, intermediate_size=256)

# Every call takes the folder to make: stored dtypes, depth, odd widths, the eight-expert rules.
MODELS = {
    "llama-coder": partial(dense.make_llama, kind="coder", shards=2),
    "llama-distill": partial(dense.make_llama, kind="distill", dtype="F16"),
    "llama-odd": partial(dense.make_llama, dims=dense.ODD, dtype="F32"),
    "moe": dense.make_moe,
    "qwen2": dense.make_qwen2,
    "qwen3": dense.make_qwen3,
    "v2-lite": make_v2_lite,
    "v2-odd": partial(make_v2_lite, dims=replace(ODD, q_lora_rank=None), dtype="F32"),
    "v3-bf16": partial(make_v3, dtype="BF16", shards=3),
    "v3-deep": partial(make_v3, dims=_DEEP, mtp=False, config={"n_group": 1, "topk_group": 1}),
    "v3-eight": partial(make_v3, dims=Dims(n_routed_experts=8)),
    "v3-f16": partial(make_v3, dtype="F16", mtp=False),
    "v3-fp8": make_v3,
    "v3-odd": partial(make_v3, dims=ODD),
}
# Decoder layers of the trunk; a layer of that number is the MTP layer.
DEPTHS = dict.fromkeys(MODELS, 3) | {"llama-odd": 2, "v3-deep": 17}
# These differ from another by the stored dtype or the tokenizer alone: their types are not written.
SAME_TYPES = ("llama-coder", "llama-distill", "v3-bf16", "v3-f16")
