"""A PyTorch checkpoint file (`.bin`, the zip format since torch 1.6) → where its tensors lie.

Takes an open file, gives tensors as (dtype, shape, offset, size), for members are stored as they
are: bytes can be read by position as from safetensors. Directory and members are checked against
the file's bounds here; data.pkl is read by torch_pickle.py, which runs nothing.
Does not read weights, nor know what they mean. Layout of zip files: PKWARE's APPNOTE 6.3, sections
4.3.7 to 4.3.16 and 4.5.3.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from converters.errors import ConvertError
from converters.source.source import StoredTensor
from converters.source.torch_pickle import MAX_BYTES, PickleError, StridedTensor, read_tensors

# torch's storages → the names that safetensors has for their dtypes, and bytes a value.
_DTYPES = {
    "FloatStorage": ("F32", 4), "HalfStorage": ("F16", 2), "BFloat16Storage": ("BF16", 2),
    "DoubleStorage": ("F64", 8), "LongStorage": ("I64", 8), "IntStorage": ("I32", 4),
    "ShortStorage": ("I16", 2), "CharStorage": ("I8", 1), "ByteStorage": ("U8", 1),
    "BoolStorage": ("BOOL", 1),
}  # fmt: skip
_MAX_DIRECTORY_BYTES = 16_000_000
_TAIL_BYTES = 22 + 65_535  # the end record and the longest comment
_FULL_32 = 0xFFFFFFFF  # the value stands in the 64-bit record instead


@dataclass(frozen=True)
class _Member:
    """A file inside the zip: where its bytes lie."""

    offset: int
    size: int


@dataclass(frozen=True)
class _Entry:
    """A row of the directory; `start` is where the member's own header lies."""

    name: str
    start: int
    size: int


def read_torch_file(path: Path, file: int) -> Iterator[StoredTensor]:
    """Yield a file's tensors; raise ConvertError for all that is not a plain dict of weights."""
    size = os.fstat(file).st_size
    entries = {entry.name: entry for entry in _read_directory(path, file, size)}
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ConvertError(f"{path} holds {len(pickles)} data.pkl: no file of torch.save")
    prefix = pickles[0].removesuffix("data.pkl")
    pickle = _locate(path, file, size, entries[pickles[0]])
    if pickle.size > MAX_BYTES:
        raise ConvertError(f"{path}: its data.pkl has {pickle.size} bytes, above {MAX_BYTES}")
    if f"{prefix}byteorder" in entries:
        order = _locate(path, file, size, entries[f"{prefix}byteorder"])
        if os.pread(file, min(order.size, 16), order.offset) != b"little":
            raise ConvertError(f"{path} is not little-endian: save it on a little-endian machine")
    try:
        described = read_tensors(os.pread(file, pickle.size, pickle.offset))
    except PickleError as error:
        raise ConvertError(f"{path}: its data.pkl {error}") from error
    members: dict[str, _Member] = {}
    for name, tensor in described.items():
        key = tensor.storage.key
        if key not in members:
            entry = entries.get(f"{prefix}data/{key}")
            if entry is None:
                raise ConvertError(f"{path} lacks the storage {key[:60]!r} of {name}")
            members[key] = _locate(path, file, size, entry)
        yield _place(path, name, tensor, members[key])


def _place(path: Path, name: str, tensor: StridedTensor, member: _Member) -> StoredTensor:
    """Check a tensor against its storage and give it its place in the file."""
    if tensor.storage.kind not in _DTYPES:
        raise ConvertError(f"{name} in {path} is a {tensor.storage.kind[:60]!r}, not supported")
    dtype, item = _DTYPES[tensor.storage.kind]
    expected = 1
    for length, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if length > 1 and stride != expected:
            raise ConvertError(
                f"{name} in {path} is stored transposed or with gaps: save the model as safetensors"
            )
        expected *= length
    count = math.prod(tensor.shape)
    end = (tensor.offset + count) * item
    if end > member.size or tensor.storage.count * item != member.size:
        raise ConvertError(
            f"{name} in {path} needs {end} bytes of a storage of {member.size}: download it again"
        )
    start = member.offset + tensor.offset * item
    return StoredTensor(name, dtype, tensor.shape, path, start, count * item)


