"""How long a conversion will take: the kernels measured on this machine, for a moment.

Takes what is to be converted, as values by stored dtype and ggml type; gives seconds. Every pair is
run on random tiles through the same decoding and the same kernels that a conversion uses, so the
answer is of this machine and its load right now. Reading and writing are not measured: storage
that is slower than the kernels makes it longer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
from gguf import GGMLQuantizationType as Kind

from converters.kernels.dtypes import (
    FP4_BLOCK,
    FP8_BLOCK,
    Bytes,
    Floats,
    decode_fp4_rows,
    decode_fp8_rows,
    decode_rows,
    repack_fp4,
)
from converters.kernels.quantize import NEEDS_IMPORTANCE, is_valid, quantize_rows, row_bytes
from converters.source.safetensors_table import ITEM_SIZES

_COLS = 2048  # whole blocks of every type
_ROWS = FP8_BLOCK
_LEAST_ROWS = 4  # one pass of the slowest kernels over so few takes tens of milliseconds
PACKED_FP4 = "I8"  # the dtype under which safetensors stores it
BUDGET_S = 0.5  # for all pairs together

Work = Mapping[tuple[str, Kind], int]  # (stored dtype, ggml type) → values


def expected_seconds(work: Work, threads: int) -> float:
    """Return the expected time on `threads` threads, of which each does its share alone."""
    share = BUDGET_S / max(1, len(work))
    total = sum(
        count * seconds_per_value(dtype, kind, share)
        for (dtype, kind), count in work.items()
        if kind != Kind.I32  # tables: copied, and next to nothing
    )
    return total / threads


def seconds_per_value(dtype: str, kind: Kind, budget_s: float) -> float:
    """Measure decoding, checking and quantizing on this thread for about `budget_s`; best of all.

    Two rounds are always run: the first warms tables up that a kernel makes once.
    """
    best, started, rows = float("inf"), time.perf_counter(), _LEAST_ROWS
    buffers = _Buffers(dtype, kind)
    while best == float("inf") or time.perf_counter() - started < budget_s:
        before = time.perf_counter()
        buffers.convert(rows)
        taken = time.perf_counter() - before
        if rows > _LEAST_ROWS or before > started:
            best = min(best, taken / (rows * _COLS))
        # A whole tile gives the better figure where the kernel is fast enough for it.
        if taken * _ROWS / rows < budget_s / 4:
            rows = _ROWS
    return best


class _Buffers:
    """One tile of random weights as stored, and room for what becomes of it."""

    def __init__(self, dtype: str, kind: Kind) -> None:
        self._dtype, self._kind = dtype, kind
        self._raw = _random_bytes(dtype)
        self._scales = np.full((1, _COLS // FP8_BLOCK), 0.01, np.float32)
        self._codes: Bytes = np.full((_ROWS, _COLS // FP4_BLOCK), 120, np.uint8)
        self._rows: Floats = np.empty((_ROWS, _COLS), np.float32)
        # Equal importance, where a kernel refuses to work without any.
        needed = self._kind in NEEDS_IMPORTANCE
        self._importance = np.ones(_COLS, np.float32) if needed else None
        self._out: Bytes = np.empty(_ROWS * row_bytes(kind, _COLS), np.uint8)

    def convert(self, rows: int) -> None:
        """Do to the first `rows` rows what a conversion does to a tile."""
        if self._dtype == PACKED_FP4:
            self._convert_fp4(rows)
            return
        raw = self._raw[: rows * _COLS * ITEM_SIZES[self._dtype]]
        if self._dtype == self._kind.name:
            is_valid(self._kind, raw)
            return
        values = self._rows[:rows]
        if self._dtype == "F8_E4M3":
            decode_fp8_rows(raw, self._scales, 0, values)
        else:
            decode_rows(self._dtype, raw, values)
        self._quantize(values)

    def _convert_fp4(self, rows: int) -> None:
        raw, codes = self._raw[: rows * _COLS // 2], self._codes[:rows]
        if self._kind == Kind.MXFP4:
            out = self._out[: rows * row_bytes(self._kind, _COLS)]
            repack_fp4(raw, codes, out)
            is_valid(self._kind, out)
            return
        decode_fp4_rows(raw, codes, self._rows[:rows])
        self._quantize(self._rows[:rows])

    def _quantize(self, values: Floats) -> None:
        np.isfinite(values).all()
        out = self._out[: len(values) * row_bytes(self._kind, _COLS)]
        quantize_rows(self._kind, values, out, self._importance)
        is_valid(self._kind, out)


def _random_bytes(dtype: str) -> Bytes:
    """Return a tile of normal values, encoded; FP8 takes every code that is a number."""
    rng = np.random.default_rng(0)
    if dtype == PACKED_FP4:
        return rng.integers(0, 256, _ROWS * _COLS // 2, np.uint8)
    if dtype == "F8_E4M3":
        codes = np.flatnonzero(np.arange(256) & 0x7F != 0x7F).astype(np.uint8)  # but for NaN
        return rng.choice(codes, _ROWS * _COLS)
    values = rng.standard_normal(_ROWS * _COLS, dtype=np.float32)
    if dtype == "BF16":
        return np.ascontiguousarray(values.view(np.uint16)[1::2]).view(np.uint8)
    return values.astype({"F32": np.float32, "F16": np.float16}[dtype]).view(np.uint8)
