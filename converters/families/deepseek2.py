"""What DeepSeek V2, V3 and V3.2 share: latent attention (MLA) and experts, as GGUF `deepseek2`.

Takes a config and gives the metadata and the decoder layers. MLA stays compressed: `kv_b_proj` is
split a head into `attn_k_b` (transposed) and `attn_v_b`, so the cache holds kv_lora_rank + rope
values a token. Refuses what llama.cpp's loader would abort on or silently compute otherwise
(src/models/deepseek2.cpp, src/llama-model.cpp).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from converters.errors import ConvertError
from converters.families.dense import feed_forward
from converters.layout import Described, Dropped, Piece, Target, Value, whole
from converters.source.checkpoint import Checkpoint
from converters.source.config import BETA_FAST, BETA_SLOW, Config, Rope, Yarn, read_rope

# llama.cpp's LLAMA_EXPERT_GATING_FUNC_TYPE_*
_GATING = {"softmax": 1, "sigmoid": 2}
# Trunk depths at which the loader takes the model for a lite one, without q_lora_rank.
_LITE_DEPTHS = (26, 27)
_LITE_DEPTH_AND_VOCAB = (48, 128256)


@dataclass(frozen=True)
class Indexer:
    """What sparse attention (V3.2) adds to a layer: it picks the tokens that a query may see."""

    n_head: int
    head_size: int
    top_k: int  # tokens a query sees


@dataclass(frozen=True)
class Model:
    """The dimensions of a model, in llama.cpp's names where it has one."""

    n_layer: int  # decoder layers of the trunk
    mtp: bool  # one more layer follows them
    n_ctx_train: int
    n_embd: int
    n_ff: int
    n_ff_exp: int
    n_head: int
    n_vocab: int
    q_lora_rank: int  # 0: one full query projection
    kv_lora_rank: int
    qk_nope: int
    qk_rope: int
    v_head: int
    n_expert: int
    n_expert_used: int
    n_expert_shared: int
    n_layer_dense_lead: int
    router: str
    expert_scale: float
    experts_normalized: bool
    rms_eps: float
    rope: Rope
    tied: bool
    indexer: Indexer | None = None


def read_model(config: Config, mtp: bool, router: str) -> Model:
    """Read and check the dimensions; `router` is the scoring function the family always has."""
    for key, value in (("hidden_act", "silu"), ("scoring_func", router)):
        config.choice(key, (value,), value)
    for key in ("attention_bias", "mlp_bias"):
        config.choice(key, (False,), False)
    config.choice("moe_layer_freq", (1,), 1)
    config.choice("rope_interleave", (True,), True)
    model = Model(
        n_layer=config.count("num_hidden_layers"),
        mtp=mtp,
        n_ctx_train=config.count("max_position_embeddings"),
        n_embd=config.count("hidden_size"),
        n_ff=config.count("intermediate_size"),
        n_ff_exp=config.count("moe_intermediate_size"),
        n_head=config.count("num_attention_heads"),
        n_vocab=config.count("vocab_size"),
        q_lora_rank=config.count("q_lora_rank", 0, least=0),
        kv_lora_rank=config.count("kv_lora_rank"),
        qk_nope=config.count("qk_nope_head_dim"),
        qk_rope=config.count("qk_rope_head_dim"),
        v_head=config.count("v_head_dim"),
        n_expert=config.count("n_routed_experts", least=2),
        n_expert_used=config.count("num_experts_per_tok"),
        n_expert_shared=config.count("n_shared_experts"),
        n_layer_dense_lead=config.count("first_k_dense_replace", least=0),
        router=router,
        expert_scale=config.number("routed_scaling_factor", 1.0),
        experts_normalized=config.flag("norm_topk_prob", router == "sigmoid"),
        rms_eps=config.number("rms_norm_eps", 1e-6),
        rope=read_rope(config),
        tied=config.flag("tie_word_embeddings", False),
    )
    _check_runtime(config, model)
    return model


def refuse_lite_depths(config: Config, model: Model) -> None:
    """Raise ConvertError where the `deepseek2` loader would take a model for a lite one."""
    lite = model.n_layer in _LITE_DEPTHS or (model.n_layer, model.n_vocab) == _LITE_DEPTH_AND_VOCAB
    if lite and model.q_lora_rank:
        raise ConvertError(
            f"{config.origin}: llama.cpp takes a deepseek2 model of {model.n_layer} layers for a "
            "lite one and ignores its q_lora_rank: this model cannot run there"
        )


