"""What the decoders without latent attention share: dimensions, attention, feed-forward blocks.

Takes a config and gives metadata and targets in the names of the Llama layout, which Qwen2, Qwen3
and DeepSeek's first models use too. A family adds its own keys, biases, norms and experts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from converters.errors import ConvertError
from converters.layout import Dropped, Piece, Target, Value, computed, whole
from converters.metadata.rope import KINDS, RopeLayout, read_rope_layout
from converters.source.checkpoint import Checkpoint
from converters.source.config import Config


@dataclass(frozen=True)
class Model:
    """The dimensions of a model, in llama.cpp's names where it has one."""

    n_layer: int
    n_ctx_train: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_vocab: int
    rms_eps: float
    rope: RopeLayout
    tied: bool


def read_model(
    config: Config, head_dim: int | None = None, rope_kinds: Collection[str] = KINDS
) -> Model:
    """Read and check the dimensions; `head_dim` is the family's default, None: the width's share.

    Raises ConvertError for settings under which the architecture computes something else.
    """
    config.choice("hidden_act", ("silu",), "silu")
    for key in ("attention_bias", "mlp_bias"):
        config.choice(key, (False,), False)
    if config.section("quantization_config").values:
        raise ConvertError(
            f"{config.origin}: quantization_config is not supported for this architecture: "
            "take the checkpoint that was not quantized"
        )
    n_embd, n_head = config.count("hidden_size"), config.count("num_attention_heads")
    n_head_kv = config.count("num_key_value_heads", n_head)
    head_dim = config.count("head_dim", head_dim or max(n_embd // n_head, 1))
    if n_head % n_head_kv:
        raise ConvertError(f"{config.origin}: {n_head} heads do not share {n_head_kv} keys evenly")
    if head_dim % 2:
        raise ConvertError(f"{config.origin}: head_dim {head_dim} is odd, rope turns pairs")
    return Model(
        n_layer=config.count("num_hidden_layers"),
        n_ctx_train=config.count("max_position_embeddings"),
        n_embd=n_embd,
        n_ff=config.count("intermediate_size"),
        n_head=n_head,
        n_head_kv=n_head_kv,
        head_dim=head_dim,
        n_vocab=config.count("vocab_size"),
        rms_eps=config.number("rms_norm_eps", 1e-6),
        rope=read_rope_layout(config, head_dim, rope_kinds),
        tied=config.flag("tie_word_embeddings", False),
    )


def require_even_heads(config: Config, model: Model) -> None:
    """Raise ConvertError unless the heads fill the width, as some of llama.cpp's loaders assume."""
    if model.n_head * model.head_dim != model.n_embd:
        raise ConvertError(
            f"{config.origin}: {model.n_head} heads of {model.head_dim} do not make up hidden_size "
            f"{model.n_embd}, as llama.cpp needs it for this architecture"
        )


def refuse_sliding_window(config: Config) -> None:
    """Raise ConvertError if some layers see only the last tokens (Qwen2 and Qwen3)."""
    config.choice("use_sliding_window", (False,), False)
    config.choice("use_mrope", (False,), False)
    kinds = config.values.get("layer_types") or []
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        raise ConvertError(
            f"{config.origin}: layer_types {kinds!r} are not supported (only full_attention)"
        )


def describe(model: Model) -> dict[str, Value]:
    """Return the metadata that every family here writes."""
    return {
        "block_count": model.n_layer,
        "context_length": model.n_ctx_train,
        "embedding_length": model.n_embd,
        "feed_forward_length": model.n_ff,
        "attention.head_count": model.n_head,
        "attention.head_count_kv": model.n_head_kv,
        "attention.layer_norm_rms_epsilon": model.rms_eps,
        **model.rope.metadata,
    }


def head_lengths(model: Model) -> dict[str, Value]:
    """Return the metadata of architectures whose heads may have any length."""
    return {
        "attention.key_length": model.head_dim,
        "attention.value_length": model.head_dim,
    }


def ends(model: Model, checkpoint: Checkpoint) -> Iterator[Target | Dropped]:
    """Yield what stands around the layers: embedding, final norm, head, rope factors."""
    table = (model.n_vocab, model.n_embd)
    yield whole("token_embd.weight", "model.embed_tokens.weight", *table)
    yield whole("output_norm.weight", "model.norm.weight", model.n_embd)
    if not model.tied:
        yield whole("output.weight", "lm_head.weight", *table)
    elif "lm_head.weight" in checkpoint.tensors:
        yield Dropped("lm_head.weight", "tied to the embedding")
    if model.rope.factors:
        yield computed("rope_freqs.weight", model.rope.factors)


def attention(
    model: Model, checkpoint: Checkpoint, layer: int, permuted: bool
) -> Iterator[Target | Dropped]:
    """Yield a layer's two norms and its attention.

    `permuted`: queries and keys are dealt out for runtimes that turn neighbouring values.
    """
    source, block, hidden = f"model.layers.{layer}", f"blk.{layer}", model.n_embd
    inverse = f"{source}.self_attn.rotary_emb.inv_freq"
    if inverse in checkpoint.tensors:
        yield Dropped(inverse, "computed by the runtime from rope.freq_base")
    yield whole(f"{block}.attn_norm.weight", f"{source}.input_layernorm.weight", hidden)
    head = model.head_dim if permuted else 0
    queries, keys = model.n_head * model.head_dim, model.n_head_kv * model.head_dim
    for part, rows, interleave in (("q", queries, head), ("k", keys, head), ("v", keys, 0)):
        shape = (rows, hidden)
        piece = Piece(f"{source}.self_attn.{part}_proj.weight", shape, interleave=interleave)
        yield Target(f"{block}.attn_{part}.weight", shape, (piece,))
    yield whole(f"{block}.attn_output.weight", f"{source}.self_attn.o_proj.weight", hidden, queries)
    yield whole(f"{block}.ffn_norm.weight", f"{source}.post_attention_layernorm.weight", hidden)


def feed_forward(source: str, block: str, suffix: str, hidden: int, width: int) -> Iterator[Target]:
    """Yield gate, up and down of one gated block."""
    yield whole(f"{block}.ffn_gate{suffix}.weight", f"{source}.gate_proj.weight", width, hidden)
    yield whole(f"{block}.ffn_up{suffix}.weight", f"{source}.up_proj.weight", width, hidden)
    yield whole(f"{block}.ffn_down{suffix}.weight", f"{source}.down_proj.weight", hidden, width)
