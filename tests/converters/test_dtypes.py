from __future__ import annotations

import math

import checkpoints
import numpy as np
import pytest

from converters.kernels.dtypes import decode_fp8_rows, decode_rows, scale_shape


def plain_e4m3(code: int) -> float:
    sign, exponent, mantissa = code >> 7, (code >> 3) & 15, code & 7
    if exponent == 15 and mantissa == 7:
        return math.nan
    size = mantissa / 8 * 2**-6 if exponent == 0 else (1 + mantissa / 8) * 2 ** (exponent - 7)
    return -size if sign else size


@pytest.mark.parametrize("scale", [1.0, 2.0**-140, 3e-5, -0.5, 127.9, 300.0, 7e35])
def test_all_256_fp8_codes_have_their_value_times_the_scale(scale: float) -> None:
    values = np.array([plain_e4m3(code) for code in range(256)], np.float32)
    out = np.empty((2, 128), np.float32)
    codes = np.arange(256, dtype=np.uint8)
    decode_fp8_rows(codes, np.array([[scale]], np.float32), 0, out)
    np.testing.assert_array_equal(out.reshape(-1), values * np.float32(scale))


@pytest.mark.parametrize("first_row", [0, 100, 128, 200])
@pytest.mark.parametrize(("rows", "cols"), [(300, 300), (257, 129), (1, 130)])
def test_fp8_rows_are_scaled_by_their_block_also_at_cropped_edges(
    first_row: int, rows: int, cols: int
) -> None:
    rng = np.random.default_rng(0)
    total = first_row + rows
    codes = rng.integers(0, 127, (total, cols), dtype=np.uint8)
    scales = rng.random(scale_shape((total, cols)), dtype=np.float32)
    out = np.empty((rows, cols), np.float32)
    raw = np.ascontiguousarray(codes[first_row:]).reshape(-1)
    decode_fp8_rows(raw, scales, first_row, out)
    for row, col in [(0, 0), (rows - 1, cols - 1), (rows // 2, 128), (rows - 1, 127)]:
        place = (first_row + row) // 128, col // 128
        expected = np.float32(plain_e4m3(int(codes[first_row + row, col]))) * scales[place]
        assert out[row, col] == expected


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_plain_floats_come_back_as_they_were_stored(dtype: str) -> None:
    values = np.array([0.0, -1.5, 2.0**-10, 240.0], np.float32)
    raw = np.frombuffer(checkpoints.encode(values, dtype), np.uint8)
    out = np.empty(4, np.float32)
    decode_rows(dtype, raw, out)
    np.testing.assert_array_equal(out, values)
