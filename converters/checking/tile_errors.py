"""How far a file's values are from their source, and how far its type can explain.

Takes float32 rows of both, gives sums that add up over the tiles of a tensor. The error of a block
of 256 values is measured against the block's own size, so that damage to a few bytes of a large
tensor shows; blocks far smaller than their surroundings count as a hundredth of these.
Does not know files or threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from converters.kernels.dtypes import Floats
from converters.types.type_errors import RELATIVE_ERRORS

Integers = npt.NDArray[np.int32] | npt.NDArray[np.int64]

BLOCK = 256
_LEAST_SHARE = 0.01  # of the tile's size, below which a block's own size does not count
# Scales are F16: where the least step between them, 2^-24, is coarse, errors are explained by it.
# 4064 is the largest multiple of a scale (Q6_K, IQ4_XS).
_SCALE_ERROR = 4064 * 2.0**-25
_F16_ERROR = 2.0**-25
_NVFP4_ERROR = 12 * 2.0**-10  # its scales are E4M3, and the largest multiple is 12
# Over the error of normal values. Measured over normal, Laplace and Student-t values (down to 2.2
# degrees) without importance and with importance as uneven as e^(3 × normal): tensors up to 3.6
# times, blocks up to 6.1 times and, of the types that lose most, 1.28 of their own size.
_TENSOR_FACTOR, _BLOCK_FACTOR = 4.0, 8.0
_MOST_OF_BLOCK = 1.5  # a block whose signs are turned has 2
# Of zeros nothing is left: 1. Q1_0 keeps a 128th of a block's squares at least (Cauchy-Schwarz).
_MOST_OF_TENSOR = 0.997
_EXACT = 1e-6  # float32 arithmetic in another order
_UNKNOWN = 0.5  # Q1_0 and whatever ggml adds


@dataclass(frozen=True)
class TileError:
    """Sums over a tile, and its worst block: error over size, and its first value's place."""

    squared_error: float
    squared_source: float
    largest: float  # absolute difference
    worst_block: float
    worst_at: int
    explained: bool  # no block is beyond what the type explains


@dataclass(frozen=True)
class Limits:
    """Relative root-mean-square errors that a type explains, of a tensor and of a block."""

    tensor: float
    block: float
    absolute: float  # of a block's error, on top


def limits_of(kind: str) -> Limits:
    """Return the limits of a ggml type."""
    if kind == "I32":
        return Limits(0.0, 0.0, 0.0)
    if kind == "F32":
        return Limits(_EXACT, _EXACT, 0.0)
    usual = float(np.sqrt(RELATIVE_ERRORS.get(kind, _UNKNOWN)))
    absolute = {"F16": _F16_ERROR, "BF16": 0.0, "NVFP4": _NVFP4_ERROR}.get(kind, _SCALE_ERROR)
    tensor = min(_TENSOR_FACTOR * usual, _MOST_OF_TENSOR)
    return Limits(tensor, min(_BLOCK_FACTOR * usual, _MOST_OF_BLOCK), absolute)


def measure_tile(found: Floats, source: Floats, kind: str) -> TileError:
    """Compare the rows of a file with those of its source; `found` is overwritten."""
    limits, size = limits_of(kind), source.size
    right = source.reshape(-1)
    blank = _block_sums(found.reshape(-1)) == 0
    difference = np.subtract(found.reshape(-1), right, out=found.reshape(-1))
    errors, sizes = _block_sums(difference), _block_sums(right)
    counts = np.full(errors.size, BLOCK)
    counts[-1] = size - BLOCK * (errors.size - 1)
    squared_source = float(sizes.sum())
    rms = np.sqrt(errors / counts)
    scale = np.maximum(np.sqrt(sizes / counts), _LEAST_SHARE * np.sqrt(squared_source / size))
    ratio = np.divide(rms, scale, out=np.where(rms > 0, np.inf, 0.0), where=scale > 0)
    worst = int(ratio.argmax())
    allowed = limits.block * scale + limits.absolute
    # No type makes a block of zeros from values that its scales can hold.
    least = np.minimum(_MOST_OF_TENSOR, limits.block) * scale + limits.absolute
    return TileError(
        squared_error=float(errors.sum()),
        squared_source=squared_source,
        largest=float(np.abs(difference).max()),
        worst_block=float(ratio[worst]),
        worst_at=worst * BLOCK,
        explained=bool(((rms <= allowed) & ~(blank & (rms > least))).all()),
    )


def measure_table(found: Integers, source: Integers) -> TileError:
    """Compare whole numbers, which nothing rounds: one that differs is explained by no type."""
    right = source.reshape(-1).astype(np.float64)
    difference = found.reshape(-1) - right
    sums = np.add.reduceat(difference**2, np.arange(0, right.size, BLOCK))
    worst = int(sums.argmax())
    size = float(np.square(right[worst * BLOCK : (worst + 1) * BLOCK]).sum())
    return TileError(
        squared_error=float(sums.sum()),
        squared_source=float(right @ right),
        largest=float(np.abs(difference).max()),
        worst_block=math.sqrt(sums[worst] / size) if size else (math.inf if sums[worst] else 0.0),
        worst_at=worst * BLOCK,
        explained=not difference.any(),
    )


def _block_sums(values: Floats) -> npt.NDArray[np.float64]:
    """Return the sum of squares of each block, the last one shorter where need be."""
    whole = values.size // BLOCK * BLOCK
    blocks = values[:whole].reshape(-1, BLOCK)
    sums: npt.NDArray[np.float64] = np.einsum("ij,ij->i", blocks, blocks).astype(np.float64)
    if whole < values.size:
        rest = values[whole:].astype(np.float64)
        sums = np.append(sums, rest @ rest)
    return sums
