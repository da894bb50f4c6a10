"""The relative squared error of every ggml type on Gaussian weights, as a table for type_errors.py.

`PYTHONPATH=. python tests/reference/measure_types.py` quantizes 64 rows of 4,096 normal values with
ggml's own kernels, reads them back with gguf's numpy decoders, which share no code with ggml, and
prints Σ(x − x̂)² / Σx² for each type. Run by hand, once a ggml version.
"""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Kind
from gguf import quants

from converters.kernels.quantize import row_bytes
from converters.types.recipe import TENSOR_TYPES

ROWS, COLS = 64, 4096
# Types that convert only with an importance matrix; here it weighs every column alike.
WITH_IMPORTANCE = (
    Kind.IQ3_XXS, Kind.IQ2_S, Kind.IQ2_XS, Kind.IQ2_XXS, Kind.IQ1_M, Kind.IQ1_S,
)  # fmt: skip


def kernels() -> ctypes.CDLL:
    """Load the ggml that llama-cpp-python ships."""
    spec = importlib.util.find_spec("llama_cpp")
    assert spec and spec.origin
    library = ctypes.CDLL(str(Path(spec.origin).parent / "lib" / "libggml-base.so"))
    sizes = [ctypes.c_int64] * 3
    pointer = ctypes.c_void_p
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, *sizes, pointer]
    return library


def relative_error(library: ctypes.CDLL, kind: Kind, rows: npt.NDArray[np.float32]) -> float:
    """Return the squared error of a type over the squared values."""
    count, cols = rows.shape
    importance = np.ones(cols, np.float32)
    given = importance.ctypes.data if kind in WITH_IMPORTANCE else None
    out = np.empty(count * row_bytes(kind, cols), np.uint8)
    library.ggml_quantize_chunk(
        kind.value, rows.ctypes.data, out.ctypes.data, 0, count, cols, given
    )
    back = quants.dequantize(out.reshape(count, -1), kind).reshape(rows.shape)
    return float(((rows - back) ** 2).sum() / (rows**2).sum())


def main() -> None:
    """Measure and print."""
    library = kernels()
    rows = np.random.default_rng(0).standard_normal((ROWS, COLS), dtype=np.float32)
    for kind in TENSOR_TYPES.values():
        if kind == Kind.Q1_0:  # gguf cannot read it back, and no model here survives one bit
            continue
        error = relative_error(library, kind, rows)
        print(f'    "{kind.name}": {error:.3g},', flush=True)


if __name__ == "__main__":
    main()
