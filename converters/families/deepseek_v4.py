"""DeepSeek V4-Flash, V4-Pro and their Base checkpoints (`DeepseekV4ForCausalLM`) → `deepseek4`.

One latent key-value head in a sliding window, beside it keys compressed 4 : 1 (an indexer picks
which) or 128 : 1, four residual streams joined by hyper-connections, experts everywhere, chosen by
the token's id in the first layers. Names are DeepSeek's own, without `model.`. Experts may be
stored in FP4 or, in the Base checkpoints, in FP8. llama.cpp runs the MTP layer from a file of its
own, for it takes other weights than the trunk to join the streams: see deepseek_v4_mtp.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from converters.errors import ConvertError
from converters.layout import Described, Dropped, Piece, Target, Value, whole
from converters.source.checkpoint import Checkpoint
from converters.source.config import BETA_FAST, BETA_SLOW, Config, Rope, read_rope

ARCHITECTURES = ("DeepseekV4ForCausalLM",)
GGUF_ARCHITECTURE = "deepseek4"
DRAFT_MODULE = "deepseek_v4_mtp"  # what --mtp only writes

_SQRT_SOFTPLUS = 4  # llama.cpp's LLAMA_EXPERT_GATING_FUNC_TYPE_SQRT_SOFTPLUS
_OVERLAPPING, _LONG = 4, 128  # the compression ratios that llama.cpp knows
_STREAMS = 4  # hc_mult, which llama.cpp asserts
_HADAMARD_LEAST = 64  # llama.cpp's smallest rotation of indexer heads (src/llama-kv-cache.cpp)

MTP_ELSEWHERE = (
    "the MTP layer is not in this file: llama.cpp takes it from one of its own, which "
    "--mtp only writes"
)


@dataclass(frozen=True)
class Model:
    """The dimensions of a model, in llama.cpp's names where it has one."""

    n_layer: int
    n_nextn: int  # MTP layers that the checkpoint declares
    n_ctx_train: int
    n_embd: int
    n_ff_exp: int
    n_head: int
    head_size: int
    n_rot: int
    n_vocab: int
    q_lora_rank: int
    o_groups: int
    o_lora_rank: int
    n_expert: int
    n_expert_used: int
    n_expert_shared: int
    expert_scale: float
    experts_normalized: bool
    swiglu_limit: float
    n_hash_layer: int
    n_swa: int
    ratios: tuple[int, ...]  # of compression, one a layer, MTP layers last
    compress_theta: float
    indexer_heads: int
    indexer_size: int
    indexer_top_k: int
    sinkhorn_iterations: int
    hc_eps: float
    rms_eps: float
    rope: Rope


def metadata(config: Config, checkpoint: Checkpoint, mtp: bool) -> Described:
    """Return the trunk's metadata; `mtp` says whether the MTP layer was hoped for."""
    model = read_model(config)
    stored = any(name.startswith("mtp.") for name in checkpoint.tensors)
    warnings = (MTP_ELSEWHERE,) if mtp and stored else ()
    return Described(describe(model, model.n_layer), warnings)


def tensors(config: Config, checkpoint: Checkpoint, mtp: bool) -> Iterator[Target | Dropped]:
    """Yield the trunk; the MTP layer's tensors are left out."""
    model = read_model(config)
    hidden, table = model.n_embd, (model.n_vocab, model.n_embd)
    yield whole("token_embd.weight", "embed.weight", *table)
    for layer in range(model.n_layer):
        source, block = f"layers.{layer}", f"blk.{layer}"
        yield from layer_tensors(model, checkpoint, source, block, layer)
    yield from hyper_head(model, "")
    yield whole("output_norm.weight", "norm.weight", hidden)
    yield whole("output.weight", "head.weight", *table)
    for name in checkpoint.tensors:
        if name.startswith("mtp.") and not name.endswith(".scale"):
            yield Dropped(name, "the MTP layer goes into a file of its own")


