"""The head of a GGUF file: magic, metadata and tensor table, as bytes and back.

Takes metadata and tensor entries, gives the bytes that stand before the data (format version 3,
little-endian: ggml/docs/gguf.md). The reading side is independent of the writing one and serves
to check a finished file. Metadata is typed by its Python value: bool, int, float, str, and tuples
of str or int become BOOL, UINT32, FLOAT32, STRING, and arrays of STRING or INT32.
Does not know models or tensor data.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from gguf import GGUFValueType

from converters.errors import ConvertError
from converters.layout import Metadata, Value

ALIGNMENT = 32  # GGUF's default; another one needs the key general.alignment
MAX_NAME_BYTES = 63  # GGML_MAX_NAME less the closing zero
_MAGIC = b"GGUF"
_VERSION = 3
_FIXED_BYTES = {
    GGUFValueType.UINT8: 1, GGUFValueType.INT8: 1, GGUFValueType.BOOL: 1,
    GGUFValueType.UINT16: 2, GGUFValueType.INT16: 2,
    GGUFValueType.UINT32: 4, GGUFValueType.INT32: 4, GGUFValueType.FLOAT32: 4,
    GGUFValueType.UINT64: 8, GGUFValueType.INT64: 8, GGUFValueType.FLOAT64: 8,
}  # fmt: skip


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
        if isinstance(value, str):
            return struct.pack("<I", GGUFValueType.STRING) + _text(value)
        return _array(value)
    except (struct.error, OverflowError, UnicodeEncodeError) as error:
        raise ConvertError(f"{key} cannot be written as GGUF metadata: {error}") from error


def _array(items: tuple[str, ...] | tuple[int, ...]) -> bytes:
    texts = [item for item in items if isinstance(item, str)]
    # Only merges can be empty, and they are texts.
    kind = GGUFValueType.INT32 if items and not texts else GGUFValueType.STRING
    head = struct.pack("<IIQ", GGUFValueType.ARRAY, kind, len(items))
    if kind == GGUFValueType.STRING:
        return head + b"".join(_text(item) for item in texts)
    return head + struct.pack(f"<{len(items)}i", *items)


@dataclass(frozen=True)
class Head:
    """What a file says about itself before the data."""

    n_metadata: int
    entries: tuple[Entry, ...]
    data_start: int


def read_head(file: BinaryIO, alignment: int = ALIGNMENT) -> Head:
    """Read a head back, skipping the metadata values; raise ValueError if it is malformed."""
    if file.read(4) != _MAGIC:
        raise ValueError("the magic is not GGUF")
    version, n_tensors, n_metadata = _unpack(file, "<IQQ")
    if version != _VERSION:
        raise ValueError(f"the version is {version}")
    for _ in range(n_metadata):
        _read_text(file)
        _skip_value(file, GGUFValueType(_unpack(file, "<I")[0]))
    entries = []
    for _ in range(n_tensors):
        name = _read_text(file)
        (n_dims,) = _unpack(file, "<I")
        *dims, kind, offset = _unpack(file, f"<{n_dims}QIQ")
        entries.append(Entry(name, tuple(reversed(dims)), kind, offset))
    return Head(n_metadata, tuple(entries), padded(file.tell(), alignment))


def _unpack(file: BinaryIO, layout: str) -> tuple[int, ...]:
    data = file.read(struct.calcsize(layout))
    try:
        return struct.unpack(layout, data)
    except struct.error as error:
        raise ValueError("it ends too early") from error


def _read_text(file: BinaryIO) -> str:
    return file.read(_unpack(file, "<Q")[0]).decode()


def _skip_value(file: BinaryIO, kind: GGUFValueType) -> None:
    if kind == GGUFValueType.STRING:
        file.seek(_unpack(file, "<Q")[0], 1)
    elif kind == GGUFValueType.ARRAY:
        item, count = _unpack(file, "<IQ")
        if item == GGUFValueType.STRING:
            for _ in range(count):
                _skip_value(file, GGUFValueType.STRING)
        else:
            file.seek(count * _FIXED_BYTES[GGUFValueType(item)], 1)
    else:
        file.seek(_FIXED_BYTES[kind], 1)
