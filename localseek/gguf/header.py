"""The header of a GGUF file as the runtime wants it: metadata by meaning, tensors by place.

Takes a path, gives a `Header`; head.py has checked every bound before. Long arrays stay in the
file until they are asked for. Knows nothing about models.
"""

import math
import mmap
from dataclasses import dataclass
from pathlib import Path

from localseek.errors import ModelError
from localseek.gguf.head import (
    ARRAY,
    GGML_TYPES,
    Field,
    HeadError,
    Scalar,
    elements,
    meaning,
    opened,
    raw_texts,
)

EAGER_ITEMS = 64  # arrays up to this long are read at once


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array that stays in the file: its element type, length and place."""

    path: Path
    kind: int
    count: int
    start: int
    end: int

    def read(self) -> tuple[Scalar, ...]:
        """Read the elements from the file; raises ModelError."""
        try:
            return elements(self.kind, self.count, self._bytes())
        except ValueError as error:
            raise ModelError(f"{self.path} changed while it was read.", "Try again.") from error

    def read_raw_texts(self) -> list[bytes]:
        """Read an array of texts as stored, without decoding; raises ModelError."""
        try:
            return raw_texts(self.count, self._bytes())
        except ValueError as error:
            raise ModelError(f"{self.path} changed while it was read.", "Try again.") from error

    def _bytes(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.end - self.start)


Value = Scalar | tuple[Scalar, ...] | StoredArray


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as the header describes it; `shape` innermost first, `offset` in the file."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    size_bytes: int

    @property
    def elements(self) -> int:
        """Count the elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """All of a GGUF file that comes before the tensors' data."""

    path: Path
    version: int
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]
    size_bytes: int


def read_header(path: Path) -> Header:
    """Read and check the header of the GGUF file `path`; raises ModelError with the reason."""
    try:
        with opened(path) as (head, buffer):
            metadata = {key: _value(path, one, buffer) for key, one in head.fields.items()}
            size_bytes = len(buffer)
    except HeadError as error:
        raise ModelError(f"{error.message}.", error.hint) from error
    tensors = (
        Tensor(
            one.name, one.shape, GGML_TYPES[one.kind][0], head.data_start + one.offset,
            one.size_bytes,
        )
        for one in head.tensors
    )  # fmt: skip
    return Header(path, head.version, metadata, tuple(tensors), size_bytes)


def _value(path: Path, field: Field, buffer: mmap.mmap) -> Value:
    if field.kind == ARRAY and field.count > EAGER_ITEMS:
        return StoredArray(path, field.item, field.count, field.first, field.end)
    return meaning(field.kind, buffer[field.start : field.end])
