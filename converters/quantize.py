"""ggml's own kernels over rows: float32 → any ggml type, bit for bit as llama-quantize.

Takes float32 rows and a type, gives bytes in a buffer that the caller owns. The kernels are in
the ggml library that llama-cpp-python ships; it is found without importing that package, and
called through ctypes, which releases the interpreter lock, so threads run side by side.
Does not know tensors, tiles or which type to choose.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from converters.dtypes import Bytes, Floats
from converters.errors import ConvertError

_LIBRARY_NAMES = ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll")

# ggml's kernels for these stop the process when they get no importance.
NEEDS_IMPORTANCE = frozenset(
    (GGMLQuantizationType.IQ2_XXS, GGMLQuantizationType.IQ2_XS, GGMLQuantizationType.IQ1_S)
)


def row_bytes(kind: GGMLQuantizationType, cols: int) -> int:
    """Return the size of a row; `cols` must be whole blocks of the type."""
    block, size = GGML_QUANT_SIZES[kind]
    if cols % block:
        raise ValueError(f"{cols} columns are not whole blocks of {kind.name}")
    return cols // block * size


def block_length(kind: GGMLQuantizationType) -> int:
    """Return how many values a block of the type holds."""
    return GGML_QUANT_SIZES[kind][0]


def quantize_rows(kind: GGMLQuantizationType, rows: Floats, out: Bytes) -> int:
    """Quantize contiguous float32 rows [n, cols] into `out`; return the bytes written."""
    count, cols = rows.shape
    if out.nbytes < count * row_bytes(kind, cols):
        raise ValueError("the output buffer is too small")
    kernel = _library().ggml_quantize_chunk
    return int(kernel(kind.value, rows.ctypes.data, out.ctypes.data, 0, count, cols, None))


def is_valid(kind: GGMLQuantizationType, data: Bytes) -> bool:
    """Say whether all values (of quantized types: all block scales) are finite."""
    return bool(_library().ggml_validate_row_data(kind.value, data.ctypes.data, data.nbytes))


def requires_importance(kind: GGMLQuantizationType) -> bool:
    """Say whether ggml's kernel for the type stops the process when it gets no importance."""
    return bool(_library().ggml_quantize_requires_imatrix(kind.value))


def load_kernels() -> ctypes.CDLL:
    """Load the library now, so that its absence is known before a file is begun."""
    return _library()


@cache
def _library() -> ctypes.CDLL:
    path = library_path()
    try:
        library = ctypes.CDLL(str(path))
        quantize, validate = library.ggml_quantize_chunk, library.ggml_validate_row_data
        requires = library.ggml_quantize_requires_imatrix
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