def usable_groups(config: Config, model: Model) -> tuple[tuple[int, int] | None, tuple[str, ...]]:
    """Return (groups, groups used) if they limit routing and llama.cpp accepts them, and warnings.

    llama.cpp aborts the process unless used < groups < experts and groups divide the experts
    (src/llama-model.cpp), and it scores a group by two experts, so a group must hold two.
    """
    groups = config.count("n_group", 1, least=0)
    used = config.count("topk_group", groups, least=0)
    if groups <= 1 or used >= groups:
        return None, ()
    if used < 1 or model.n_expert % groups or model.n_expert < 2 * groups:
        warning = f"n_group {groups} does not fit {model.n_expert} experts: groups are left out"
        return None, (warning,)
    if used * (model.n_expert // groups) < model.n_expert_used:
        raise ConvertError(
            f"{config.origin}: topk_group {used} leaves fewer experts than num_experts_per_tok"
        )
    return (groups, used), ()


def describe(
    model: Model, groups: tuple[int, int] | None, warnings: tuple[str, ...] = ()
) -> Described:
    """Return the metadata, without the architecture's prefix."""
    values: dict[str, Value] = {
        "block_count": model.n_layer + model.mtp,
        "context_length": model.n_ctx_train,
        "embedding_length": model.n_embd,
        "feed_forward_length": model.n_ff,
        "vocab_size": model.n_vocab,
        "attention.head_count": model.n_head,
        "attention.head_count_kv": 1,  # every head reads the one latent row
        "attention.layer_norm_rms_epsilon": model.rms_eps,
        # Written as 0 for lite models: the loader demands the key at most depths.
        "attention.q_lora_rank": model.q_lora_rank,
        "attention.kv_lora_rank": model.kv_lora_rank,
        "attention.key_length": model.kv_lora_rank + model.qk_rope,
        "attention.value_length": model.kv_lora_rank,
        "attention.key_length_mla": model.qk_nope + model.qk_rope,
        "attention.value_length_mla": model.v_head,
        "rope.dimension_count": model.qk_rope,
        "rope.freq_base": model.rope.theta,
        "leading_dense_block_count": model.n_layer_dense_lead,
        "expert_count": model.n_expert,
        "expert_used_count": model.n_expert_used,
        "expert_shared_count": model.n_expert_shared,
        "expert_feed_forward_length": model.n_ff_exp,
        "expert_weights_scale": model.expert_scale,
        "expert_gating_func": _GATING[model.router],
    }
    if model.experts_normalized:
        values["expert_weights_norm"] = True
    if groups is not None:
        values["expert_group_count"], values["expert_group_used_count"] = groups
    if model.mtp:
        values["nextn_predict_layers"] = 1
    if model.indexer is not None:
        values["attention.indexer.head_count"] = model.indexer.n_head
        values["attention.indexer.key_length"] = model.indexer.head_size
        values["attention.indexer.top_k"] = model.indexer.top_k
    if model.rope.yarn is not None:
        values |= _yarn_metadata(model.rope.yarn)
    return Described(values, warnings)


def trunk(model: Model, checkpoint: Checkpoint) -> Iterator[Target | Dropped]:
    """Yield the embedding, the decoder layers, the final norm and the head."""
    embedding = (model.n_vocab, model.n_embd)
    yield whole("token_embd.weight", "model.embed_tokens.weight", *embedding)
    for layer in range(model.n_layer):
        yield from layer_tensors(model, checkpoint, layer)
    yield whole("output_norm.weight", "model.norm.weight", model.n_embd)
    if not model.tied:
        yield whole("output.weight", "lm_head.weight", *embedding)
    elif "lm_head.weight" in checkpoint.tensors:
        yield Dropped("lm_head.weight", "tied to the embedding")


def layer_tensors(model: Model, checkpoint: Checkpoint, layer: int) -> Iterator[Target | Dropped]:
    """Yield one decoder layer."""
    source, block, hidden = f"model.layers.{layer}", f"blk.{layer}", model.n_embd
    inverse = f"{source}.self_attn.rotary_emb.inv_freq"
    if inverse in checkpoint.tensors:
        yield Dropped(inverse, "computed by the runtime from rope.freq_base")
    yield whole(f"{block}.attn_norm.weight", f"{source}.input_layernorm.weight", hidden)
    yield from _attention(model, f"{source}.self_attn", block)
    if model.indexer is not None:
        yield from _indexer(model, model.indexer, f"{source}.self_attn.indexer", f"{block}.indexer")
    yield whole(f"{block}.ffn_norm.weight", f"{source}.post_attention_layernorm.weight", hidden)
    if layer < model.n_layer_dense_lead:
        yield from feed_forward(f"{source}.mlp", block, "", hidden, model.n_ff)
        return
    yield from _experts(model, checkpoint, f"{source}.mlp", block)


def _attention(model: Model, source: str, block: str) -> Iterator[Target]:
    hidden, latent, heads = model.n_embd, model.kv_lora_rank, model.n_head
    queries, rank = heads * (model.qk_nope + model.qk_rope), model.q_lora_rank
    if rank:
        yield whole(f"{block}.attn_q_a.weight", f"{source}.q_a_proj.weight", rank, hidden)
        yield whole(f"{block}.attn_q_a_norm.weight", f"{source}.q_a_layernorm.weight", rank)
        yield whole(f"{block}.attn_q_b.weight", f"{source}.q_b_proj.weight", queries, rank)
    else:
        yield whole(f"{block}.attn_q.weight", f"{source}.q_proj.weight", queries, hidden)
    name = f"{block}.attn_kv_a_mqa.weight"
    yield whole(name, f"{source}.kv_a_proj_with_mqa.weight", latent + model.qk_rope, hidden)
    yield whole(f"{block}.attn_kv_a_norm.weight", f"{source}.kv_a_layernorm.weight", latent)
    # Rows of kv_b_proj come a head: first the keys without rope, then the values.
    nope, values = model.qk_nope, model.v_head
    kv_b, step = f"{source}.kv_b_proj.weight", nope + values
    shape = (heads * step, latent)
    keys = [Piece(kv_b, shape, head * step, nope, transpose=True) for head in range(heads)]
    yield Target(f"{block}.attn_k_b.weight", (heads, latent, nope), tuple(keys))
    rows = [Piece(kv_b, shape, head * step + nope, values) for head in range(heads)]
    yield Target(f"{block}.attn_v_b.weight", (heads, values, latent), tuple(rows))
    yield whole(f"{block}.attn_output.weight", f"{source}.o_proj.weight", hidden, heads * values)


def _indexer(model: Model, indexer: Indexer, source: str, block: str) -> Iterator[Target]:
    """Yield the indexer; its heads are stored [rope | nope], as llama.cpp rotates them."""
    size, queries = indexer.head_size, indexer.n_head * indexer.head_size
    yield whole(f"{block}.attn_q_b.weight", f"{source}.wq_b.weight", queries, model.q_lora_rank)
    yield whole(f"{block}.attn_k.weight", f"{source}.wk.weight", size, model.n_embd)
    yield whole(f"{block}.k_norm.weight", f"{source}.k_norm.weight", size)
    yield whole(f"{block}.k_norm.bias", f"{source}.k_norm.bias", size)
    name = f"{source}.weights_proj.weight"
    yield whole(f"{block}.proj.weight", name, indexer.n_head, model.n_embd)


def _experts(model: Model, checkpoint: Checkpoint, source: str, block: str) -> Iterator[Target]:
    hidden, width, count = model.n_embd, model.n_ff_exp, model.n_expert
    yield whole(f"{block}.ffn_gate_inp.weight", f"{source}.gate.weight", count, hidden)
    bias = f"{source}.gate.e_score_correction_bias"
    if model.router == "sigmoid" or bias in checkpoint.tensors:
        yield whole(f"{block}.exp_probs_b.bias", bias, count)
    for part, shape in (
        ("gate", (width, hidden)),
        ("up", (width, hidden)),
        ("down", (hidden, width)),
    ):
        pieces = [
            Piece(f"{source}.experts.{expert}.{part}_proj.weight", shape) for expert in range(count)
        ]
        yield Target(f"{block}.ffn_{part}_exps.weight", (count, *shape), tuple(pieces))
    shared = width * model.n_expert_shared
    yield from feed_forward(f"{source}.shared_experts", block, "_shexp", hidden, shared)


def _yarn_metadata(yarn: Yarn) -> dict[str, Value]:
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": yarn.factor,
        "rope.scaling.original_context_length": yarn.original_context,
        "rope.scaling.yarn_beta_fast": BETA_FAST,
        "rope.scaling.yarn_beta_slow": BETA_SLOW,
        # deepseek2 alone expects the factor 0.1 here and divides it out again when it loads.
        "rope.scaling.yarn_log_multiplier": 0.1 * yarn.mscale_all_dim,
    }


def _check_runtime(config: Config, model: Model) -> None:
    """Raise ConvertError for models that llama.cpp would refuse, abort on or compute otherwise."""
    origin = config.origin
    if config.count("num_key_value_heads", model.n_head) != model.n_head:
        raise ConvertError(f"{origin}: num_key_value_heads must equal num_attention_heads in MLA")
    if model.n_expert_used > model.n_expert:
        raise ConvertError(f"{origin}: num_experts_per_tok is above n_routed_experts")
    if model.n_layer_dense_lead > model.n_layer:
        raise ConvertError(f"{origin}: first_k_dense_replace is above num_hidden_layers")
    yarn = model.rope.yarn
    if yarn is None:
        return
    if not yarn.mscale_all_dim or not math.isclose(yarn.mscale, yarn.mscale_all_dim):
        raise ConvertError(
            f"{origin}: YaRN mscale {yarn.mscale:g} and mscale_all_dim {yarn.mscale_all_dim:g} "
            "are not supported: llama.cpp assumes that both are there and equal"
        )
