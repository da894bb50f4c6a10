"""How a stored weight becomes values: the one place that decides it, from headers alone.

Takes a source and a stored tensor; gives its coding, the shape of its values, and the tensor that
holds its scales, found and checked. Codings: plain floats; FP8 (E4M3) with a scale a 128×128 block,
F32 (V3, V3.2, V4 Base) or a power of two in one byte, E8M0 (V4); FP4 (E2M1), two to a byte, with an
E8M0 scale a 32 values of a row (V4's experts); tables of whole numbers; ggml's own blocks.
Does not read data: tiles.py does, with the decoders of dtypes.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gguf import GGMLQuantizationType as Kind

from converters.errors import ConvertError
from converters.kernels.dtypes import FP4_BLOCK, FP8_BLOCK, PLAIN_DTYPES, scale_shape
from converters.source.config import Config
from converters.source.safetensors_table import ITEM_SIZES
from converters.source.source import Source, StoredTensor

Coding = Literal["plain", "fp8", "fp4", "table", "blocks"]

_FP4_DTYPES = ("I8", "U8")  # safetensors has no name for packed FP4
TABLE_DTYPES = ("I64", "I32")
_E8M0_DTYPES = ("F8_E8M0", "U8")
_SUPPORTED = (*PLAIN_DTYPES, "F8_E4M3", "FP4")


@dataclass(frozen=True)
class Weight:
    """A stored tensor understood: `shape` counts values, `scale` holds its scales if it has any."""

    tensor: StoredTensor
    coding: Coding
    shape: tuple[int, ...]
    scale: StoredTensor | None = None

    @property
    def names(self) -> set[str]:
        """The stored tensors that it uses up."""
        return {self.tensor.name} | ({self.scale.name} if self.scale else set())

    @property
    def kind(self) -> Kind | None:
        """The ggml type of blocks that hold the same codes, so that nothing need be rounded."""
        return Kind.MXFP4 if self.coding == "fp4" else None


def resolve(source: Source, tensor: StoredTensor) -> Weight:
    """Understand a stored tensor; raise ConvertError for a dtype or scales that do not fit."""
    dtype = tensor.dtype
    if dtype in PLAIN_DTYPES:
        return Weight(tensor, "plain", tensor.shape)
    if dtype == "F8_E4M3":
        if len(tensor.shape) != 2:
            raise ConvertError(f"{tensor.name} is FP8 with the shape {list(tensor.shape)}, not 2-D")
        scale = _scale(source, tensor, "FP8", scale_shape(tensor.shape), ("F32", *_E8M0_DTYPES))
        return Weight(tensor, "fp8", tensor.shape, scale)
    if dtype in _FP4_DTYPES and any(name in source.tensors for name in scale_names(tensor.name)):
        if len(tensor.shape) != 2 or tensor.shape[1] * 2 % FP4_BLOCK:
            raise ConvertError(
                f"{tensor.name} is packed FP4 with the shape {list(tensor.shape)}: rows must be "
                f"whole blocks of {FP4_BLOCK} values"
            )
        rows, packed = tensor.shape
        shape = (rows, packed * 2 // FP4_BLOCK)
        scale = _scale(source, tensor, "packed FP4", shape, _E8M0_DTYPES)
        return Weight(tensor, "fp4", (rows, packed * 2), scale)
    if dtype in TABLE_DTYPES:
        return Weight(tensor, "table", tensor.shape)
    if dtype in ITEM_SIZES:
        raise ConvertError(
            f"{tensor.name} has the dtype {dtype}, not supported (only {', '.join(_SUPPORTED)})"
        )
    return Weight(tensor, "blocks", tensor.shape)


def scale_names(weight: str) -> tuple[str, str]:
    """Return the names that a weight's scales may have: V3's and V4's."""
    return weight + "_scale_inv", weight.removesuffix("weight") + "scale"


def check_quantization(config: Config, source: Source) -> None:
    """Raise ConvertError, by its name, for a way of storing weights that is not supported."""
    if config.section("quantization").has("group_size"):
        raise ConvertError(
            f"{config.origin}: quantization is MLX's own, which is not supported: take the "
            "original release"
        )
    section = config.section("quantization_config")
    for name in source.tensors:
        # NVIDIA's re-packs: FP4 in blocks of 16 and a scale more a tensor. Not all configs say so.
        if name.endswith((".weight_scale_2", ".weight_scale")):
            raise ConvertError(
                f"{name} belongs to a re-packed checkpoint (NVFP4 or the like), which is not "
                "supported: take DeepSeek's own release"
            )
    if not section.values:
        return
    for key in ("moe_quant_algo", "quant_algo"):
        if section.has(key):
            raise ConvertError(
                f"{section.origin}: {key} {section.values[key]!r} is not supported: take "
                "DeepSeek's own release"
            )
    section.choice("quant_method", ("fp8",))
    section.choice("fmt", ("e4m3",), "e4m3")
    block = section.values.get("weight_block_size", [FP8_BLOCK, FP8_BLOCK])
    if block != [FP8_BLOCK, FP8_BLOCK]:
        raise ConvertError(f"{section.origin}: weight_block_size {block} is not supported")


def _scale(
    source: Source,
    tensor: StoredTensor,
    coding: str,
    shape: tuple[int, ...],
    dtypes: tuple[str, ...],
) -> StoredTensor:
    names = scale_names(tensor.name)
    scale = next((source.tensors[name] for name in names if name in source.tensors), None)
    if scale is None:
        raise ConvertError(
            f"{names[0]} is missing: {tensor.name} is {coding} and means nothing without it"
        )
    if scale.dtype not in dtypes or scale.shape != shape:
        raise ConvertError(
            f"{scale.name} is {scale.dtype} {list(scale.shape)}, but {tensor.name} needs "
            f"{' or '.join(dtypes[:2])} {list(shape)}"
        )
    return scale
