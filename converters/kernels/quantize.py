"""ggml's own kernels over rows: float32 → any ggml type, bit for bit as llama-quantize.

Takes float32 rows and a type, gives bytes in a buffer that the caller owns. The kernels are in
the ggml library that llama-cpp-python ships; it is found without importing that package, and
called through ctypes, which releases the interpreter lock, so threads run side by side.
Does not know tensors, tiles or which type to choose.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from converters.errors import ConvertError
from converters.kernels.dtypes import Bytes, Floats

_LIBRARY_NAMES = ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll")

# ggml's kernels for these stop the process when they get no importance.
NEEDS_IMPORTANCE = frozenset(
    (GGMLQuantizationType.IQ2_XXS, GGMLQuantizationType.IQ2_XS, GGMLQuantizationType.IQ1_S)
)

# Kernels that look at importance; the others take it and ignore it.
USES_IMPORTANCE = frozenset(
    kind
    for kind in GGMLQuantizationType
    if kind.name.startswith(("IQ", "Q4", "Q5")) or kind.name in ("Q2_K", "Q3_K", "Q6_K")
)

# Kernels that search grids of a few hundred points, made once for the process. With values that
# no half-precision scale reaches they find no point and stop the process.
_ON_GRIDS = frozenset(
    kind for kind in GGMLQuantizationType if kind.name.startswith(("IQ1", "IQ2", "IQ3"))
)
_LARGEST_ON_GRIDS = 65504.0  # the largest number in half precision


def row_bytes(kind: GGMLQuantizationType, cols: int) -> int:
    """Return the size of a row; `cols` must be whole blocks of the type."""
    block, size = GGML_QUANT_SIZES[kind]
    if cols % block:
        raise ValueError(f"{cols} columns are not whole blocks of {kind.name}")
    return cols // block * size


def block_length(kind: GGMLQuantizationType) -> int:
    """Return how many values a block of the type holds."""
    return GGML_QUANT_SIZES[kind][0]


def quantize_rows(
    kind: GGMLQuantizationType, rows: Floats, out: Bytes, importance: Floats | None = None
) -> int:
    """Quantize contiguous float32 rows [n, cols] into `out`; return the bytes written.

    `importance` [cols] weighs the columns' errors, the same for every row.
    """
    count, cols = rows.shape
    if out.nbytes < count * row_bytes(kind, cols):
        raise ValueError("the output buffer is too small")
    if importance is None and requires_importance(kind):
        raise ValueError(f"{kind.name} needs importance")
    if importance is not None and importance.shape != (cols,):
        raise ValueError(f"importance of {importance.shape} for {cols} columns")
    weights = None
    if importance is not None:
        importance = np.ascontiguousarray(importance, np.float32)
        weights = importance.ctypes.data
    kernel = _library().ggml_quantize_chunk
    return int(kernel(kind.value, rows.ctypes.data, out.ctypes.data, 0, count, cols, weights))


def is_in_range(kind: GGMLQuantizationType, rows: Floats) -> bool:
    """Say whether the type's kernel can take such values, all of which are finite."""
    if kind not in _ON_GRIDS:
        return True
    return bool(rows.max() <= _LARGEST_ON_GRIDS and rows.min() >= -_LARGEST_ON_GRIDS)


def is_valid(kind: GGMLQuantizationType, data: Bytes) -> bool:
    """Say whether all values (of quantized types: all block scales) are finite."""
    return bool(_library().ggml_validate_row_data(kind.value, data.ctypes.data, data.nbytes))


def requires_importance(kind: GGMLQuantizationType) -> bool:
    """Say whether ggml's kernel for the type stops the process when it gets no importance."""
    return bool(_library().ggml_quantize_requires_imatrix(kind.value))


def load_kernels() -> ctypes.CDLL:
    """Load the library now, so that its absence is known before a file is begun."""
    return _library()


def make_tables(kinds: Iterable[GGMLQuantizationType]) -> None:
    """Make the search tables that ggml's kernels for some types need, before threads wait for them.

    They take seconds to make and 5 MB together, and stay with the process: ggml can free them only
    all at once, also under another conversion.
    """
    for kind in kinds:
        _library().ggml_quantize_init(kind.value)


@cache
def _library() -> ctypes.CDLL:
    path = library_path()
    try:
        library = ctypes.CDLL(str(path))
        quantize, validate = library.ggml_quantize_chunk, library.ggml_validate_row_data
        requires = library.ggml_quantize_requires_imatrix
        library.ggml_quantize_init.argtypes = [ctypes.c_int]
        library.ggml_quantize_init.restype = None
    except (OSError, AttributeError) as error:
        raise ConvertError(f"cannot load ggml's kernels from {path}: {error}") from error
    # size_t ggml_quantize_chunk(type, src, dst, start, nrows, n_per_row, imatrix)
    quantize.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p,
        ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
    ]  # fmt: skip
    quantize.restype = ctypes.c_size_t
    # bool ggml_validate_row_data(type, data, nbytes)
    validate.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
    validate.restype = ctypes.c_bool
    # bool ggml_quantize_requires_imatrix(type)
    requires.argtypes = [ctypes.c_int]
    requires.restype = ctypes.c_bool
    return library


def library_path() -> Path:
    """Return where the library with the kernels is; raise ConvertError if it is not installed."""
    spec = importlib.util.find_spec("llama_cpp")
    for folder in spec.submodule_search_locations or () if spec else ():
        for name in _LIBRARY_NAMES:
            path = Path(folder) / "lib" / name
            if path.is_file():
                return path
    raise ConvertError("ggml's kernels are not installed: install llama-cpp-python")
