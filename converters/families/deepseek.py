"""DeepSeek MoE-16B (`DeepseekForCausalLM`) → `deepseek`.

Llama's attention with queries and keys dealt out, a dense first layer, then experts behind a
softmax router, and shared experts. llama.cpp neither normalizes nor scales the router's shares.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from converters.errors import ConvertError
from converters.families import dense
from converters.layout import Described, Dropped, Piece, Target, whole
from converters.source.checkpoint import Checkpoint
from converters.source.config import Config

ARCHITECTURES = ("DeepseekForCausalLM",)
GGUF_ARCHITECTURE = "deepseek"
_SOFTMAX = 1  # llama.cpp's LLAMA_EXPERT_GATING_FUNC_TYPE_SOFTMAX


@dataclass(frozen=True)
class Experts:
    """What a layer with experts needs to know."""

    count: int
    used: int
    shared: int
    width: int
    first_layer: int  # the layers before it are dense


def metadata(config: Config, checkpoint: Checkpoint, mtp: bool) -> Described:
    """Return the metadata; there is no MTP layer, so `mtp` changes nothing."""
    model, experts = _read(config)
    values = dense.describe(model)
    values |= {
        "vocab_size": model.n_vocab,
        "rope.dimension_count": model.head_dim,
        "rope.scaling.type": "none",
        "leading_dense_block_count": experts.first_layer,
        "expert_count": experts.count,
        "expert_used_count": experts.used,
        "expert_shared_count": experts.shared,
        "expert_feed_forward_length": experts.width,
        "expert_weights_scale": 1.0,
        "expert_gating_func": _SOFTMAX,
    }
    return Described(values)


def tensors(config: Config, checkpoint: Checkpoint, mtp: bool) -> Iterator[Target | Dropped]:
    """Yield the targets in file order."""
    model, experts = _read(config)
    yield from dense.ends(model, checkpoint)
    for layer in range(model.n_layer):
        source, block = f"model.layers.{layer}.mlp", f"blk.{layer}"
        yield from dense.attention(model, checkpoint, layer, permuted=True)
        if layer < experts.first_layer:
            yield from dense.feed_forward(source, block, "", model.n_embd, model.n_ff)
        else:
            yield from _expert_layer(source, block, model.n_embd, experts)


def _expert_layer(source: str, block: str, hidden: int, experts: Experts) -> Iterator[Target]:
    count, width = experts.count, experts.width
    yield whole(f"{block}.ffn_gate_inp.weight", f"{source}.gate.weight", count, hidden)
    for part, shape in (
        ("gate", (width, hidden)),
        ("up", (width, hidden)),
        ("down", (hidden, width)),
    ):
        names = [f"{source}.experts.{expert}.{part}_proj.weight" for expert in range(count)]
        pieces = tuple(Piece(name, shape) for name in names)
        yield Target(f"{block}.ffn_{part}_exps.weight", (count, *shape), pieces)
    shared = f"{source}.shared_experts"
    yield from dense.feed_forward(shared, block, "_shexp", hidden, width * experts.shared)


def _read(config: Config) -> tuple[dense.Model, Experts]:
    model = dense.read_model(config, rope_kinds=("default",))
    dense.require_even_heads(config, model)
    config.choice("scoring_func", ("softmax",), "softmax")
    config.choice("norm_topk_prob", (False,), False)
    config.choice("moe_layer_freq", (1,), 1)
    if config.number("routed_scaling_factor", 1.0) != 1.0:
        raise ConvertError(f"{config.origin}: routed_scaling_factor is not supported (only 1)")
    experts = Experts(
        count=config.count("n_routed_experts", least=2),
        used=config.count("num_experts_per_tok"),
        shared=config.count("n_shared_experts"),
        width=config.count("moe_intermediate_size"),
        first_layer=config.count("first_k_dense_replace", least=0),
    )
    if experts.used > experts.count:
        raise ConvertError(f"{config.origin}: num_experts_per_tok is above n_routed_experts")
    if experts.first_layer > model.n_layer:
        raise ConvertError(f"{config.origin}: first_k_dense_replace is above num_hidden_layers")
    return model, experts
