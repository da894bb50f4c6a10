"""ggml's own decoders: blocks of any ggml type → float32, bit for bit as llama.cpp reads them.

Takes bytes of whole blocks and the type's name or number. The decoders are found through
`ggml_get_type_traits`, whose struct is pinned here to the ggml of llama-cpp-python 0.3.36 and
checked when it is first used.
Does not know files, tensors or tiles.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from converters.errors import ConvertError
from converters.kernels.dtypes import Bytes, Floats
from converters.kernels.quantize import load_kernels

_TYPE_COUNT = 43  # GGML_TYPE_COUNT: asked for more, ggml_get_type_traits aborts the process
_LARGEST_BLOCK = 256


class _Traits(ctypes.Structure):
    """struct ggml_type_traits of ggml.h."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
        ("from_float_ref", ctypes.c_void_p),
    )


@dataclass(frozen=True)
class Block:
    """A ggml type: how many values its blocks hold, in how many bytes."""

    name: str
    length: int
    size_bytes: int
    quantized: bool
    decode: Callable[[int, int, int], None] | None  # (from address, to address, values)


def block_of(number: int) -> Block | None:
    """Return a type by its ggml number; None for numbers without a type, or withdrawn."""
    return _blocks().get(number)


def block_named(name: str) -> Block | None:
    """Return a type by its name, such as Q4_K."""
    return next((block for block in _blocks().values() if block.name == name), None)


def dequantize_rows(name: str, raw: Bytes, out: Floats) -> None:
    """Decode whole blocks of the type `name` into `out`, contiguous, any shape."""
    block = block_named(name)
    if block is None or block.decode is None:
        raise ConvertError(f"{name} holds no values that can be decoded")
    if raw.nbytes != out.size // block.length * block.size_bytes or out.size % block.length:
        raise ValueError(f"{raw.nbytes} bytes are not {out.size} values of {name}")
    block.decode(raw.ctypes.data, out.ctypes.data, out.size)


@cache
def _blocks() -> dict[int, Block]:
    find = load_kernels().ggml_get_type_traits
    find.argtypes, find.restype = [ctypes.c_int], ctypes.POINTER(_Traits)
    # void to_float(const void * x, float * y, int64_t k)
    decoder = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    found: dict[int, Block] = {}
    for number in range(_TYPE_COUNT):
        traits = find(number).contents
        if traits.blck_size == 0:  # withdrawn
            continue
        found[number] = Block(
            name=traits.type_name.decode().upper(),
            length=traits.blck_size,
            size_bytes=traits.type_size,
            quantized=traits.is_quantized,
            decode=decoder(traits.to_float) if traits.to_float else None,
        )
    known = {0: ("F32", 1, 4), 8: ("Q8_0", 32, 34), 12: ("Q4_K", 256, 144)}
    for number, expected in known.items():
        one = found.get(number)
        if one is None or (one.name, one.length, one.size_bytes) != expected:
            raise ConvertError("ggml's kernels are not those of llama-cpp-python 0.3.36")
    return found