def _read_directory(path: Path, file: int, size: int) -> list[_Entry]:
    """Read the directory at the end of the file, with its 64-bit record if it has one."""
    if os.pread(file, 4, 0) != b"PK\x03\x04":
        raise ConvertError(
            f"{path} is truncated, or was written by torch before 1.6: load and save it with torch"
        )
    tail_start = max(0, size - _TAIL_BYTES)
    tail = os.pread(file, _TAIL_BYTES, tail_start)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise ConvertError(f"{path} is truncated: it has no zip directory; download it again")
    disk, _, _, count, length, start, _ = struct.unpack("<4H2IH", tail[at + 4 : at + 22])
    record = tail_start + at
    locator = os.pread(file, 20, record - 20) if record >= 20 else b""
    if locator[:4] == b"PK\x06\x07":
        record = struct.unpack("<8xQ4x", locator)[0]
        end = os.pread(file, 56, record) if record <= size - 56 else b""
        if end[:4] != b"PK\x06\x06":
            raise _broken(path)
        disk, _, _, count, length, start = struct.unpack("<16x2I4Q", end)
    if disk or length > _MAX_DIRECTORY_BYTES or start + length > record:
        raise _broken(path)
    entries = list(_entries(path, os.pread(file, length, start)))
    if len(entries) != count or len({entry.name for entry in entries}) != count:
        raise _broken(path)
    return entries


def _entries(path: Path, directory: bytes) -> Iterator[_Entry]:
    at = 0
    while at < len(directory):
        head = directory[at : at + 46]
        if len(head) < 46 or head[:4] != b"PK\x01\x02":
            raise _broken(path)
        flags, method = struct.unpack("<2H", head[8:12])
        packed, size, n_name, n_extra, n_comment = struct.unpack("<2I3H", head[20:34])
        (start,) = struct.unpack("<I", head[42:46])
        extra = directory[at + 46 + n_name : at + 46 + n_name + n_extra]
        name = directory[at + 46 : at + 46 + n_name].decode("utf-8", "replace")
        size, packed, start = _widened(path, extra, (size, packed, start))
        if method or flags & 1 or packed != size:
            raise ConvertError(
                f"{path}: {name[:80]!r} is compressed or encrypted, not by torch.save"
            )
        yield _Entry(name, start, size)
        at += 46 + n_name + n_extra + n_comment


def _widened(path: Path, extra: bytes, values: tuple[int, ...]) -> list[int]:
    """Replace the values that do not fit 32 bits by those of the 64-bit extra field, in order."""
    wide = b""
    while len(extra) >= 4:
        kind, length = struct.unpack("<2H", extra[:4])
        if kind == 1:
            wide = extra[4 : 4 + length]
        extra = extra[4 + length :]
    found: list[int] = []
    for value in values:
        if value != _FULL_32:
            found.append(value)
            continue
        if len(wide) < 8:
            raise _broken(path)
        found.append(struct.unpack("<Q", wide[:8])[0])
        wide = wide[8:]
    return found


def _locate(path: Path, file: int, size: int, entry: _Entry) -> _Member:
    """Find where a member's bytes begin, behind its own header."""
    head = os.pread(file, 30, entry.start) if entry.start < size else b""
    if len(head) < 30 or head[:4] != b"PK\x03\x04":
        raise _broken(path)
    n_name, n_extra = struct.unpack("<2H", head[26:30])
    offset = entry.start + 30 + n_name + n_extra
    if offset + entry.size > size:
        raise ConvertError(
            f"{path} is truncated: {entry.name[:80]!r} ends at byte {offset + entry.size}, the "
            f"file at {size}; download it again"
        )
    return _Member(offset, entry.size)


def _broken(path: Path) -> ConvertError:
    return ConvertError(f"{path} has a broken zip directory: download it again")
