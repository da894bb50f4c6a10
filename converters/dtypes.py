"""Stored bytes → float32 rows: F32, F16, BF16, and F8_E4M3 with 128×128 block scales.

Takes raw little-endian bytes of whole rows. Gives float32 in a buffer that the caller owns.
FP8 weights of DeepSeek V3 come with `weight_scale_inv`, one float32 a 128×128 block, edge blocks
cropped: W = fp8 × scale, multiplied despite the name (DeepSeek-V3/README_WEIGHTS.md).
Does not know files, tensor names or threads.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

FLOAT_DTYPES = ("F32", "F16", "BF16", "F8_E4M3")
FP8_BLOCK = 128
SCALE_SUFFIX = "_scale_inv"


def scale_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the shape of the block scales of a weight [out, in]."""
    rows, cols = shape
    return math.ceil(rows / FP8_BLOCK), math.ceil(cols / FP8_BLOCK)


def decode_rows(dtype: str, raw: Bytes, out: Floats) -> None:
    """Decode plain floats: `raw` holds out.size elements of `dtype`, `out` is contiguous."""
    flat = out.reshape(-1)
    if dtype == "F32":
        flat.view(np.uint8)[:] = raw
    elif dtype == "F16":
        flat[:] = raw.view(np.float16)
    elif dtype == "BF16":
        # A BF16 value is the upper half of the float32 with the same value.
        bits = flat.view(np.uint32)
        np.left_shift(raw.view(np.uint16), np.uint32(16), out=bits, dtype=np.uint32)
    else:
        raise ValueError(f"{dtype} is not a plain float")


def decode_fp8_rows(raw: Bytes, scales: Floats, first_row: int, out: Floats) -> None:
    """Decode rows [first_row, first_row + n) of an FP8 weight into `out` [n, cols].

    `scales` is the weight's whole scale table [ceil(rows/128), ceil(cols/128)].
    """
    rows, cols = out.shape
    _decode_e4m3(raw, out)
    row = 0
    while row < rows:
        block = (first_row + row) // FP8_BLOCK
        end = min(rows, (block + 1) * FP8_BLOCK - first_row)
        factors = np.repeat(scales[block], FP8_BLOCK)[:cols]
        np.multiply(out[row:end], factors, out=out[row:end])
        row = end


def _decode_e4m3(raw: Bytes, out: Floats) -> None:
    flat = out.reshape(-1)
    if raw.size % 2 == 0 and raw.ctypes.data % 2 == 0:
        # Two values a lookup: half the indexing, and 512 KiB still fits the second-level cache.
        np.take(_pair_table(), raw.view(np.uint16), out=flat.view(np.uint64), mode="clip")
    else:
        np.take(e4m3_table(), raw, out=flat, mode="clip")


@cache
def e4m3_table() -> Floats:
    """Return the 256 values of F8_E4M3: 1-4-3 bits, bias 7, no infinities, 0x7F and 0xFF NaN."""
    values = np.empty(256, np.float32)
    for code in range(256):
        exponent, mantissa = (code >> 3) & 15, code & 7
        size = mantissa * 2.0**-9 if exponent == 0 else (8 + mantissa) * 2.0 ** (exponent - 10)
        values[code] = -size if code & 128 else size
    values[[0x7F, 0xFF]] = np.nan
    return values


@cache
def _pair_table() -> npt.NDArray[np.uint64]:
    codes = np.arange(1 << 16)
    pairs = np.stack([e4m3_table()[codes & 255], e4m3_table()[codes >> 8]], axis=1)
    return np.ascontiguousarray(pairs).view(np.uint64).reshape(-1)
