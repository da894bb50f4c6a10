"""Small random checkpoints in the released layout, for tests: config, safetensors, tokenizer.

Takes dimensions and a folder; gives DeepSeek-V3-shaped (FP8 with block scales, or BF16, F16, F32;
with an MTP layer) and V2-Lite-shaped models whose weights depend on the seed only. numpy alone:
no torch, no safetensors. Knows nothing of the converters that it serves to test.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from small_tokenizers import TOKENIZER_CONFIG, v2_tokenizer, v3_tokenizer

Floats = npt.NDArray[np.float32]

YARN = {
    "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64,
    "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
}  # fmt: skip


@dataclass(frozen=True)
class Dims:
    """Dimensions in the names of config.json; the defaults let every K-quant apply."""

    hidden_size: int = 256
    intermediate_size: int = 512
    moe_intermediate_size: int = 256
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    n_routed_experts: int = 16
    n_shared_experts: int = 1
    num_experts_per_tok: int = 4
    first_k_dense_replace: int = 1
    q_lora_rank: int | None = 256
    kv_lora_rank: int = 256
    qk_nope_head_dim: int = 64
    qk_rope_head_dim: int = 32
    v_head_dim: int = 64
    vocab_size: int = 320


# Widths that 256 does not divide, some not even 32, and FP8 blocks cut off at both edges.
ODD = Dims(
    hidden_size=288,
    intermediate_size=416,
    moe_intermediate_size=160,
    q_lora_rank=144,
    kv_lora_rank=96,
    qk_rope_head_dim=16,
    v_head_dim=40,
    qk_nope_head_dim=48,
)
LITE = Dims(q_lora_rank=None, n_shared_experts=2)


@dataclass
class Tensors:
    """Named arrays on their way into safetensors, as (dtype, shape, bytes)."""

    entries: dict[str, tuple[str, tuple[int, ...], bytes]] = field(default_factory=dict)

    def add(self, name: str, values: Floats, dtype: str) -> None:
        """Encode and add one tensor; FP8 adds its block scales too."""
        if dtype == "F8_E4M3":
            codes, scales = encode_fp8(values)
            self.entries[name] = (dtype, values.shape, codes.tobytes())
            self.entries[name + "_scale_inv"] = ("F32", scales.shape, scales.tobytes())
            return
        self.entries[name] = (dtype, values.shape, encode(values, dtype))


def encode(values: Floats, dtype: str) -> bytes:
    """Encode floats as F32, F16 or BF16 (rounded to nearest even)."""
    if dtype == "BF16":
        bits = values.astype(np.float32).view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return rounded.astype(np.uint16).tobytes()
    return values.astype({"F32": np.float32, "F16": np.float16}[dtype]).tobytes()


def fp8_values() -> Floats:
    """Return the values of the codes 0..126 of F8_E4M3, in order."""
    codes = np.arange(127)
    exponent, mantissa = codes >> 3, codes & 7
    normal = (8 + mantissa) * 2.0 ** (exponent - 10.0)
    return np.where(exponent == 0, mantissa * 2.0**-9, normal).astype(np.float32)


def encode_fp8(values: Floats) -> tuple[npt.NDArray[np.uint8], Floats]:
    """Encode a matrix a 128×128 block; the scale maps a block's largest value to 448."""
    rows, cols = values.shape
    scales = np.empty((math.ceil(rows / 128), math.ceil(cols / 128)), np.float32)
    codes = np.empty(values.shape, np.uint8)
    table = fp8_values()
    middles = (table[1:] + table[:-1]) / 2
    for i, j in np.ndindex(*scales.shape):
        block = np.s_[i * 128 : (i + 1) * 128, j * 128 : (j + 1) * 128]
        scales[i, j] = max(float(np.abs(values[block]).max()), 1e-12) / 448
        scaled = values[block] / scales[i, j]
        nearest = np.searchsorted(middles, np.abs(scaled)).astype(np.uint8)
        codes[block] = nearest | np.where(scaled < 0, 128, 0).astype(np.uint8)
    return codes, scales