def release_dtype(config: Config, name: str, shape: tuple[int, ...]) -> str:
    """Return how a release stores a weight; "FP4" for packed codes (deepseek.md, section 2)."""
    if name.endswith("tid2eid"):
        return "I64"
    if name.endswith(("_fn", "_base", "_scale", "attn_sink", ".ape", "gate.bias")):
        return "F32"
    if ".experts." in name:
        return "FP4" if config.values.get("expert_dtype", "fp4") == "fp4" else "F8_E4M3"
    plain = ("embed.weight", "head.weight", "ffn.gate.weight", "weights_proj.weight")
    if len(shape) < 2 or name.endswith(plain) or ".compressor." in name:
        return "BF16"
    return "F8_E4M3"


def read_model(config: Config) -> Model:
    """Read and check the dimensions."""
    for key, value in (("hidden_act", "silu"), ("scoring_func", "sqrtsoftplus")):
        config.choice(key, (value,), value)
    config.choice("topk_method", ("noaux_tc",), "noaux_tc")
    config.choice("attention_bias", (False,), False)
    config.choice("tie_word_embeddings", (False,), False)
    config.choice("num_key_value_heads", (1,), 1)
    config.choice("hc_mult", (_STREAMS,))
    config.choice("expert_dtype", ("fp4", "fp8"), "fp4")  # the tensors themselves decide
    if config.count("vision_n_layers", 0, least=0):
        raise ConvertError(f"{config.origin}: vision_n_layers: only language models are supported")
    model = Model(
        n_layer=config.count("num_hidden_layers"),
        n_nextn=config.count("num_nextn_predict_layers", 0, least=0),
        n_ctx_train=config.count("max_position_embeddings"),
        n_embd=config.count("hidden_size"),
        n_ff_exp=config.count("moe_intermediate_size"),
        n_head=config.count("num_attention_heads"),
        head_size=config.count("head_dim"),
        n_rot=config.count("qk_rope_head_dim"),
        n_vocab=config.count("vocab_size"),
        q_lora_rank=config.count("q_lora_rank"),
        o_groups=config.count("o_groups"),
        o_lora_rank=config.count("o_lora_rank"),
        n_expert=config.count("n_routed_experts", least=2),
        n_expert_used=config.count("num_experts_per_tok"),
        n_expert_shared=config.count("n_shared_experts"),
        expert_scale=config.number("routed_scaling_factor", 1.0),
        experts_normalized=config.flag("norm_topk_prob", True),
        swiglu_limit=config.number("swiglu_limit"),
        n_hash_layer=config.count("num_hash_layers", 0, least=0),
        n_swa=config.count("sliding_window"),
        ratios=_ratios(config),
        compress_theta=config.number("compress_rope_theta"),
        indexer_heads=config.count("index_n_heads"),
        indexer_size=config.count("index_head_dim"),
        indexer_top_k=config.count("index_topk"),
        sinkhorn_iterations=config.count("hc_sinkhorn_iters"),
        hc_eps=config.number("hc_eps"),
        rms_eps=config.number("rms_norm_eps", 1e-6),
        rope=read_rope(config),
    )
    _check_runtime(config, model)
    return model


def describe(model: Model, blocks: int) -> dict[str, Value]:
    """Return the metadata of a file of `blocks` blocks, without the architecture's prefix."""
    values: dict[str, Value] = {
        "block_count": blocks,
        "context_length": model.n_ctx_train,
        "embedding_length": model.n_embd,
        "embedding_length_out": model.n_embd * _STREAMS,
        "vocab_size": model.n_vocab,
        "attention.head_count": model.n_head,
        "attention.head_count_kv": 1,
        "attention.key_length": model.head_size,
        "attention.value_length": model.head_size,
        "attention.layer_norm_rms_epsilon": model.rms_eps,
        "attention.sliding_window": model.n_swa,
        "attention.q_lora_rank": model.q_lora_rank,
        "attention.output_group_count": model.o_groups,
        "attention.output_lora_rank": model.o_lora_rank,
        "attention.compress_ratios": model.ratios,
        "attention.compress_rope_freq_base": model.compress_theta,
        "attention.indexer.head_count": model.indexer_heads,
        "attention.indexer.key_length": model.indexer_size,
        "attention.indexer.top_k": model.indexer_top_k,
        "rope.dimension_count": model.n_rot,
        "rope.freq_base": model.rope.theta,
        "expert_count": model.n_expert,
        "expert_used_count": model.n_expert_used,
        "expert_shared_count": model.n_expert_shared,
        "expert_feed_forward_length": model.n_ff_exp,
        "expert_weights_scale": model.expert_scale,
        "expert_weights_norm": model.experts_normalized,
        "expert_gating_func": _SQRT_SOFTPLUS,
        "swiglu_clamp_exp": (model.swiglu_limit,) * blocks,
        "swiglu_clamp_shexp": (model.swiglu_limit,) * blocks,
        "hash_layer_count": model.n_hash_layer,
        "hyper_connection.count": _STREAMS,
        "hyper_connection.sinkhorn_iterations": model.sinkhorn_iterations,
        "hyper_connection.epsilon": model.hc_eps,
    }
    if model.rope.yarn is not None:
        values |= {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": model.rope.yarn.factor,
            "rope.scaling.original_context_length": model.rope.yarn.original_context,
            "rope.scaling.yarn_beta_fast": BETA_FAST,
            "rope.scaling.yarn_beta_slow": BETA_SLOW,
        }
    return values


