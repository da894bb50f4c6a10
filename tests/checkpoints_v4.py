"""Small random DeepSeek-V4 checkpoints in the released layout, for tests.

Names without `model.`, FP8 weights with E8M0 scales (`.scale`), experts in packed FP4 (stored as
I8, E8M0 scales a 32 values) or, as in the Base checkpoints, in FP8 with float32 scales, a table of
experts for every token in the hash layers, an MTP layer under `mtp.0`. The tokenizer has no chat
template, as released. numpy alone; knows nothing of the converters.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import numpy.typing as npt
from checkpoints import Floats, Tensors

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)


@dataclass(frozen=True)
class Dims:
    """Dimensions in the names of config.json."""

    hidden_size: int = 256
    moe_intermediate_size: int = 256
    num_attention_heads: int = 4
    head_dim: int = 128
    qk_rope_head_dim: int = 32
    q_lora_rank: int = 128
    o_groups: int = 2
    o_lora_rank: int = 64
    n_routed_experts: int = 16
    n_shared_experts: int = 1
    num_experts_per_tok: int = 4
    num_hash_layers: int = 1
    index_n_heads: int = 8
    index_head_dim: int = 64
    index_topk: int = 12
    sliding_window: int = 32
    vocab_size: int = 320
    compress_ratios: tuple[int, ...] = (0, 4, 128, 4, 0)  # the last is the MTP layer's

    @property
    def layers(self) -> int:
        """Decoder layers of the trunk."""
        return len(self.compress_ratios) - 1


def v4_config(dims: Dims, experts: str = "fp4") -> dict[str, Any]:
    """Return the config.json of a V4-shaped model."""
    values = {name: getattr(dims, name) for name in Dims.__dataclass_fields__}
    return values | {
        "architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4",
        "num_hidden_layers": dims.layers, "compress_ratios": list(dims.compress_ratios),
        "num_key_value_heads": 1, "num_nextn_predict_layers": 1, "hidden_act": "silu",
        "max_position_embeddings": 1024, "rms_norm_eps": 1e-6, "rope_theta": 10000,
        "compress_rope_theta": 160000, "hc_mult": 4, "hc_sinkhorn_iters": 20, "hc_eps": 1e-6,
        "rope_scaling": {"type": "yarn", "factor": 16, "beta_fast": 32, "beta_slow": 1,
                         "original_max_position_embeddings": 64},
        "scoring_func": "sqrtsoftplus", "topk_method": "noaux_tc", "norm_topk_prob": True,
        "routed_scaling_factor": 1.5, "swiglu_limit": 10.0, "tie_word_embeddings": False,
        "attention_bias": False, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "bfloat16",
        "expert_dtype": experts,
        "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "scale_fmt": "ue8m0",
                                "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
    }  # fmt: skip


def make_v4(
    folder: Path,
    dims: Dims | None = None,
    *,
    experts: str = "fp4",
    mtp: bool = True,
    shards: int = 1,
    seed: int = 0,
    config: dict[str, Any] | None = None,
) -> Path:
    """Make a DeepSeek-V4-shaped checkpoint with experts in "fp4" or "fp8"."""
    dims = dims or Dims()
    maker = _Maker(dims, experts, seed)
    maker.plain("embed.weight", (dims.vocab_size, dims.hidden_size), scale=16.0)
    for layer in range(dims.layers):
        maker.layer(f"layers.{layer}", dims.compress_ratios[layer], layer < dims.num_hash_layers)
    maker.hyper_head("")
    maker.plain("norm.weight", (dims.hidden_size,))
    maker.plain("head.weight", (dims.vocab_size, dims.hidden_size))
    if mtp:
        maker.layer("mtp.0", 0, False)
        maker.hyper_head("mtp.0.")
        for name in ("enorm", "hnorm", "norm"):
            maker.plain(f"mtp.0.{name}.weight", (dims.hidden_size,))
        for name in ("e_proj", "h_proj"):
            maker.fp8(f"mtp.0.{name}", (dims.hidden_size, dims.hidden_size))
    values = v4_config(dims, experts) | (config or {})
    tokenizer = checkpoints.v3_tokenizer()
    checkpoints.write(folder, values, maker.tensors, shards, tokenizer)
    settings = {
        key: value for key, value in checkpoints.TOKENIZER_CONFIG.items() if key != "chat_template"
    }
    settings |= {"add_bos_token": False, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def encode_fp4(values: Floats) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Encode a matrix: (packed codes [out, in/2], E8M0 scales [out, in/32])."""
    rows, cols = values.shape
    blocks = values.reshape(rows, cols // 32, 32)
    largest = np.maximum(np.abs(blocks).max(-1), 1e-12)
    exponent = np.ceil(np.log2(largest / 6)).astype(np.int32)
    scaled = blocks / np.exp2(exponent.astype(np.float32))[..., None]
    codes = np.searchsorted((E2M1[1:] + E2M1[:-1]) / 2, np.abs(scaled)).astype(np.uint8)
    codes |= np.where(np.signbit(scaled), 8, 0).astype(np.uint8)
    codes = codes.reshape(rows, cols)
    return codes[:, 0::2] | codes[:, 1::2] << 4, (exponent + 127).astype(np.uint8)


def encode_fp8_e8m0(values: Floats) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Encode a matrix a 128×128 block with scales that are powers of two, as E8M0 codes."""
    rows, cols = values.shape
    codes, scales = (
        np.empty(values.shape, np.uint8),
        np.empty((math.ceil(rows / 128), math.ceil(cols / 128)), np.uint8),
    )
    middles = (checkpoints.fp8_values()[1:] + checkpoints.fp8_values()[:-1]) / 2
    for i, j in np.ndindex(*scales.shape):
        block = np.s_[i * 128 : (i + 1) * 128, j * 128 : (j + 1) * 128]
        exponent = math.ceil(math.log2(max(float(np.abs(values[block]).max()), 1e-12) / 448))
        scales[i, j] = exponent + 127
        scaled = values[block] / np.float32(2.0**exponent)
        nearest = np.searchsorted(middles, np.abs(scaled)).astype(np.uint8)
        codes[block] = nearest | np.where(scaled < 0, 128, 0).astype(np.uint8)
    return codes, scales


class _Maker:
    def __init__(self, dims: Dims, experts: str, seed: int) -> None:
        self.tensors = Tensors()
        self._dims, self._experts, self._seed = dims, experts, seed

    def _random(self, name: str, shape: tuple[int, ...]) -> Floats:
        return checkpoints.random_weight(self._seed, name, *shape)

    def plain(
        self, name: str, shape: tuple[int, ...], dtype: str = "BF16", scale: float = 1.0
    ) -> None:
        self.tensors.add(name, self._random(name, shape) * np.float32(scale), dtype)

    def fp8(self, name: str, shape: tuple[int, int]) -> None:
        codes, scales = encode_fp8_e8m0(self._random(name, shape))
        self.tensors.entries[f"{name}.weight"] = ("F8_E4M3", shape, codes.tobytes())
        self.tensors.entries[f"{name}.scale"] = ("F8_E8M0", scales.shape, scales.tobytes())

    def expert(self, name: str, shape: tuple[int, int]) -> None:
        values = self._random(name, shape)
        if self._experts == "fp4":
            codes, scales = encode_fp4(values)
            self.tensors.entries[f"{name}.weight"] = ("I8", codes.shape, codes.tobytes())
            self.tensors.entries[f"{name}.scale"] = ("F8_E8M0", scales.shape, scales.tobytes())
            return
        codes, floats = checkpoints.encode_fp8(values)
        self.tensors.entries[f"{name}.weight"] = ("F8_E4M3", shape, codes.tobytes())
        self.tensors.entries[f"{name}.scale"] = ("F32", floats.shape, floats.tobytes())

    def hyper_head(self, prefix: str) -> None:
        for name, shape in (
            ("fn", (4, 4 * self._dims.hidden_size)),
            ("base", (4,)),
            ("scale", (1,)),
        ):
            self.plain(f"{prefix}hc_head_{name}", shape, "F32")

    def compressor(self, name: str, ratio: int, width: int, norm: int) -> None:
        hidden = self._dims.hidden_size
        self.plain(f"{name}.wkv.weight", (width, hidden))
        self.plain(f"{name}.wgate.weight", (width, hidden))
        self.plain(f"{name}.ape", (ratio, width), "F32")
        self.plain(f"{name}.norm.weight", (norm,))

    def layer(self, prefix: str, ratio: int, hashed: bool) -> None:
        d = self._dims
        queries, out = d.num_attention_heads * d.head_dim, d.o_groups * d.o_lora_rank
        for name in ("attn_norm", "ffn_norm"):
            self.plain(f"{prefix}.{name}.weight", (d.hidden_size,))
        attn = f"{prefix}.attn"
        self.fp8(f"{attn}.wq_a", (d.q_lora_rank, d.hidden_size))
        self.plain(f"{attn}.q_norm.weight", (d.q_lora_rank,))
        self.fp8(f"{attn}.wq_b", (queries, d.q_lora_rank))
        self.fp8(f"{attn}.wkv", (d.head_dim, d.hidden_size))
        self.plain(f"{attn}.kv_norm.weight", (d.head_dim,))
        self.plain(f"{attn}.attn_sink", (d.num_attention_heads,), "F32")
        self.fp8(f"{attn}.wo_a", (out, queries // d.o_groups))
        self.fp8(f"{attn}.wo_b", (d.hidden_size, out))
        if ratio:
            width = d.head_dim * (2 if ratio == 4 else 1)
            self.compressor(f"{attn}.compressor", ratio, width, d.head_dim)
        if ratio == 4:
            index = f"{attn}.indexer"
            self.fp8(f"{index}.wq_b", (d.index_n_heads * d.index_head_dim, d.q_lora_rank))
            self.plain(f"{index}.weights_proj.weight", (d.index_n_heads, d.hidden_size))
            self.compressor(f"{index}.compressor", ratio, 2 * d.index_head_dim, d.index_head_dim)
        for part in ("attn", "ffn"):
            for name, shape in (("fn", (24, 4 * d.hidden_size)), ("base", (24,)), ("scale", (3,))):
                self.plain(f"{prefix}.hc_{part}_{name}", shape, "F32")
        self.plain(f"{prefix}.ffn.gate.weight", (d.n_routed_experts, d.hidden_size))
        if hashed:
            rng = np.random.default_rng(self._seed)
            rows = [
                rng.choice(d.n_routed_experts, d.num_experts_per_tok, replace=False)
                for _ in range(d.vocab_size)
            ]
            table = np.array(rows, np.int64)
            self.tensors.entries[f"{prefix}.ffn.gate.tid2eid"] = (
                "I64", table.shape, table.tobytes()
            )  # fmt: skip
        else:
            self.plain(f"{prefix}.ffn.gate.bias", (d.n_routed_experts,), "F32")
        width = d.moe_intermediate_size
        shapes = {"w1": (width, d.hidden_size), "w2": (d.hidden_size, width)}
        shapes["w3"] = shapes["w1"]
        for name, shape in shapes.items():
            for number in range(d.n_routed_experts):
                self.expert(f"{prefix}.ffn.experts.{number}.{name}", shape)
            self.fp8(f"{prefix}.ffn.shared_experts.{name}", shape)
