"""Models that exist as tensor lists only, for rules of llama-quantize that no small checkpoint
reaches: grouped attention, 70B, eight experts, shared embeddings.

llama-quantize reads names, widths and a few metadata keys, so the hand-run script writes these as
GGUF files of zeros and the test asks the recipe about the same lists.
"""

from __future__ import annotations

from dataclasses import dataclass

from converters.layout import Metadata
from converters.types.mixtures import Shape

COLUMNS = 256


@dataclass(frozen=True)
class Listed:
    """An architecture, its metadata without the prefix, and its tensors."""

    architecture: str
    values: Metadata
    tensors: tuple[Shape, ...]


def _listed(
    architecture: str,
    layers: int,
    heads: tuple[int, int],
    experts: int = 0,
    head: bool = True,
    columns: int = COLUMNS,
) -> Listed:
    values: dict[str, bool | int | float] = {
        "block_count": layers, "context_length": 64, "embedding_length": COLUMNS,
        "feed_forward_length": COLUMNS, "attention.head_count": heads[0],
        "attention.head_count_kv": heads[1], "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.dimension_count": COLUMNS // heads[0], "vocab_size": 2,
    }  # fmt: skip
    names = ["attn_q", "attn_k", "attn_v", "attn_output"]
    stacked: list[str] = []
    if experts:
        values |= {"expert_count": experts, "expert_used_count": 2}
        stacked = ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"]
    else:
        names += ["ffn_gate", "ffn_up", "ffn_down"]
    tensors = [Shape("token_embd.weight", (2, columns)), Shape("output_norm.weight", (columns,))]
    if head:
        tensors.append(Shape("output.weight", (2, columns)))
    for layer in range(layers):
        tensors += [Shape(f"blk.{layer}.{name}.weight", (2, columns)) for name in names]
        tensors += [Shape(f"blk.{layer}.{name}.weight", (experts, 2, columns)) for name in stacked]
    return Listed(architecture, values, tuple(tensors))


LISTED = {
    "llama": _listed("llama", 18, (8, 8)),
    "llama-grouped": _listed("llama", 18, (8, 2)),
    "llama-shared-head": _listed("llama", 18, (8, 2), head=False),
    "llama-65b": _listed("llama", 80, (8, 8)),
    "llama-70b": _listed("llama", 80, (8, 1)),
    "llama-8-experts": _listed("llama", 18, (8, 8), experts=8),
    "llama-4-experts": _listed("llama", 18, (8, 8), experts=4),
    "llama-96": _listed("llama", 9, (8, 8), columns=96),
    "llama-80": _listed("llama", 9, (8, 8), columns=80),
    "qwen2-72b": _listed("qwen2", 80, (8, 4)),
}
