"""Tensors in open files: what the rest of a conversion asks of its source, whatever its format.

A format's class (checkpoint.py, …) reads headers, fills `tensors` and keeps the files open; bytes
are read only when asked for, by position, so nothing is loaded whole and threads need no lock.
A file may be away while its table of tensors is known: its size and mark are then, its bytes not.
Does not know what the tensors mean, nor how their dtypes are decoded.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from converters.errors import ConvertError, UnfinishedError
from converters.source.folders import refuse_pointer
from localseek.gguf.head import LFS_POINTER

_SAMPLES, _SAMPLE_BYTES = 16, 4096  # of a file: pages that tell two models apart
_COMPARE_BYTES = 1 << 20  # stays in the cache between reading and comparing


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a file stores it; `offset` counts bytes from the start of the file."""

    name: str
    dtype: str  # as its format names it: a safetensors dtype or a ggml type
    shape: tuple[int, ...]  # outermost first
    shard: Path
    offset: int
    size_bytes: int

    @property
    def row_bytes(self) -> int:
        """Size of a row, the last dimension, which every format stores as whole bytes."""
        return self.size_bytes // max(1, math.prod(self.shape[:-1]))


class Source:
    """Tensors by name and the open files that hold them; a context manager that closes these."""

    def __init__(self) -> None:
        self.tensors: dict[str, StoredTensor] = {}
        self.sizes: dict[Path, int] = {}  # of all files, also those that are away
        self.assumed: dict[tuple[str, str], None] = {}  # taken for equal, one being away; in order
        self._states: dict[Path, os.stat_result] = {}  # of open files, when they were opened
        self._marks: dict[Path, str] = {}  # known already
        self._files: dict[Path, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def has_weights(self) -> bool:
        """Say whether there are bytes to convert: always, or it could not be opened."""
        return True

    @property
    def has_tokenizer(self) -> bool:
        """Say whether the tokenizer's metadata can be told: always, or the conversion fails."""
        return True

    @property
    def here(self) -> list[Path]:
        """The files that are open."""
        return list(self._files)

    @property
    def away(self) -> list[Path]:
        """The files that are not open: not there yet, or removed."""
        return [path for path in self.sizes if path not in self._files]

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.popitem()[1])

    def close_file(self, path: Path) -> None:
        """Close one file, of which nothing more is read; its size and mark stay known."""
        self.mark(path)
        self._close(path)

    def open_file(self, path: Path) -> None:
        """Open a file that was away; does nothing if it is open."""
        if path not in self._files:
            self._open(path)

    def mark(self, path: Path) -> str:
        """Return a SHA-256 that tells a file from others, without reading all of it.

        It is of size, time of change and some pages, for times can be set back; of a file that was
        away when the source was opened, what stood for it then.
        """
        if path not in self._marks:
            state = self._states[path]
            told = f"{state.st_size} {state.st_mtime_ns} ".encode() + self._sample(path)
            self._marks[path] = hashlib.sha256(told).hexdigest()
        return self._marks[path]

    def digest(self, name: str) -> str | None:
        """Return the SHA-256 of a tensor's bytes; None if they cannot be read now."""
        tensor = self.tensors[name]
        if tensor.shard not in self._files:
            return None
        digest, buffer = hashlib.sha256(), bytearray(min(_COMPARE_BYTES, tensor.size_bytes))
        for start in range(0, tensor.size_bytes, _COMPARE_BYTES):
            part = memoryview(buffer)[: tensor.size_bytes - start]
            self.read_into(tensor, start, part)
            digest.update(part)
        return digest.hexdigest()

    def read_into(self, tensor: StoredTensor, start: int, target: memoryview) -> None:
        """Fill `target` with the tensor's bytes from `start` on."""
        file = self._files.get(tensor.shard)
        if file is None:
            raise ConvertError(f"{tensor.shard} is not there, only its header: download it")
        done = 0
        while done < len(target):
            try:
                count = os.preadv(file, [target[done:]], tensor.offset + start + done)
            except OSError as error:
                raise UnfinishedError(f"cannot read {tensor.shard}: {error.strerror}") from error
            if count == 0:
                raise ConvertError(
                    f"{tensor.shard} ended inside {tensor.name}: it changed during the conversion; "
                    "download it again"
                )
            done += count

    def _sample(self, path: Path) -> bytes:
        """Return some pages of an open file, from its start to its end at equal distances."""
        last = max(0, self.sizes[path] - _SAMPLE_BYTES)
        places = sorted({number * last // (_SAMPLES - 1) for number in range(_SAMPLES)})
        try:
            return b"".join(os.pread(self._files[path], _SAMPLE_BYTES, at) for at in places)
        except OSError as error:
            raise UnfinishedError(f"cannot read {path}: {error.strerror}") from error

    def is_unchanged(self, path: Path) -> bool:
        """Say whether an open file is as it was when it was opened, and under its name."""
        try:
            found = [_identity(os.fstat(self._files[path])), _identity(path.stat())]
        except OSError:
            return False
        return found == [_identity(self._states[path])] * 2

    def check_unchanged(self) -> None:
        """Raise ConvertError if an open file is not as it was, or another stands in its place."""
        for path in self._states:
            if not self.is_unchanged(path):
                raise ConvertError(
                    f"{path} changed during the conversion: wait until it is complete, then "
                    "convert again"
                )

    def same_bytes(self, first: str, second: str) -> bool:
        """Say whether two tensors are stored alike, to the byte."""
        one, two = self.tensors[first], self.tensors[second]
        if (one.dtype, one.shape) != (two.dtype, two.shape):
            return False
        # Arrays: memory views of bytes compare value by value, 30 times slower.
        left, right = np.empty((2, min(_COMPARE_BYTES, one.size_bytes)), np.uint8)
        for start in range(0, one.size_bytes, _COMPARE_BYTES):
            size = min(_COMPARE_BYTES, one.size_bytes - start)
            self.read_into(one, start, left[:size].data)
            self.read_into(two, start, right[:size].data)
            if not np.array_equal(left[:size], right[:size]):
                return False
        return True

    def take_over(self, other: Source, names: Iterable[str]) -> None:
        """Add tensors of another source, and close its files when this one is closed."""
        for name in names:
            if name in self.tensors:
                raise ConvertError(f"{name} is in both files that are put together")
            self.tensors[name] = other.tensors[name]
        self.sizes |= other.sizes
        self._states |= other._states
        self._marks |= other._marks
        self._files |= other._files
        other._files = {}

    def _open(self, path: Path) -> int:
        """Open a file for as long as the source is; return its descriptor."""
        file = self._files[path] = os.open(path, os.O_RDONLY)
        state = self._states[path] = os.fstat(file)
        self.sizes[path] = state.st_size
        refuse_pointer(path, os.pread(file, len(LFS_POINTER), 0))
        return file

    def _close(self, path: Path) -> None:
        os.close(self._files.pop(path))
        del self._states[path]


def _identity(state: os.stat_result) -> tuple[int, ...]:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns
