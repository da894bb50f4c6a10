"""Stored bytes → float32 rows: F32, F16, BF16, FP8 with 128×128 block scales, FP4 with E8M0.

Takes raw little-endian bytes of whole rows. Gives float32 in a buffer that the caller owns.
FP8 weights of DeepSeek V3 come with `weight_scale_inv`, one float32 a 128×128 block, edge blocks
cropped: W = fp8 × scale, multiplied despite the name (DeepSeek-V3/README_WEIGHTS.md). FP4 (E2M1)
and E8M0 are those of the OCP Microscaling Formats specification 1.0; here neighbours share a byte,
the first in its low half, where ggml's MXFP4 pairs value i of a block with value i + 16.
Does not know files, tensor names or threads.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

PLAIN_DTYPES = ("F32", "F16", "BF16")  # ggml types of the same names hold the same bytes
FP8_BLOCK = 128
FP4_BLOCK = 32
E8M0_NAN = 255
_E4M3_BITS = np.int32(-0x80000000 | 0x7F << 20)  # sign, four bits of exponent, three of mantissa
_E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
_E4M3_UNIT = np.float32(2.0**120)  # float32's exponent bias 127 less E4M3's 7


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
    codes = raw.view(np.int8).reshape(rows, cols)
    row = 0
    while row < rows:
        block = (first_row + row) // FP8_BLOCK
        end = min(rows, (block + 1) * FP8_BLOCK - first_row)
        _decode_e4m3(codes[row:end], np.repeat(scales[block], FP8_BLOCK)[:cols], out[row:end])
        row = end
    if (raw & np.uint8(0x7F)).max(initial=0) == 0x7F:
        out[codes & np.int8(0x7F) == 0x7F] = np.nan


def _decode_e4m3(codes: npt.NDArray[np.int8], factors: Floats, out: Floats) -> None:
    """Decode codes × factors, but for NaN; both steps are exact up to the last product's rounding.

    Shifted into a float32's exponent and mantissa, E4M3 means its value × 2^-120, subnormals too:
    a quarter of the time that a table of 256 values takes.
    """
    bits = out.view(np.int32)
    np.left_shift(codes, np.int32(20), out=bits, dtype=np.int32)
    np.bitwise_and(bits, _E4M3_BITS, out=bits)  # off with the copies of the sign in the exponent
    if factors.max(initial=0) >= 128 or factors.min(initial=0) <= -128:
        np.multiply(out, _E4M3_UNIT, out=out)  # in one, factor and unit would overflow
        np.multiply(out, factors, out=out)
    else:
        np.multiply(out, factors * _E4M3_UNIT, out=out)


def decode_e8m0(codes: Bytes) -> Floats:
    """Return 2^(code - 127), exactly; the code 255, which is not a number, becomes NaN."""
    values = np.ldexp(np.float32(1), np.minimum(codes, E8M0_NAN - 1).astype(np.int32) - 127)
    values[codes == E8M0_NAN] = np.nan
    return values


def decode_fp4_rows(raw: Bytes, scales: Bytes, out: Floats) -> None:
    """Decode packed FP4 into `out` [n, cols]; `scales` [n, cols/32] are E8M0 codes."""
    rows, cols = out.shape
    blocks = out.reshape(rows, cols // FP4_BLOCK, FP4_BLOCK)
    packed = raw.reshape(rows, cols // FP4_BLOCK, FP4_BLOCK // 2)
    blocks[..., 0::2] = _E2M1[packed & np.uint8(15)]
    blocks[..., 1::2] = _E2M1[packed >> np.uint8(4)]
    with np.errstate(over="ignore"):  # to infinity, which the caller refuses
        np.multiply(blocks, decode_e8m0(scales)[..., None], out=blocks)


def repack_fp4(raw: Bytes, scales: Bytes, out: Bytes) -> None:
    """Rearrange packed FP4 into ggml's MXFP4 blocks of 17 bytes; the codes stay what they are.

    `out` holds n × cols/32 blocks: the E8M0 code, then 16 bytes, value i low and value i + 16 high.
    """
    blocks = out.reshape(-1, 1 + FP4_BLOCK // 2)
    packed = raw.reshape(-1, FP4_BLOCK // 2)
    first, second = packed[:, :8], packed[:, 8:]
    blocks[:, 0] = scales.reshape(-1)
    blocks[:, 1::2] = (first & np.uint8(0x0F)) | (second << np.uint8(4))
    blocks[:, 2::2] = (first >> np.uint8(4)) | (second & np.uint8(0xF0))
