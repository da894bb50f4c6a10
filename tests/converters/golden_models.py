"""The small checkpoints whose types llama-quantize chose for golden_types.json.

Used by the hand-run comparison that writes the file and by the test that reads it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import checkpoints
from checkpoints import ODD, Dims

# Decoder layers of the trunk, by model; a layer of that number is the MTP layer.
DEPTHS = {
    "v2-lite": 3, "v2-odd": 3, "v3-bf16": 3, "v3-deep": 17, "v3-eight": 3, "v3-f16": 3,
    "v3-fp8": 3, "v3-odd": 3,
}  # fmt: skip


def make(folder: Path) -> None:
    """Make all of them: FP8, BF16, F16 and F32, deep, odd widths, and the eight-expert rules."""
    deep = Dims(
        num_hidden_layers=17, n_routed_experts=4, num_experts_per_tok=2, intermediate_size=256
    )
    checkpoints.make_v3(folder / "v3-fp8")
    checkpoints.make_v3(folder / "v3-bf16", dtype="BF16", shards=3)
    checkpoints.make_v3(folder / "v3-f16", dtype="F16", mtp=False)
    checkpoints.make_v3(folder / "v3-odd", ODD)
    no_groups = {"n_group": 1, "topk_group": 1}
    checkpoints.make_v3(folder / "v3-deep", deep, mtp=False, config=no_groups)
    checkpoints.make_v3(folder / "v3-eight", Dims(n_routed_experts=8))
    checkpoints.make_v2_lite(folder / "v2-lite")
    checkpoints.make_v2_lite(folder / "v2-odd", replace(ODD, q_lora_rank=None), dtype="F32")
