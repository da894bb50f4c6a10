"""The head of a GGUF file, read with every bound checked before anything is believed.

Takes a path, gives the tensor table and the metadata, each value as its bytes: a conversion copies
what it does not understand, exactly. Layout and rules are those of ggml/docs/gguf.md and of the
loader in ggml/src/gguf.cpp. localseek/gguf/header.py reads the same layout for the runtime; the
two packages do not know each other, and there a value is its meaning while its bytes stay behind.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from gguf import GGUFValueType

from converters.errors import ConvertError
from converters.header import ALIGNMENT, MAX_NAME_BYTES, Entry, padded
from converters.kernels.dequantize import block_of
from converters.layout import RawValue
from converters.source.folders import LFS_POINTER, refuse_pointer

Scalar = bool | int | float | str

_SCALARS = {
    GGUFValueType.UINT8: "<B", GGUFValueType.INT8: "<b", GGUFValueType.BOOL: "<?",
    GGUFValueType.UINT16: "<H", GGUFValueType.INT16: "<h",
    GGUFValueType.UINT32: "<I", GGUFValueType.INT32: "<i", GGUFValueType.FLOAT32: "<f",
    GGUFValueType.UINT64: "<Q", GGUFValueType.INT64: "<q", GGUFValueType.FLOAT64: "<d",
}  # fmt: skip
_MAX_HEAD_BYTES = 1 << 28  # the largest known vocabularies take 20 MB; a head is held in memory
_MAX_KEY_BYTES = 65_535  # the specification's limit
_MAX_DIMS = 4
_MAX_DEPTH = 4  # of arrays inside arrays, which the format allows and llama.cpp refuses
_MIN_PAIR_BYTES, _MIN_TENSOR_BYTES = 14, 25  # the shortest possible entries bound the counts


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
        with path.open("rb") as file:
            if path.stat().st_size < struct.calcsize("<4sIQQ"):
                raise ConvertError(f"{path} is not a GGUF file: it has {path.stat().st_size} bytes")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
                return _read(_Reader(path, buffer))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConvertError(f"cannot read {path}: {reason}") from error


def decode_value(value: RawValue) -> Scalar | tuple[Scalar, ...] | None:
    """Return what a value means: a scalar or a tuple of scalars; None for nested arrays."""
    kind = GGUFValueType(value.kind)
    if kind in _SCALARS:
        (found,) = struct.unpack(_SCALARS[kind], value.data)
        return found  # type: ignore[no-any-return]  # struct cannot say what a format gives
    if kind == GGUFValueType.STRING:
        return value.data[8:].decode("utf-8", "replace")
    item, count = struct.unpack_from("<IQ", value.data)
    if item in _SCALARS:
        layout = _SCALARS[GGUFValueType(item)]
        return struct.unpack_from(f"<{count}{layout[1]}", value.data, 12)
    if item != GGUFValueType.STRING:
        return None
    texts, at = [], 12
    for _ in range(count):
        start = at + 8
        at = start + int(struct.unpack_from("<Q", value.data, at)[0])
        texts.append(value.data[start:at].decode("utf-8", "replace"))
    return tuple(texts)


class _Reader:
    """A place in a file that moves forward only and never beyond its end."""

    def __init__(self, path: Path, buffer: mmap.mmap) -> None:
        self.path, self.buffer = path, buffer
        self.size = len(buffer)
        self.at = 0

    def damaged(self, what: str) -> ConvertError:
        return ConvertError(f"{self.path} is damaged: {what}; download or convert it again")

    def advance(self, size: int, what: str) -> int:
        """Go `size` bytes on and return where they begin."""
        start = self.at
        if size > self.size - start:
            raise self.damaged(f"{what} claims {size:,} bytes, {self.size - start:,} are left")
        if start + size > _MAX_HEAD_BYTES:
            raise self.damaged(f"its head has more than {_MAX_HEAD_BYTES:,} bytes")
        self.at += size
        return start

    def numbers(self, layout: str) -> tuple[int, ...]:
        return struct.unpack_from(
            layout, self.buffer, self.advance(struct.calcsize(layout), "the head")
        )

    def text(self, limit: int, what: str) -> str:
        (length,) = self.numbers("<Q")
        if not 0 < length <= limit:
            raise self.damaged(f"{what} has {length:,} bytes, not 1 to {limit:,}")
        start = self.advance(length, what)
        try:
            found = self.buffer[start : self.at].decode()
        except UnicodeDecodeError as error:
            raise self.damaged(f"{what} is not valid UTF-8") from error
        if not found.isprintable():
            raise self.damaged(f"{what} holds control characters")
        return found

    def skip_value(self, kind: int, key: str, depth: int = 0) -> None:
        """Go past a value of a type."""
        if kind == GGUFValueType.STRING:
            self.advance(self.numbers("<Q")[0], key)
        elif kind == GGUFValueType.ARRAY and depth < _MAX_DEPTH:
            item, count = self.numbers("<IQ")
            if item in _SCALARS:
                self.advance(count * struct.calcsize(_SCALARS[GGUFValueType(item)]), key)
                return
            if count > (self.size - self.at) // 8:  # each item begins with its length
                raise self.damaged(f"{key} claims {count:,} items")
            for _ in range(count):
                self.skip_value(item, key, depth + 1)
        elif kind in _SCALARS:
            self.advance(struct.calcsize(_SCALARS[GGUFValueType(kind)]), key)
        else:
            raise self.damaged(f"{key} has the value type {kind}, unknown or nested too deeply")


def _read(reader: _Reader) -> Head:
    refuse_pointer(reader.path, reader.buffer[: len(LFS_POINTER)])
    if reader.buffer[:4] != b"GGUF":
        raise ConvertError(f"{reader.path} is not a GGUF file")
    reader.at = 4
    (version,) = reader.numbers("<I")
    if version not in (2, 3):
        why = "big-endian" if version and version & 0xFFFF == 0 else f"of version {version}"
        raise ConvertError(f"{reader.path} is {why}: only little-endian versions 2 and 3 are read")
    n_tensors, n_pairs = reader.numbers("<QQ")
    if n_tensors > reader.size // _MIN_TENSOR_BYTES or n_pairs > reader.size // _MIN_PAIR_BYTES:
        raise reader.damaged(f"it claims {n_tensors:,} tensors and {n_pairs:,} metadata entries")
    metadata = _read_metadata(reader, n_pairs)
    alignment = ALIGNMENT
    if stated := metadata.get("general.alignment"):
        found = decode_value(stated)
        if stated.kind != GGUFValueType.UINT32 or not isinstance(found, int) or not found:
            raise reader.damaged("its general.alignment is no count")
        alignment = found
        if alignment & (alignment - 1):
            raise reader.damaged(f"its alignment {alignment} is not a power of two")
    entries = _read_entries(reader, n_tensors)
    start = padded(reader.at, alignment)
    sizes, expected, end = [], 0, reader.at
    for entry in entries:
        size = _size_of(reader, entry)
        if entry.offset != expected:  # the loader's rule: in order, no gaps, so nothing overlaps
            raise reader.damaged(f"{entry.name} lies at {entry.offset:,}, not at {expected:,}")
        sizes.append(size)
        end = start + expected + size
        expected += padded(size, alignment)
    if end > reader.size:
        raise ConvertError(
            f"{reader.path} is truncated: {end - reader.size:,} of {end:,} bytes are missing; "
            "download or copy it again"
        )
    return Head(metadata, tuple(entries), tuple(sizes), alignment, start, end)


def _read_metadata(reader: _Reader, n_pairs: int) -> dict[str, RawValue]:
    metadata: dict[str, RawValue] = {}
    for _ in range(n_pairs):
        key = reader.text(_MAX_KEY_BYTES, "a metadata key")
        if key in metadata:
            raise reader.damaged(f"the metadata key {key[:80]} is there twice")
        (kind,) = reader.numbers("<I")
        start = reader.at
        reader.skip_value(kind, key[:80])
        metadata[key] = RawValue(kind, reader.buffer[start : reader.at])
    return metadata


def _read_entries(reader: _Reader, n_tensors: int) -> list[Entry]:
    entries: list[Entry] = []
    names: set[str] = set()
    for _ in range(n_tensors):
        name = reader.text(MAX_NAME_BYTES, "a tensor name")
        if name in names:
            raise reader.damaged(f"the tensor {name} is there twice")
        names.add(name)
        (n_dims,) = reader.numbers("<I")
        if n_dims > _MAX_DIMS:
            raise reader.damaged(f"{name} claims {n_dims} dimensions, at most 4 are possible")
        *dims, kind, offset = reader.numbers(f"<{n_dims}QIQ")
        entries.append(Entry(name, tuple(reversed(dims)) or (1,), kind, offset))
    return entries


def _size_of(reader: _Reader, entry: Entry) -> int:
    """Return a tensor's bytes after checking its type and shape."""
    block = block_of(entry.kind)
    if block is None:
        raise ConvertError(
            f"{reader.path}: {entry.name} has the type {entry.kind}, which this ggml does not know"
        )
    elements = math.prod(entry.shape)
    if not 0 < elements < 1 << 63:
        raise reader.damaged(f"{entry.name} has the impossible shape {list(entry.shape)}")
    if entry.shape[-1] % block.length:
        raise reader.damaged(f"{entry.name} has rows of {entry.shape[-1]:,} in {block.name}")
    return elements // block.length * block.size_bytes