def write_safetensors(path: Path, tensors: Tensors) -> None:
    """Write one shard."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape, data) in tensors.entries.items():
        span = [offset, offset + len(data)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": span}
        offset += len(data)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    bodies = [data for _, _, data in tensors.entries.values()]
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"".join(bodies))


def write_shards(folder: Path, tensors: Tensors, count: int) -> None:
    """Write one file, or `count` shards and their index."""
    if count == 1:
        write_safetensors(folder / "model.safetensors", tensors)
        return
    names = list(tensors.entries)
    step = math.ceil(len(names) / count)
    weight_map: dict[str, str] = {}
    for number in range(count):
        shard = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
        part = names[number * step : (number + 1) * step]
        write_safetensors(folder / shard, Tensors({n: tensors.entries[n] for n in part}))
        weight_map |= dict.fromkeys(part, shard)
    total = sum(len(data) for _, _, data in tensors.entries.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def v3_config(dims: Dims, dtype: str = "F8_E4M3", mtp: bool = True) -> dict[str, Any]:
    """Return the config.json of a V3-shaped model."""
    values: dict[str, Any] = asdict(dims) | {
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3",
        "num_key_value_heads": dims.num_attention_heads, "hidden_act": "silu",
        "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "rope_theta": 10000,
        "rope_scaling": YARN, "n_group": 4, "topk_group": 2, "topk_method": "noaux_tc",
        "scoring_func": "sigmoid", "norm_topk_prob": True, "routed_scaling_factor": 2.5,
        "tie_word_embeddings": False, "attention_bias": False, "moe_layer_freq": 1,
        "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "bfloat16",
    }  # fmt: skip
    if mtp:
        values["num_nextn_predict_layers"] = 1
    if dtype == "F8_E4M3":
        values["quantization_config"] = {
            "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
            "weight_block_size": [128, 128],
        }  # fmt: skip
    return values


def make_v3(
    folder: Path,
    dims: Dims | None = None,
    *,
    dtype: str = "F8_E4M3",
    mtp: bool = True,
    shared_mtp: bool = True,
    shards: int = 1,
    seed: int = 0,
    config: dict[str, Any] | None = None,
) -> Path:
    """Make a DeepSeek-V3-shaped checkpoint; `shared_mtp` repeats embedding and head in the MTP."""
    dims = dims or Dims()
    values = v3_config(dims, dtype, mtp)
    tensors = v3_tensors(dims, dtype, seed, mtp, shared_mtp)
    return write(folder, values | (config or {}), tensors, shards, v3_tokenizer())


def v3_tensors(dims: Dims, dtype: str, seed: int, mtp: bool, shared_mtp: bool) -> Tensors:
    """Return the tensors of a V3-shaped checkpoint."""
    tensors = _model(dims, dtype, seed, sigmoid=True)
    if mtp:
        _add_mtp(tensors, dims, dtype, seed, shared_mtp)
    return tensors


def make_v2_lite(
    folder: Path,
    dims: Dims = LITE,
    *,
    dtype: str = "BF16",
    shards: int = 1,
    seed: int = 0,
    config: dict[str, Any] | None = None,
    extra: Tensors | None = None,
) -> Path:
    """Make a DeepSeek-V2-Lite-shaped checkpoint: softmax router, full query projection."""
    values: dict[str, Any] = asdict(dims) | {
        "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2",
        "num_key_value_heads": dims.num_attention_heads, "hidden_act": "silu",
        "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "rope_theta": 10000,
        "rope_scaling": YARN | {"mscale": 0.707, "mscale_all_dim": 0.707},
        "n_group": 1, "topk_group": 1, "topk_method": "greedy", "scoring_func": "softmax",
        "norm_topk_prob": False, "routed_scaling_factor": 1.0, "tie_word_embeddings": False,
        "attention_bias": False, "moe_layer_freq": 1, "bos_token_id": 263, "eos_token_id": 264,
        "torch_dtype": "bfloat16",
    }  # fmt: skip
    tensors = _model(dims, dtype, seed, sigmoid=False)
    tensors.entries |= extra.entries if extra else {}
    return write(folder, values | (config or {}), tensors, shards, v2_tokenizer())


def write(
    folder: Path,
    config: dict[str, Any],
    tensors: Tensors,
    shards: int,
    tokenizer: dict[str, Any],
    settings: dict[str, Any] | None = None,
) -> Path:
    """Write a whole folder; `settings` changes tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG | (settings or {})))
    write_shards(folder, tensors, shards)
    return folder


def random_weight(seed: int, name: str, *shape: int) -> Floats:
    """Draw a weight that depends on seed and name only, so that variants share their weights."""
    rng = np.random.default_rng([seed, *name.encode()])
    drawn = rng.standard_normal(shape, dtype=np.float32)
    if len(shape) == 1:
        return 0.1 * drawn if name.endswith("bias") else 1 + 0.1 * drawn
    return drawn / np.float32(math.sqrt(shape[-1]))