def hyper_head(model: Model, source: str) -> Iterator[Target]:
    """Yield what joins the streams before the output; `source` is a prefix."""
    width = _STREAMS * model.n_embd
    yield whole("output_hc_fn.weight", f"{source}hc_head_fn", _STREAMS, width)
    yield whole("output_hc_base.weight", f"{source}hc_head_base", _STREAMS)
    yield whole("output_hc_scale.weight", f"{source}hc_head_scale", 1)


def layer_tensors(
    model: Model, checkpoint: Checkpoint, source: str, block: str, layer: int
) -> Iterator[Target | Dropped]:
    """Yield one decoder layer."""
    hidden = model.n_embd
    yield whole(f"{block}.attn_norm.weight", f"{source}.attn_norm.weight", hidden)
    yield from _attention(model, f"{source}.attn", block)
    if model.ratios[layer]:
        ratio, streams = model.ratios[layer], 2 if model.ratios[layer] == _OVERLAPPING else 1
        name = f"{source}.attn.compressor"
        shape = (streams * model.head_size, hidden)
        yield from _compressor(f"{block}.attn_compressor", name, ratio, shape, model.head_size)
    if model.ratios[layer] == _OVERLAPPING:
        yield from _indexer(model, f"{source}.attn.indexer", block)
    mixes, width = (2 + _STREAMS) * _STREAMS, _STREAMS * hidden
    for part in ("attn", "ffn"):
        name = f"{source}.hc_{part}"
        yield whole(f"{block}.hc_{part}_fn.weight", f"{name}_fn", mixes, width)
        yield whole(f"{block}.hc_{part}_base.weight", f"{name}_base", mixes)
        yield whole(f"{block}.hc_{part}_scale.weight", f"{name}_scale", 3)
    yield whole(f"{block}.ffn_norm.weight", f"{source}.ffn_norm.weight", hidden)
    yield from _experts(model, checkpoint, f"{source}.ffn", block, layer)


