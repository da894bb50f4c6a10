"""A Hugging Face checkpoint folder: which tensors its shards hold, and where.

Takes a folder with safetensors, or with PyTorch's .bin files where there are none. Gives the JSON
files beside the weights and, for every tensor, its dtype, shape and place in a shard; bytes are
read only when asked for, by position, so nothing is loaded whole. Where a shard is away, its header
(shard_header.py) tells all but the bytes.
Does not know what the tensors mean, nor how their dtypes are decoded.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from converters.errors import ConvertError, UnfinishedError
from converters.source.folders import describe, is_there, refuse_pointer, unlisted_shards
from converters.source.safetensors_table import parse_table, read_table
from converters.source.shard_header import ShardHeader, read_header
from converters.source.source import Source, StoredTensor
from converters.source.torch_zip import read_torch_file

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
TORCH_INDEX_NAME = "pytorch_model.bin.index.json"
TORCH_SINGLE_NAME = "pytorch_model.bin"
WEIGHT_NAMES = (INDEX_NAME, SINGLE_NAME, TORCH_INDEX_NAME, TORCH_SINGLE_NAME)  # the first counts
_MAX_NAME = 200  # characters of a shard's name, below what file systems take


class Checkpoint(Source):
    """An open checkpoint folder: tensor headers in memory, shards open for positioned reads."""

    def __init__(self, folder: Path, partial: bool = False) -> None:
        """Read and check all headers; raise ConvertError for anything missing or malformed.

        With `partial`, shards may be missing; `missing` says which tensors are in them.
        """
        super().__init__()
        self.folder = folder
        self.missing: dict[str, str] = {}
        self.compared: set[str] = set()  # tensors whose bytes decided what is planned
        self._headers: dict[Path, ShardHeader] = {}  # of shards that are, or were, away
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

    def header(self, shard: Path) -> ShardHeader:
        """Return what stands for an open shard when it is gone; raise ConvertError."""
        known = self._headers.get(shard)
        try:
            table = read_table(shard, self._files[shard], self.sizes[shard])
        except OSError as error:
            raise UnfinishedError(f"cannot read {shard}: {error.strerror}") from error
        digests = {
            name: digest
            for name in sorted(self.compared)
            if self.tensors[name].shard == shard and (digest := self.digest(name))
        }
        identity = known.identity if known else ""
        return ShardHeader(table, self.sizes[shard], identity, self.mark(shard), digests)

    def open_file(self, path: Path) -> None:
        """Open a shard that was away; raise UnfinishedError if it is not what its header says.

        One that was there is opened again if it was downloaded again.
        """
        known = self._headers.get(path)
        if path in self._files:
            if known is None or not known.is_of_download or self.is_unchanged(path):
                return
            self._close(path)
        try:
            whole = _is_whole(path, self._open(path), self._headers[path])
        except OSError as error:
            raise UnfinishedError(f"cannot read {path}: {error.strerror}") from error
        if not whole:
            self._close(path)
            self.sizes[path] = self._headers[path].size_bytes
            raise UnfinishedError(f"{path} is not what its header says: download it again")

    def digest(self, name: str) -> str | None:
        """Return the SHA-256 of a tensor's bytes, as they are or were; None if it is unknown."""
        header = self._headers.get(self.tensors[name].shard)
        return super().digest(name) or (header.digests.get(name) if header else None)

    def same_bytes(self, first: str, second: str) -> bool:
        """Say whether two tensors are stored alike, to the byte.

        While that cannot be seen, they are taken for equal, as in every release, and `assumed`.
        """
        one, two = self.tensors[first], self.tensors[second]
        self.compared |= {first, second}
        if {one.shard, two.shard}.isdisjoint(self.away):
            return super().same_bytes(first, second)
        if (one.dtype, one.shape) != (two.dtype, two.shape):
            return False
        digests = self.digest(first), self.digest(second)
        if None in digests:
            self.assumed[first, second] = None
        return None in digests or digests[0] == digests[1]

    def _open_weights(self) -> None:
        name = weights_of(self.folder)
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
            path = self.folder / shard
            if self._partial and not path.is_file():
                self.missing |= {name: shard for name, of in weight_map.items() if of == shard}
            elif not is_there(path):
                raise ConvertError(
                    f"{path} is missing ({len(shards)} shards in {index_name}): download it"
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
            for tensor in self._read_shard(path):
                if tensor.name in self.tensors:
                    other = self.tensors[tensor.name].shard.name
                    raise ConvertError(f"{tensor.name} is in both {other} and {path.name}")
                self.tensors[tensor.name] = tensor
        except OSError as error:
            raise ConvertError(f"cannot read {path}: {error.strerror}") from error

    def _read_shard(self, path: Path) -> list[StoredTensor]:
        """Return a shard's tensors, from the shard or from the header that stands for it."""
        if path.suffix == ".bin":
            return list(read_torch_file(path, self._open(path)))
        if not path.is_file():
            header = read_header(path)
            if header is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            return self._stand_in(path, header)
        file, header = self._open(path), _readable_header(path)
        if header is not None and header.is_of_download:
            if not _is_whole(path, file, header):
                self._close(path)
                return self._stand_in(path, header)
            self._marks[path] = header.mark
        elif header is not None and header.mark != self.mark(path):
            header = None  # left behind by another file of that name
        if header is not None:
            self._headers[path] = header
        size = self.sizes[path]
        return parse_table(path, read_table(path, file, size), size, path)

    def _stand_in(self, path: Path, header: ShardHeader) -> list[StoredTensor]:
        self._headers[path], self._marks[path] = header, header.mark
        self.sizes[path] = header.size_bytes
        return header.tensors(path)


def weights_of(folder: Path) -> str | None:
    """Return the name of the file that says where a folder's weights are, None if none does."""
    here = (
        name
        for name in WEIGHT_NAMES
        if (folder / name).is_file() or (name == SINGLE_NAME and is_there(folder / name))
    )
    return next(here, None)


def _readable_header(shard: Path) -> ShardHeader | None:
    """Return the header beside a shard that is there, which need not be of any use."""
    try:
        return read_header(shard)
    except ConvertError:
        return None


def _is_whole(path: Path, file: int, header: ShardHeader) -> bool:
    """Say whether a file is the one that a header describes, and not a part of it."""
    size = os.fstat(file).st_size
    try:
        return (read_table(path, file, size), size) == (header.table, header.size_bytes)
    except ConvertError:
        return False


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
