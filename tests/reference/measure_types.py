"""The relative squared error of every ggml type on Gaussian weights, as a table for type_errors.py.

`PYTHONPATH=. python tests/reference/measure_types.py` quantizes 64 rows of 4,096 normal values with
ggml's own kernels (no importance matrix), reads them back with gguf's numpy decoders, which share
no code with ggml, and prints Σ(x − x̂)² / Σx² for each type. Run by hand, once a ggml version.
"""

from __future__ import annotations

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import quants

from converters import recipe
from converters.quantize import quantize_rows, row_bytes

ROWS, COLS = 64, 4096


def relative_error(kind: Kind, rows: np.ndarray) -> float:
    """Return the squared error of a type over the squared values."""
    out = np.empty(rows.shape[0] * row_bytes(kind, rows.shape[1]), np.uint8)
    quantize_rows(kind, rows, out)
    back = quants.dequantize(out.reshape(rows.shape[0], -1), kind).reshape(rows.shape)
    return float(((rows - back) ** 2).sum() / (rows**2).sum())


def main() -> None:
    """Measure and print."""
    rows = np.random.default_rng(0).standard_normal((ROWS, COLS), dtype=np.float32)
    for kind in recipe.TENSOR_TYPES.values():
        if kind == Kind.F32:
            continue
        print(f'    "{kind.name}": {relative_error(kind, rows):.3g},', flush=True)


if __name__ == "__main__":
    main()
