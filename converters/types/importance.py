"""Which importance each tensor of a model gets from an importance matrix, and what it lacks.

Takes an open matrix and the model's tensors; gives for a tensor the weight of every column, by
matrix: an expert, or a head of a stacked projection, has its own. Experts that were never seen get
equal weights, as llama-quantize gives them: the stack has one type, so they cannot fall back alone.
Does not know which types use importance; recipe.py and quantize.py do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from converters.errors import ConvertError
from converters.kernels.dtypes import Floats
from converters.kernels.quantize import USES_IMPORTANCE
from converters.layout import Value
from converters.types.imatrix import Imatrix
from converters.types.mixtures import Choice, Shape

_MAX_TEXT_BYTES = 127  # llama-quantize cuts there
_WATCHED_SELDOM = ("token_embd.weight", "output.weight")  # never, and only when asked for


@dataclass(frozen=True)
class Importance:
    """One tensor's part of an importance matrix; `unseen` are its matrices without data."""

    imatrix: Imatrix
    name: str
    matrices: int
    cols: int
    unseen: frozenset[int]

    def runs(self, first_row: int, rows: int, rows_a_matrix: int) -> Iterator[tuple[int, Floats]]:
        """Cut rows of the tensor where matrices end: yield how many rows, and their weights."""
        row, end = first_row, first_row + rows
        while row < end:
            matrix = row // rows_a_matrix
            count = min(end, (matrix + 1) * rows_a_matrix) - row
            yield count, self._weights(matrix)
            row += count

    def _weights(self, matrix: int) -> Floats:
        means = self.imatrix.means(self.name, matrix, self.cols)
        return np.ones(self.cols, np.float32) if means is None else means


def match_importance(imatrix: Imatrix, tensors: Iterable[Shape]) -> dict[str, Importance]:
    """Return the importance of every tensor that the matrix has data for, all values checked.

    Raises ConvertError where sizes do not match, by name, and where nothing does.
    """
    matched: dict[str, Importance] = {}
    known = False
    for tensor in tensors:
        entry = imatrix.entries.get(tensor.name)
        if entry is None:
            continue
        known = True
        cols, matrices = tensor.shape[-1], math.prod(tensor.shape[:-2])
        if entry.values != cols * matrices or len(entry.counts) not in (1, matrices):
            if tensor.name == "token_embd.weight":  # as llama-quantize does
                continue
            raise ConvertError(
                f"{imatrix.path}: the importance of {tensor.name} has {entry.values:,} values and "
                f"{len(entry.counts)} counts, but it has {cols:,} columns in {matrices} matrices: "
                "the file belongs to another model"
            )
        unseen = frozenset(
            matrix for matrix in range(matrices) if imatrix.means(tensor.name, matrix, cols) is None
        )
        if len(unseen) < matrices:
            matched[tensor.name] = Importance(imatrix, tensor.name, matrices, cols, unseen)
    if not known:
        raise ConvertError(f"{imatrix.path} names no tensor of this model: it belongs to another")
    return matched


def imatrix_metadata(imatrix: Imatrix) -> dict[str, Value]:
    """Return what llama-quantize writes about the matrix that it used, and its fingerprint."""
    values: dict[str, Value] = {"quantize.imatrix.file": _cut(str(imatrix.path))}
    if imatrix.datasets:
        values["quantize.imatrix.dataset"] = _cut(imatrix.datasets[0])
    values["quantize.imatrix.entries_count"] = len(imatrix.entries)
    if imatrix.chunks > 0:
        values["quantize.imatrix.chunks_count"] = imatrix.chunks
    values["localseek.imatrix.fingerprint"] = imatrix.fingerprint
    return values


def importance_warnings(
    imatrix: Imatrix,
    matched: Mapping[str, Importance],
    tensors: Iterable[Shape],
    choices: Mapping[str, Choice],
) -> tuple[str, ...]:
    """Say once each what was never seen, what has no data, and which data has no tensor."""
    names = [tensor.name for tensor in tensors]
    warnings: list[str] = []
    partly = [matched[name] for name in names if name in matched and matched[name].unseen]
    if partly:
        count, first = sum(len(one.unseen) for one in partly), partly[0]
        warnings.append(
            f"the importance matrix never saw {count} of {sum(one.matrices for one in partly)} "
            f"experts in {_listed([one.name for one in partly])} ({len(first.unseen)} of "
            f"{first.matrices} in the first): all their columns count alike"
        )
    lacking = [
        name
        for name in names
        if name not in matched
        and (choices[name].instead_of or choices[name].kind in USES_IMPORTANCE)
        and (choices[name].instead_of or name not in _WATCHED_SELDOM)
    ]
    if lacking:
        fallen = sorted(
            {
                f"{choice.instead_of.name} → {choice.kind.name}"
                for choice in (choices[name] for name in lacking)
                if choice.instead_of
            }
        )
        types = f", in a type that needs none ({', '.join(fallen)})" if fallen else ""
        warnings.append(
            f"the importance matrix has no data for {_listed(lacking)}: quantized without{types}"
        )
    unknown = sorted(imatrix.entries.keys() - set(names))
    if unknown:
        warnings.append(f"the importance matrix has data for {_listed(unknown)}, not in this model")
    return tuple(warnings)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} tensors ({names[0]}, …)"


def _cut(text: str) -> str:
    return text.encode()[:_MAX_TEXT_BYTES].decode(errors="ignore")
