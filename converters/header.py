"""The head of a GGUF file as bytes: magic, metadata and tensor table.

Takes metadata and tensor entries, gives the bytes that stand before the data (format version 3,
little-endian: ggml/docs/gguf.md). Metadata is typed by its Python value: bool, int, float, str, and
tuples of these but bool become BOOL, UINT32, FLOAT32, STRING, and arrays of STRING, INT32 or
FLOAT32; a RawValue is copied. gguf_reader.py reads heads back.
Does not know models or tensor data.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from gguf import GGUFValueType

from converters.errors import ConvertError
from converters.layout import Metadata, RawValue, Value

ALIGNMENT = 32  # GGUF's default; another one needs the key general.alignment
MAX_NAME_BYTES = 63  # GGML_MAX_NAME less the closing zero
_MAGIC = b"GGUF"
_VERSION = 3


@dataclass(frozen=True)
class Entry:
    """One row of the tensor table; `offset` counts from the start of the data."""

    name: str
    shape: tuple[int, ...]  # outermost first
    kind: int  # ggml type number
    offset: int


def padded(size: int, alignment: int = ALIGNMENT) -> int:
    """Round a size up to the alignment."""
    return -(-size // alignment) * alignment


def encode_head(metadata: Metadata, entries: Sequence[Entry], alignment: int = ALIGNMENT) -> bytes:
    """Return everything before the tensor data, padding included."""
    parts = [_MAGIC, struct.pack("<IQQ", _VERSION, len(entries), len(metadata))]
    for key, value in metadata.items():
        parts += [_text(key), _value(key, value)]
    for entry in entries:
        if len(entry.name.encode()) > MAX_NAME_BYTES:
            raise ConvertError(f"{entry.name} is longer than {MAX_NAME_BYTES} bytes")
        dims = tuple(reversed(entry.shape))
        layout = f"<I{len(dims)}QIQ"
        parts += [
            _text(entry.name),
            struct.pack(layout, len(dims), *dims, entry.kind, entry.offset),
        ]
    head = b"".join(parts)
    return head.ljust(padded(len(head), alignment), b"\0")


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(key: str, value: Value) -> bytes:
    try:
        if isinstance(value, bool):  # before int: a bool is one
            return struct.pack("<I?", GGUFValueType.BOOL, value)
        if isinstance(value, int):
            return struct.pack("<II", GGUFValueType.UINT32, value)
        if isinstance(value, float):
            return struct.pack("<If", GGUFValueType.FLOAT32, value)
        if isinstance(value, RawValue):
            return struct.pack("<I", value.kind) + value.data
        if isinstance(value, str):
            return struct.pack("<I", GGUFValueType.STRING) + _text(value)
        return _array(value)
    except (struct.error, OverflowError, UnicodeEncodeError) as error:
        raise ConvertError(f"{key} cannot be written as GGUF metadata: {error}") from error


def _array(items: tuple[str, ...] | tuple[int, ...] | tuple[float, ...]) -> bytes:
    texts = [item for item in items if isinstance(item, str)]
    # Only merges can be empty, and they are texts.
    kind = GGUFValueType.INT32 if items and not texts else GGUFValueType.STRING
    if any(isinstance(item, float) for item in items):
        kind = GGUFValueType.FLOAT32
    head = struct.pack("<IIQ", GGUFValueType.ARRAY, kind, len(items))
    if kind == GGUFValueType.STRING:
        return head + b"".join(_text(item) for item in texts)
    code = "f" if kind == GGUFValueType.FLOAT32 else "i"
    return head + struct.pack(f"<{len(items)}{code}", *items)
