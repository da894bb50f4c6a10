"""Which part of a model a tensor belongs to, by its GGUF name.

The parts are what a DeepSeek model is made of and what its size is told in: latent attention, dense
and shared feed-forward, routed experts, router, embedding, output, the MTP layer.
Knows names only: no types, no sizes, no checkpoints.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, get_args

Group = Literal[
    "embedding",
    "output",
    "attention",
    "indexer",
    "dense FFN",
    "shared experts",
    "routed experts, gate",
    "routed experts, up",
    "routed experts, down",
    "router",
    "norms and other vectors",
    "hyper-connections",
    "MTP layer",
    "other",
]
GROUPS: tuple[Group, ...] = get_args(Group)
ROUTED: tuple[Group, ...] = ("routed experts, gate", "routed experts, up", "routed experts, down")

# The first pattern that is found decides; a fused gate and up is counted with gate.
_PATTERNS: tuple[tuple[str, Group], ...] = (
    (r"^token_embd\.weight$", "embedding"),
    (r"^output\.weight$", "output"),
    (r"ffn_gate_(inp|tid2eid)|exp_probs_b", "router"),
    (r"_norm\.|\.bias$|^rope_freqs|sinks", "norms and other vectors"),
    (r"(^output_|\.)hc_", "hyper-connections"),
    (r"indexer", "indexer"),
    (r"ffn_(gate|gate_up)_exps", "routed experts, gate"),
    (r"ffn_up_exps", "routed experts, up"),
    (r"ffn_down_exps", "routed experts, down"),
    (r"_shexp", "shared experts"),
    (r"attn_", "attention"),
    (r"ffn_(gate|up|down)\.", "dense FFN"),
)


def layer_of(name: str) -> int:
    """Return the number in `blk.N.`, or -1 for a tensor of no layer."""
    found = re.match(r"blk\.(\d+)\.", name)
    return int(found[1]) if found else -1


def group_of(name: str, n_layer: int) -> Group:
    """Return a tensor's part; layers from `n_layer` on are the MTP layer, all of them."""
    if layer_of(name) >= n_layer:
        return "MTP layer"
    return next((group for pattern, group in _PATTERNS if re.search(pattern, name)), "other")


def active_parameters(parameters: Mapping[Group, int], n_expert: int, n_used: int) -> int:
    """Return how many parameters a token meets: the trunk with `n_used` of its routed experts.

    The embedding is left out, of which a token takes one row; so the sums are the published ones
    (37 B for V3, 21 B for V2, 2.4 B for V2-Lite).
    """
    total = 0
    for group, count in parameters.items():
        if group in ROUTED:
            total += count * n_used // n_expert
        elif group not in ("embedding", "MTP layer"):
            total += count
    return total