def _attention(model: Model, source: str, block: str) -> Iterator[Target]:
    hidden, rank, size = model.n_embd, model.q_lora_rank, model.head_size
    queries, out = model.n_head * size, model.o_groups * model.o_lora_rank
    yield whole(f"{block}.attn_q_a.weight", f"{source}.wq_a.weight", rank, hidden)
    yield whole(f"{block}.attn_q_a_norm.weight", f"{source}.q_norm.weight", rank)
    yield whole(f"{block}.attn_q_b.weight", f"{source}.wq_b.weight", queries, rank)
    yield whole(f"{block}.attn_kv.weight", f"{source}.wkv.weight", size, hidden)
    yield whole(f"{block}.attn_kv_a_norm.weight", f"{source}.kv_norm.weight", size)
    yield whole(f"{block}.attn_sinks.weight", f"{source}.attn_sink", model.n_head)
    name = f"{block}.attn_output_a.weight"
    yield whole(name, f"{source}.wo_a.weight", out, queries // model.o_groups)
    yield whole(f"{block}.attn_output_b.weight", f"{source}.wo_b.weight", hidden, out)


def _compressor(
    target: str, source: str, ratio: int, shape: tuple[int, int], norm: int
) -> Iterator[Target]:
    yield whole(f"{target}_kv.weight", f"{source}.wkv.weight", *shape)
    yield whole(f"{target}_gate.weight", f"{source}.wgate.weight", *shape)
    yield whole(f"{target}_ape.weight", f"{source}.ape", ratio, shape[0])
    yield whole(f"{target}_norm.weight", f"{source}.norm.weight", norm)


def _indexer(model: Model, source: str, block: str) -> Iterator[Target]:
    hidden, heads, size = model.n_embd, model.indexer_heads, model.indexer_size
    name = f"{block}.indexer.attn_q_b.weight"
    yield whole(name, f"{source}.wq_b.weight", heads * size, model.q_lora_rank)
    yield whole(f"{block}.indexer.proj.weight", f"{source}.weights_proj.weight", heads, hidden)
    target, shape = f"{block}.indexer_compressor", (2 * size, hidden)
    yield from _compressor(target, f"{source}.compressor", _OVERLAPPING, shape, size)


def _experts(
    model: Model, checkpoint: Checkpoint, source: str, block: str, layer: int
) -> Iterator[Target | Dropped]:
    hidden, width, count = model.n_embd, model.n_ff_exp, model.n_expert
    yield whole(f"{block}.ffn_gate_inp.weight", f"{source}.gate.weight", count, hidden)
    bias = f"{source}.gate.bias"
    if layer < model.n_hash_layer:
        shape = (model.n_vocab, model.n_expert_used)
        table = (Piece(f"{source}.gate.tid2eid", shape),)
        yield Target(f"{block}.ffn_gate_tid2eid.weight", shape, table, below=count)
        if bias in checkpoint.tensors:
            yield Dropped(bias, "the token's id chooses the experts of this layer")
    else:
        yield whole(f"{block}.exp_probs_b.bias", bias, count)
    shared = width * model.n_expert_shared
    for part, name in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
        shape = (hidden, width) if part == "down" else (width, hidden)
        pieces = [Piece(f"{source}.experts.{n}.{name}.weight", shape) for n in range(count)]
        yield Target(f"{block}.ffn_{part}_exps.weight", (count, *shape), tuple(pieces))
        shape = (hidden, shared) if part == "down" else (shared, hidden)
        one = f"{source}.shared_experts.{name}.weight"
        yield whole(f"{block}.ffn_{part}_shexp.weight", one, *shape)


def _ratios(config: Config) -> tuple[int, ...]:
    values = config.values.get("compress_ratios")
    layers = config.count("num_hidden_layers")
    known = (0, _OVERLAPPING, _LONG)
    if not isinstance(values, list) or any(type(one) is not int for one in values):
        raise ConvertError(f"{config.origin} lacks compress_ratios: take the model's own file")
    if len(values) < layers:
        raise ConvertError(f"{config.origin}: compress_ratios has {len(values)} of {layers} layers")
    for one in values:
        if one not in known:
            raise ConvertError(
                f"{config.origin}: compress_ratios {one} is not supported (only 0, 4, 128)"
            )
    return (*values, *(0,) * (layers + 1 - len(values)))


def _check_runtime(config: Config, model: Model) -> None:
    """Raise ConvertError for models that llama.cpp would refuse, abort on or compute otherwise."""
    origin, size = config.origin, model.indexer_size
    if size < max(_HADAMARD_LEAST, model.n_rot) or size & (size - 1):
        raise ConvertError(
            f"{origin}: index_head_dim {size} is not supported: llama.cpp takes a power of two, "
            f"from {_HADAMARD_LEAST} and from qk_rope_head_dim"
        )
    if model.n_rot > model.head_size:
        raise ConvertError(f"{origin}: qk_rope_head_dim is above head_dim")
    if model.n_head % model.o_groups:
        raise ConvertError(f"{origin}: o_groups does not divide num_attention_heads")
    if model.n_expert_used > model.n_expert:
        raise ConvertError(f"{origin}: num_experts_per_tok is above n_routed_experts")
    if model.n_hash_layer > model.n_layer:
        raise ConvertError(f"{origin}: num_hash_layers is above num_hidden_layers")
    yarn = model.rope.yarn
    if yarn is not None and not math.isclose(yarn.mscale, yarn.mscale_all_dim):
        raise ConvertError(f"{origin}: YaRN mscale is not supported for deepseek4")
