"""The table of tensors at the head of a safetensors file, checked in full before it is trusted.

Takes an open file, or its first bytes and the size of the whole. Gives every tensor with its dtype,
shape and place: sizes, bounds, overlaps and overflow are checked. The format is eight bytes with
the length of a JSON object, the object, then the data (safetensors' README).
Does not read data, nor know what the tensors mean.
"""

from __future__ import annotations

import json
import math
import os
import struct
from pathlib import Path
from typing import Any

from converters.errors import ConvertError
from converters.source.source import StoredTensor

# Bytes an element, for every dtype that the safetensors format names.
ITEM_SIZES: dict[str, int] = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip

_LENGTH_BYTES = 8
_MAX_TABLE_BYTES = 100_000_000  # the limit that the safetensors library itself sets


def read_table(path: Path, file: int, file_bytes: int) -> bytes:
    """Read the bytes before the data; raise ConvertError if a file of that size has none."""
    head = os.pread(file, _LENGTH_BYTES, 0)
    length = struct.unpack("<Q", head)[0] if len(head) == _LENGTH_BYTES else 0
    if not 2 <= length <= min(_MAX_TABLE_BYTES, file_bytes - _LENGTH_BYTES):
        raise ConvertError(f"{path} is truncated, or not a safetensors file: download it again")
    return head + os.pread(file, length, _LENGTH_BYTES)


def parse_table(path: Path, table: bytes, file_bytes: int, shard: Path) -> list[StoredTensor]:
    """Return the tensors of `shard` in stored order; `path` is where the table was read."""
    try:
        header = json.loads(table[_LENGTH_BYTES:], object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise ConvertError(f"{path} has a broken safetensors header ({error})") from error
    if not isinstance(header, dict):
        raise ConvertError(f"{path} has a broken safetensors header (not an object)")
    header.pop("__metadata__", None)
    end = len(table)
    tensors = [_read_entry(path, name, entry, end, shard) for name, entry in header.items()]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.size_bytes))
    for tensor in tensors:
        if tensor.offset < end:
            raise ConvertError(f"{tensor.name} overlaps another tensor in {path}: broken header")
        end = tensor.offset + tensor.size_bytes
        if end > file_bytes:
            raise ConvertError(
                f"{path} is truncated: {tensor.name} ends at byte {end}, the file at {file_bytes}; "
                "download it again"
            )
    return tensors


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs; raise ValueError for a name that appears twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name appears twice")
    return found


def _read_entry(
    path: Path, name: str, entry: Any, data_start: int, shard: Path
) -> StoredTensor:
    """Check one header entry: known dtype, sane shape, and offsets that agree with both."""
    where = f"{name} in {path}"
    if not isinstance(entry, dict):
        raise ConvertError(f"{where} has a broken header entry")
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in ITEM_SIZES:
        raise ConvertError(f"{where} has the unknown dtype {dtype!r}")
    shape, offsets = _sizes(entry.get("shape")), _sizes(entry.get("data_offsets"))
    if shape is None or offsets is None or len(offsets) != 2:
        raise ConvertError(f"{where} has a broken shape or offsets")
    begin, end = offsets
    if end - begin != math.prod(shape) * ITEM_SIZES[dtype]:
        raise ConvertError(f"{where}: {end - begin} bytes do not hold {dtype} {list(shape)}")
    return StoredTensor(name, dtype, shape, shard, data_start + begin, end - begin)


def _sizes(value: Any) -> tuple[int, ...] | None:
    """Return a JSON list of plausible sizes as a tuple, or None (bool is an int in Python)."""
    if not isinstance(value, list):
        return None
    if any(type(item) is not int or not 0 <= item < 1 << 48 for item in value):
        return None
    return tuple(value)
