"""A Hugging Face checkpoint folder: which tensors its shards hold, and where.

Takes a folder with safetensors, or with PyTorch's .bin files where there are none. Gives the JSON
files beside the weights and, for every tensor, its dtype, shape and place in a shard; bytes are
read only when asked for, by position, so nothing is loaded whole. Every header is checked in full
before it is trusted: sizes, bounds, overlaps, overflow.
Does not know what the tensors mean, nor how their dtypes are decoded.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from converters.errors import ConvertError
from converters.source.folders import describe, refuse_pointer, unlisted_shards
from converters.source.source import Source, StoredTensor
from converters.source.torch_zip import read_torch_file

# Bytes an element, for every dtype that the safetensors format names.
ITEM_SIZES: dict[str, int] = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
TORCH_INDEX_NAME = "pytorch_model.bin.index.json"
TORCH_SINGLE_NAME = "pytorch_model.bin"
WEIGHT_NAMES = (INDEX_NAME, SINGLE_NAME, TORCH_INDEX_NAME, TORCH_SINGLE_NAME)  # the first counts
_MAX_NAME = 200  # characters of a shard's name, below what file systems take
_MAX_HEADER_BYTES = 100_000_000  # the limit that the safetensors library itself sets


class Checkpoint(Source):
    """An open checkpoint folder: tensor headers in memory, shards open for positioned reads."""

    def __init__(self, folder: Path, partial: bool = False) -> None:
        """Read and check all headers; raise ConvertError for anything missing or malformed.

        With `partial`, shards may be missing; `missing` says which tensors are in them.
        """
        super().__init__()
        self.folder = folder
        self.missing: dict[str, str] = {}
        self._partial = partial
        if not folder.is_dir():
            raise ConvertError(f"{folder} is not a folder: give the folder that holds config.json")
        try:
            self._open_weights()
        except BaseException:
            self.close()
            raise

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON object that must be in the folder."""
        return read_json(self.folder / name)

    def _open_weights(self) -> None:
        name = next((name for name in WEIGHT_NAMES if (self.folder / name).is_file()), None)
        if name is not None and name.endswith(".json"):
            self._open_indexed(name)
            return
        shards = [self.folder / name] if name else unlisted_shards(self.folder)
        if not shards:
            raise ConvertError(describe(self.folder))
        for shard in shards:
            self._open_shard(shard)

    def _open_indexed(self, index_name: str) -> None:
        index = read_json(self.folder / index_name)
        weight_map = index.get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ConvertError(f"{self.folder / index_name} has no weight_map: download it again")
        shards = sorted({str(shard) for shard in weight_map.values()})
        for shard in shards:
            if Path(shard).name != shard or len(shard) > _MAX_NAME or not shard.isprintable():
                raise ConvertError(f"{index_name} names the shard {shard!r}, outside its folder")
            if self._partial and not (self.folder / shard).is_file():
                self.missing |= {name: shard for name, of in weight_map.items() if of == shard}
            elif not (self.folder / shard).is_file():
                raise ConvertError(
                    f"{self.folder / shard} is missing ({len(shards)} shards in {index_name}): "
                    "download it"
                )
        absent = set(self.missing.values())
        for shard in shards:
            if shard not in absent:
                self._open_shard(self.folder / shard)
        for name, shard in weight_map.items():
            if shard in absent:
                continue
            found = self.tensors.get(name)
            if found is None or found.shard.name != shard:
                raise ConvertError(f"{name} is not in {shard}, where {index_name} puts it")
        for name, tensor in self.tensors.items():
            if name not in weight_map:
                raise ConvertError(f"{name} in {tensor.shard.name} is not listed in {index_name}")

    def _open_shard(self, path: Path) -> None:
        try:
            file = self._open(path)
            if path.suffix == ".bin":
                tensors = read_torch_file(path, file)
            else:
                tensors = _read_header(path, file, os.fstat(file).st_size)
            for tensor in tensors:
                if tensor.name in self.tensors:
                    other = self.tensors[tensor.name].shard.name
                    raise ConvertError(f"{tensor.name} is in both {other} and {path.name}")
                self.tensors[tensor.name] = tensor
        except OSError as error:
            raise ConvertError(f"cannot read {path}: {error.strerror}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that must hold one JSON object."""
    try:
        content = path.read_bytes()
        refuse_pointer(path, content)
        value = json.loads(content)
    except FileNotFoundError as error:
        raise ConvertError(f"{path} is missing: a checkpoint folder needs it") from error
    except OSError as error:
        raise ConvertError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConvertError(f"{path} is not valid JSON ({error}): download it again") from error
    if not isinstance(value, dict):
        raise ConvertError(f"{path} is not a JSON object: download it again")
    return value


def _read_header(path: Path, file: int, file_bytes: int) -> Iterator[StoredTensor]:
    """Yield a shard's tensors in stored order after checking the whole header."""
    head = os.pread(file, 8, 0)
    header_bytes = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
    if not 2 <= header_bytes <= min(_MAX_HEADER_BYTES, file_bytes - 8):
        raise ConvertError(f"{path} is truncated, or not a safetensors file: download it again")
    try:
        header = json.loads(os.pread(file, header_bytes, 8), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise ConvertError(f"{path} has a broken safetensors header ({error})") from error
    if not isinstance(header, dict):
        raise ConvertError(f"{path} has a broken safetensors header (not an object)")
    header.pop("__metadata__", None)
    data_start = 8 + header_bytes
    data_bytes = file_bytes - data_start
    tensors = [_read_entry(path, name, entry, data_start) for name, entry in header.items()]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.size_bytes))
    end = data_start
    for tensor in tensors:
        if tensor.offset < end:
            raise ConvertError(f"{tensor.name} overlaps another tensor in {path}: broken header")
        end = tensor.offset + tensor.size_bytes
        if end > data_start + data_bytes:
            raise ConvertError(
                f"{path} is truncated: {tensor.name} ends at byte {end}, the file at {file_bytes}; "
                "download it again"
            )
        yield tensor


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name appears twice")
    return found


def _read_entry(path: Path, name: str, entry: Any, data_start: int) -> StoredTensor:
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
    return StoredTensor(name, dtype, shape, path, data_start + begin, end - begin)


def _sizes(value: Any) -> tuple[int, ...] | None:
    """Return a JSON list of plausible sizes as a tuple, or None (bool is an int in Python)."""
    if not isinstance(value, list):
        return None
    if any(type(item) is not int or not 0 <= item < 1 << 48 for item in value):
        return None
    return tuple(value)
