"""Small random checkpoints of the families without latent attention, in the released layout.

Takes dimensions and a folder; gives Llama-shaped models as DeepSeek LLM, Coder and R1-Distill-Llama
are released, Qwen2- and Qwen3-shaped ones as the other distilled models, and MoE-16B-shaped ones,
each with a tokenizer.json of its kind. What it shares with V2 and V3 is in checkpoints.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import Tensors, random_weight, write
from small_tokenizers import (
    BOS,
    BYTE_LEVEL,
    EOS,
    MERGES,
    byte_tokens,
    lay_out_tokenizer,
    split_step,
    v2_tokenizer,
)

CODER_ROPE = {"type": "linear", "factor": 4.0}
LLAMA3_ROPE = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
QWEN3_ROPE = {
    "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64,
    "attn_factor": 0.8782488562869419,
}  # fmt: skip
PROVER_ROPE = {
    "type": "yarn", "factor": 16.0, "original_max_position_embeddings": 32, "beta_fast": 32,
    "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
}  # fmt: skip

CODER_PATTERNS = ("[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-퟿]+")
QWEN_PATTERN = (
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
)
LLAMA3_PATTERN = QWEN_PATTERN.replace("\\p{N}| ", "\\p{N}{1,3}| ")


@dataclass(frozen=True)
class Dims:
    """Dimensions in the names of config.json; the defaults let every K-quant apply."""

    hidden_size: int = 256
    intermediate_size: int = 512
    num_hidden_layers: int = 3
    num_attention_heads: int = 8
    num_key_value_heads: int = 2
    vocab_size: int = 320
    head_dim: int | None = None  # None: the width's share, and no key in config.json

    @property
    def head(self) -> int:
        return self.head_dim or self.hidden_size // self.num_attention_heads

    def config(self) -> dict[str, Any]:
        """Return what every config.json here holds."""
        values: dict[str, Any] = {
            "hidden_size": self.hidden_size, "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers, "vocab_size": self.vocab_size,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads, "hidden_act": "silu",
            "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "rope_theta": 10000,
            "rope_scaling": None, "tie_word_embeddings": False, "attention_dropout": 0.0,
            "torch_dtype": "bfloat16", "use_cache": True,
        }  # fmt: skip
        return values | ({"head_dim": self.head_dim} if self.head_dim else {})


# Widths that 256 does not divide, and three queries a key.
ODD = Dims(288, 416, 2, 6, 2, head_dim=48)
WIDE_HEADS = Dims(head_dim=64)


def make_llama(
    folder: Path,
    dims: Dims | None = None,
    *,
    dtype: str = "BF16",
    shards: int = 1,
    kind: str = "llm",
    config: dict[str, Any] | None = None,
) -> Path:
    """Make a Llama-shaped checkpoint; `kind` is llm, coder or distill and chooses the tokenizer."""
    dims = dims or Dims()
    tokenizer, settings = {"llm": _llm, "coder": _coder, "distill": _llama3}[kind]()
    values = dims.config() | {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False,
        "mlp_bias": False, "pretraining_tp": 1,
    }  # fmt: skip
    values["rope_scaling"] = {"llm": None, "coder": CODER_ROPE, "distill": LLAMA3_ROPE}[kind]
    values |= special_ids(tokenizer, settings) | (config or {})
    tensors = decoder(dims, dtype, tied=values["tie_word_embeddings"])
    return write(folder, values, tensors, shards, tokenizer, settings)


def make_qwen2(
    folder: Path,
    dims: Dims | None = None,
    *,
    dtype: str = "BF16",
    shards: int = 1,
    config: dict[str, Any] | None = None,
) -> Path:
    """Make a Qwen2-shaped checkpoint: biases on queries, keys and values."""
    dims = dims or Dims()
    tokenizer, settings = qwen_tokenizer(), {"add_bos_token": True}
    values = dims.config() | {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "sliding_window": 64,
        "use_sliding_window": False, "max_window_layers": 2, "use_mrope": False,
    }  # fmt: skip
    # As released: config.json names the end of text as BOS, the tokenizer knows better.
    end = special_ids(tokenizer, settings)["eos_token_id"]
    values |= {"bos_token_id": end, "eos_token_id": end} | (config or {})
    tensors = decoder(dims, dtype, tied=values["tie_word_embeddings"], biases=True)
    return write(folder, values, tensors, shards, tokenizer, settings)


def make_qwen3(
    folder: Path,
    dims: Dims = WIDE_HEADS,
    *,
    dtype: str = "BF16",
    shards: int = 1,
    config: dict[str, Any] | None = None,
) -> Path:
    """Make a Qwen3-shaped checkpoint: normalized queries and keys, heads wider than their share."""
    tokenizer = qwen_tokenizer()
    settings = {"add_bos_token": False, "tokenizer_class": "Qwen2Tokenizer"}
    values = dims.config() | {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": False,
        "rope_scaling": QWEN3_ROPE, "sliding_window": None, "use_sliding_window": False,
    }  # fmt: skip
    values |= special_ids(tokenizer, settings) | (config or {})
    tensors = decoder(dims, dtype, tied=values["tie_word_embeddings"], norms=True)
    return write(folder, values, tensors, shards, tokenizer, settings)


def make_moe(
    folder: Path,
    dims: Dims | None = None,
    *,
    dtype: str = "BF16",
    shards: int = 1,
    experts: int = 16,
    config: dict[str, Any] | None = None,
) -> Path:
    """Make a DeepSeek-MoE-16B-shaped checkpoint: one dense layer, then experts and shared ones."""
    dims, width, shared = dims or Dims(), 128, 2
    tokenizer, settings = _llm()
    values = dims.config() | {
        "architectures": ["DeepseekForCausalLM"], "model_type": "deepseek",
        "n_routed_experts": experts, "n_shared_experts": shared, "num_experts_per_tok": 4,
        "moe_intermediate_size": width, "first_k_dense_replace": 1, "moe_layer_freq": 1,
        "norm_topk_prob": False, "scoring_func": "softmax", "attention_bias": False,
    }  # fmt: skip
    values |= special_ids(tokenizer, settings) | (config or {})
    tensors = decoder(dims, dtype, dense_layers=1)
    for layer in range(1, dims.num_hidden_layers):
        prefix = f"model.layers.{layer}.mlp"
        add(tensors, f"{prefix}.gate.weight", dtype, experts, dims.hidden_size)
        for number in range(experts):
            _add_block(tensors, f"{prefix}.experts.{number}", dtype, dims.hidden_size, width)
        shared_name = f"{prefix}.shared_experts"
        _add_block(tensors, shared_name, dtype, dims.hidden_size, width * shared)
    return write(folder, values, tensors, shards, tokenizer, settings)


def decoder(
    dims: Dims,
    dtype: str,
    *,
    tied: bool = False,
    biases: bool = False,
    norms: bool = False,
    dense_layers: int | None = None,
) -> Tensors:
    """Draw the weights; layers from `dense_layers` on get no feed-forward block."""
    tensors, hidden = Tensors(), dims.hidden_size
    table = random_weight(0, "model.embed_tokens.weight", dims.vocab_size, hidden)
    scale = np.float32(1 if tied else hidden**0.5)  # as a head it should stay small
    tensors.add("model.embed_tokens.weight", table * scale, dtype)
    rows = {"q": dims.num_attention_heads * dims.head, "k": dims.num_key_value_heads * dims.head}
    rows["v"] = rows["k"]
    for layer in range(dims.num_hidden_layers):
        prefix = f"model.layers.{layer}"
        add(tensors, f"{prefix}.input_layernorm.weight", dtype, hidden)
        for part, height in rows.items():
            add(tensors, f"{prefix}.self_attn.{part}_proj.weight", dtype, height, hidden)
            if biases:
                add(tensors, f"{prefix}.self_attn.{part}_proj.bias", dtype, height)
            if norms and part != "v":
                add(tensors, f"{prefix}.self_attn.{part}_norm.weight", dtype, dims.head)
        add(tensors, f"{prefix}.self_attn.o_proj.weight", dtype, hidden, rows["q"])
        add(tensors, f"{prefix}.post_attention_layernorm.weight", dtype, hidden)
        if dense_layers is None or layer < dense_layers:
            _add_block(tensors, f"{prefix}.mlp", dtype, hidden, dims.intermediate_size)
    add(tensors, "model.norm.weight", dtype, hidden)
    if not tied:
        add(tensors, "lm_head.weight", dtype, dims.vocab_size, hidden)
    return tensors


def add(tensors: Tensors, name: str, dtype: str, *shape: int) -> None:
    """Draw and add one tensor."""
    tensors.add(name, random_weight(0, name, *shape), dtype)


def _add_block(tensors: Tensors, prefix: str, dtype: str, hidden: int, width: int) -> None:
    add(tensors, f"{prefix}.gate_proj.weight", dtype, width, hidden)
    add(tensors, f"{prefix}.up_proj.weight", dtype, width, hidden)
    add(tensors, f"{prefix}.down_proj.weight", dtype, hidden, width)


def special_ids(tokenizer: dict[str, Any], settings: dict[str, Any]) -> dict[str, int]:
    """Return what config.json says of a tokenizer: the ids of BOS and EOS."""
    ids = {entry["content"]: entry["id"] for entry in tokenizer["added_tokens"]}
    return {"bos_token_id": ids[BOS], "eos_token_id": ids[settings.get("eos_token", EOS)]}


def _plain_texts() -> list[str]:
    return [*byte_tokens(), *("".join(pair) for pair in MERGES)]


def _llm() -> tuple[dict[str, Any], dict[str, Any]]:
    return v2_tokenizer(), {}


def _coder() -> tuple[dict[str, Any], dict[str, Any]]:
    return coder_tokenizer(), {"eos_token": "<|EOT|>"}


def _llama3() -> tuple[dict[str, Any], dict[str, Any]]:
    return llama3_tokenizer(), {"add_bos_token": True}


def coder_tokenizer() -> dict[str, Any]:
    """Return a small tokenizer.json of the Coder kind; most of its added tokens are not special."""
    added = [(BOS, True), (EOS, True), ("<｜fim▁hole｜>", False), ("<|User|>", False)]
    digits = {"type": "Digits", "individual_digits": True}
    steps = [*map(split_step, CODER_PATTERNS), digits, BYTE_LEVEL]
    pre = {"type": "Sequence", "pretokenizers": steps}
    return lay_out_tokenizer(_plain_texts(), [*added, ("<|EOT|>", False)], pre)


def qwen_tokenizer() -> dict[str, Any]:
    """Return a small tokenizer.json of the Qwen2 kind with DeepSeek's special tokens."""
    added = [(EOS, True), ("<｜User｜>", False), ("<｜Assistant｜>", False), (BOS, True)]
    added += [("<think>", False), ("</think>", False)]
    steps = [split_step(QWEN_PATTERN), BYTE_LEVEL]
    return lay_out_tokenizer(_plain_texts(), added, {"type": "Sequence", "pretokenizers": steps})


def llama3_tokenizer() -> dict[str, Any]:
    """Return a small tokenizer.json of the Llama 3 kind: words that are tokens skip the merges."""
    texts = [*_plain_texts(), "Ġhello"]  # no merge leads to the last one
    steps = [split_step(LLAMA3_PATTERN), BYTE_LEVEL]
    pre = {"type": "Sequence", "pretokenizers": steps}
    tokenizer = lay_out_tokenizer(texts, [(BOS, True), (EOS, True), ("<think>", False)], pre)
    tokenizer["model"]["ignore_merges"] = True
    token = next(e["id"] for e in tokenizer["added_tokens"] if e["content"] == BOS)
    tokenizer["post_processor"] = {"type": "Sequence", "processors": [
        BYTE_LEVEL | {"trim_offsets": False},
        {"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
         "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
         "special_tokens": {BOS: {"id": BOS, "ids": [token], "tokens": [BOS]}}},
    ]}  # fmt: skip
    return json.loads(json.dumps(tokenizer))  # no parts shared with other tokenizers
