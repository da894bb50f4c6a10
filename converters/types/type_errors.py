"""How much of a weight each ggml type loses: the measured relative squared error.

Σ(x − x̂)² / Σx² over 262,144 normal values in rows of 4,096, quantized by ggml's own kernels;
types that convert only with an importance matrix with one that weighs every column alike. Trained
weights are near enough to normal within a row for the order of the types and their rough ratios to
hold. tests/reference/measure_types.py makes the table again; a test measures it on other values.
"""

from __future__ import annotations

RELATIVE_ERRORS: dict[str, float] = {
    "F32": 0.0,
    "I32": 0.0,  # tables of whole numbers, which nothing rounds
    "F16": 4.34e-08,
    "BF16": 2.76e-06,
    "Q8_0": 2.86e-05,
    "Q5_1": 0.00143,
    "Q5_0": 0.00182,
    "Q4_1": 0.00612,
    "Q4_0": 0.00736,
    "Q6_K": 0.000314,
    "Q5_K": 0.0013,
    "Q4_K": 0.0051,
    "Q3_K": 0.0227,
    "Q2_K": 0.0885,
    "IQ4_NL": 0.00577,
    "IQ4_XS": 0.00586,
    "IQ3_S": 0.0276,
    "IQ3_XXS": 0.033,
    "IQ2_S": 0.0621,
    "IQ2_XS": 0.09,
    "IQ2_XXS": 0.118,
    "IQ1_M": 0.203,
    "IQ1_S": 0.235,
    "MXFP4": 0.0132,
    "NVFP4": 0.00908,
    "TQ2_0": 0.651,
    "TQ1_0": 0.651,
}
