"""What a model family says about its tensors: targets made of pieces of stored tensors.

A target is one tensor of the GGUF file; its pieces follow each other along the outer dimension,
so that a stack of experts or a split projection is described without holding any data.
Shapes are outermost first, as in safetensors; GGUF lists them the other way round.
Does not know types, offsets or bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class RawValue:
    """A metadata value as another GGUF file stores it: the number of its type, and its bytes."""

    kind: int
    data: bytes


# A GGUF metadata value; bool, int, float and str stand for BOOL, UINT32, FLOAT32 and STRING.
Value = bool | int | float | str | tuple[str, ...] | tuple[int, ...] | tuple[float, ...] | RawValue
Metadata = Mapping[str, Value]


@dataclass(frozen=True)
class Piece:
    """Rows of one stored tensor, transposed or as they are; `rows` None means all of them."""

    source: str
    shape: tuple[int, ...]  # that the checkpoint must have for the source
    first_row: int = 0
    rows: int | None = None
    transpose: bool = False
    # Rows of a head whose two halves are dealt out alternately (0, h/2, 1, h/2 + 1, …): rope turns
    # value i with value i + h/2 in such a checkpoint, and neighbours in llama.cpp. 0: as stored.
    interleave: int = 0
    column: int = 0  # of the target at which a row begins, where pieces stand side by side

    @property
    def row_count(self) -> int:
        """Number of source rows; a vector is one row."""
        if self.rows is not None:
            return self.rows
        return math.prod(self.shape[:-1])

    @property
    def cols(self) -> int:
        """Length of a source row."""
        return self.shape[-1]

    @property
    def elements(self) -> int:
        """Number of values."""
        return self.row_count * self.cols


@dataclass(frozen=True)
class Target:
    """One tensor to write, from pieces that fill it exactly, or a vector of computed F32 values."""

    name: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]
    values: tuple[float, ...] = ()
    below: int = 0  # not 0: a table of whole numbers from 0 and under this, written as I32


@dataclass(frozen=True)
class Dropped:
    """A stored tensor that is left out on purpose, with the reason."""

    source: str
    why: str


@dataclass(frozen=True)
class Described:
    """A family's metadata and what the user should know about it."""

    values: Metadata
    warnings: tuple[str, ...] = ()


def computed(name: str, values: tuple[float, ...]) -> Target:
    """Describe a vector that no checkpoint stores."""
    return Target(name, (len(values),), (), values)


def whole(name: str, source: str, *shape: int) -> Target:
    """Describe a target that is one stored tensor, unchanged."""
    return Target(name, shape, (Piece(source, shape),))