def _model(dims: Dims, dtype: str, seed: int, sigmoid: bool) -> Tensors:
    tensors = Tensors()
    plain = "BF16" if dtype == "F8_E4M3" else dtype
    table = (dims.vocab_size, dims.hidden_size)
    embedding = random_weight(seed, "model.embed_tokens.weight", *table) * np.sqrt(dims.hidden_size)
    tensors.add("model.embed_tokens.weight", embedding.astype(np.float32), plain)
    for layer in range(dims.num_hidden_layers):
        _add_layer(tensors, dims, dtype, seed, layer, sigmoid)
    tensors.add(
        "model.norm.weight", random_weight(seed, "model.norm.weight", dims.hidden_size), plain
    )
    tensors.add("lm_head.weight", random_weight(seed, "lm_head.weight", *table), plain)
    return tensors


def _add_layer(
    tensors: Tensors, dims: Dims, dtype: str, seed: int, layer: int, sigmoid: bool
) -> None:
    prefix, hidden = f"model.layers.{layer}", dims.hidden_size
    plain = "BF16" if dtype == "F8_E4M3" else dtype
    heads, key = dims.num_attention_heads, dims.qk_nope_head_dim + dims.qk_rope_head_dim
    rank, latent = dims.q_lora_rank, dims.kv_lora_rank
    shapes: dict[str, tuple[int, ...]] = {"input_layernorm": (hidden,)}
    if rank:
        shapes["self_attn.q_a_proj"] = (rank, hidden)
        shapes["self_attn.q_a_layernorm"] = (rank,)
        shapes["self_attn.q_b_proj"] = (heads * key, rank)
    else:
        shapes["self_attn.q_proj"] = (heads * key, hidden)
    shapes["self_attn.kv_a_proj_with_mqa"] = (latent + dims.qk_rope_head_dim, hidden)
    shapes["self_attn.kv_a_layernorm"] = (latent,)
    kv_rows = heads * (dims.qk_nope_head_dim + dims.v_head_dim)
    shapes["self_attn.kv_b_proj"] = (kv_rows, latent)
    shapes["self_attn.o_proj"] = (hidden, heads * dims.v_head_dim)
    shapes["post_attention_layernorm"] = (hidden,)
    blocks = {"mlp": dims.intermediate_size}
    if layer >= dims.first_k_dense_replace:
        blocks = {
            f"mlp.experts.{n}": dims.moe_intermediate_size for n in range(dims.n_routed_experts)
        }
        blocks["mlp.shared_experts"] = dims.moe_intermediate_size * dims.n_shared_experts
        shapes["mlp.gate"] = (dims.n_routed_experts, hidden)
    for name, width in blocks.items():
        shapes[f"{name}.gate_proj"] = shapes[f"{name}.up_proj"] = (width, hidden)
        shapes[f"{name}.down_proj"] = (hidden, width)
    for name, shape in shapes.items():
        full = f"{prefix}.{name}.weight"
        kept = len(shape) == 1 or name == "mlp.gate"
        tensors.add(full, random_weight(seed, full, *shape), plain if kept else dtype)
    if sigmoid and "mlp.gate" in shapes:
        full = f"{prefix}.mlp.gate.e_score_correction_bias"
        tensors.add(full, random_weight(seed, full, dims.n_routed_experts), "F32")


def _add_mtp(tensors: Tensors, dims: Dims, dtype: str, seed: int, shared: bool) -> None:
    layer, hidden = dims.num_hidden_layers, dims.hidden_size
    prefix, plain = f"model.layers.{layer}", "BF16" if dtype == "F8_E4M3" else dtype
    _add_layer(tensors, dims, dtype, seed, layer, sigmoid=True)
    for name, shape in (
        ("enorm", (hidden,)),
        ("hnorm", (hidden,)),
        ("eh_proj", (hidden, 2 * hidden)),
        ("shared_head.norm", (hidden,)),
    ):
        full = f"{prefix}.{name}.weight"
        tensors.add(full, random_weight(seed, full, *shape), plain)
    for copy, main in (
        (f"{prefix}.embed_tokens.weight", "model.embed_tokens.weight"),
        (f"{prefix}.shared_head.head.weight", "lm_head.weight"),
    ):
        if shared:
            tensors.entries[copy] = tensors.entries[main]
        else:
            tensors.add(copy, random_weight(seed, copy, dims.vocab_size, hidden), plain)
