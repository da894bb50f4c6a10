"""The head of a GGUF file as a conversion wants it: each metadata value as its bytes.

Takes a path, gives the tensor table and the metadata: a conversion copies what it does not
understand, exactly. Every bound is checked by the reader that the runtime uses too, the one thing
of localseek that this package knows (localseek/gguf/head.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from converters.errors import ConvertError
from converters.header import Entry
from converters.kernels.dequantize import block_of
from converters.layout import RawValue
from localseek.gguf.head import HeadError, Scalar, meaning, opened


@dataclass(frozen=True)
class Head:
    """What a file says about itself before the data; `end` is where the last tensor ends."""

    metadata: dict[str, RawValue]
    entries: tuple[Entry, ...]
    sizes: tuple[int, ...]  # bytes of each tensor
    alignment: int
    data_start: int
    end: int


def read_head(path: Path) -> Head:
    """Read and check a file's head; raise ConvertError saying what is wrong with it."""
    try:
        with opened(path) as (head, buffer):
            metadata = {
                key: RawValue(one.kind, buffer[one.start : one.end])
                for key, one in head.fields.items()
            }
    except HeadError as error:
        hint = error.hint[:1].lower() + error.hint[1:].rstrip(".")
        raise ConvertError(f"{error.message}; {hint}" if hint else error.message) from error
    for one in head.tensors:
        if block_of(one.kind) is None:
            raise ConvertError(
                f"{path}: tensor {one.name} has the type {one.kind}, "
                "which this ggml does not know"
            )
    return Head(
        metadata,
        tuple(
            Entry(one.name, tuple(reversed(one.shape)), one.kind, one.offset)
            for one in head.tensors
        ),
        tuple(one.size_bytes for one in head.tensors),
        head.alignment,
        head.data_start,
        head.end,
    )


def decode_value(value: RawValue) -> Scalar | tuple[Scalar, ...]:
    """Return what a value means: a scalar or a tuple of scalars."""
    return meaning(value.kind, value.data)
