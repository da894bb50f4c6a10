"""How much of a weight each ggml type loses: the measured relative squared error.

Σ(x − x̂)² / Σx² over 262,144 normal values in rows of 4,096, quantized by ggml's own kernels without
an importance matrix. Trained weights are near enough to normal within a row for the order and the
ratios of the types to hold; tests/reference/measure_types.py makes the table again, and a test
measures every entry on other values.
"""

from __future__ import annotations

RELATIVE_ERRORS: dict[str, float] = {
    "F32": 0.0,
    "F16": 4.34e-08,
    "BF16": 2.76e-06,
    "Q8_0": 2.86e-05,
    "Q6_K": 0.000314,
    "Q5_K": 0.0013,
    "Q4_K": 0.0051,
    "Q3_K": 0.0227,
    "Q2_K": 0.0885,
    "Q5_1": 0.00143,
    "Q5_0": 0.00182,
    "Q4_1": 0.00612,
    "Q4_0": 0.00736,
}
