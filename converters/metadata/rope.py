"""Rope settings of dense models → GGUF metadata, and frequency factors where they are needed.

Takes config.json and the length of a head. Gives the `rope.*` keys that llama.cpp's generic loader
reads for unscaled, linear, YaRN and llama3 rope; the last becomes a tensor of one factor a
frequency. Angles and their scale equal those of transformers (modeling_rope_utils.py); settings
that llama.cpp cannot express are refused by name.
Does not know tensors' sources. DeepSeek V2's and V3's YaRN is another one: families/deepseek2.py.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from converters.errors import ConvertError
from converters.layout import Value
from converters.source.config import Config, require_usual_betas, rope_settings

KINDS = ("default", "linear", "yarn", "llama3")
_THETA = 10000.0  # what transformers assumes for Llama and Qwen where config.json is silent


@dataclass(frozen=True)
class RopeLayout:
    """Metadata, and the factors by which frequencies are divided (empty: none are)."""

    metadata: dict[str, Value]
    factors: tuple[float, ...] = ()


def read_rope_layout(config: Config, head_dim: int, kinds: Collection[str] = KINDS) -> RopeLayout:
    """Read the settings; raise ConvertError for what llama.cpp would compute otherwise."""
    if config.number("partial_rotary_factor", 1.0) != 1.0:
        raise ConvertError(f"{config.origin}: partial_rotary_factor is not supported (only 1)")
    kind, theta, scaling = rope_settings(config, kinds, _THETA)
    metadata: dict[str, Value] = {"rope.freq_base": theta}
    if kind == "default":
        return RopeLayout(metadata)
    factor = scaling.number("factor")
    if factor < 1:
        raise ConvertError(f"{scaling.origin}: factor is {factor:g}, below 1")
    if kind == "llama3":
        return RopeLayout(metadata, _llama3_factors(scaling, factor, theta, head_dim))
    metadata |= {"rope.scaling.type": kind, "rope.scaling.factor": factor}
    if kind == "yarn":
        metadata |= _yarn(scaling, factor)
    return RopeLayout(metadata)


def _yarn(scaling: Config, factor: float) -> dict[str, Value]:
    require_usual_betas(scaling)
    scaling.choice("truncate", (True,), True)
    metadata: dict[str, Value] = {
        "rope.scaling.original_context_length": scaling.count("original_max_position_embeddings")
    }
    # llama.cpp scales by `usual` whatever the file says, and by its attn_factor on top.
    usual = _attention_scale(factor, 1.0)
    wanted = usual
    mscale, all_dim = scaling.number("mscale", 0.0), scaling.number("mscale_all_dim", 0.0)
    if scaling.has("attention_factor"):
        wanted = scaling.number("attention_factor")
    elif mscale and all_dim:
        wanted = _attention_scale(factor, mscale) / _attention_scale(factor, all_dim)
    # R1-0528-Qwen3-8B has an `attn_factor`, which is not a key of transformers: nothing reads it.
    if not math.isclose(wanted, usual):
        metadata["rope.scaling.attn_factor"] = wanted / usual
    return metadata


def _attention_scale(factor: float, mscale: float) -> float:
    """Return the factor on queries and keys that YaRN's authors recommend (their eq. 22)."""
    return 0.1 * mscale * math.log(factor) + 1.0


def _llama3_factors(
    scaling: Config, factor: float, theta: float, head_dim: int
) -> tuple[float, ...]:
    """Return the divisor of every frequency: 1 for short waves, `factor` for long ones.

    In float32 and with quotients as products of reciprocals, as torch divides a number by a tensor:
    so the tensor equals the reference converter's to the bit.
    """
    low, high = scaling.number("low_freq_factor"), scaling.number("high_freq_factor")
    context = scaling.count("original_max_position_embeddings")
    if not 0 < low < high:
        raise ConvertError(
            f"{scaling.origin}: low_freq_factor {low:g} is not below high_freq_factor {high:g}"
        )
    one = np.float32(1)
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    powers = np.power(theta, exponents.astype(np.float64)).astype(np.float32)
    wavelengths = one / (one / powers) * np.float32(2 * math.pi)
    turns = one / wavelengths * np.float32(context)
    smooth = (turns - np.float32(low)) / np.float32(high - low)
    between = one / ((one - smooth) / np.float32(factor) + smooth)
    factors = np.where(wavelengths > context / low, np.float32(factor), between)
    factors = np.where(wavelengths < context / high, one, factors)
    return tuple(float(value) for value in factors)
