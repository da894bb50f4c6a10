"""Tensors in open files: what the rest of a conversion asks of its source, whatever its format.

A format's class (checkpoint.py, …) reads headers, fills `tensors` and keeps the files open; bytes
are read only when asked for, by position, so nothing is loaded whole and threads need no lock.
Does not know what the tensors mean, nor how their dtypes are decoded.
"""

from __future__ import annotations

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
        self.states: dict[Path, os.stat_result] = {}  # of the files, when they were opened
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

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.popitem()[1])

    def read_into(self, tensor: StoredTensor, start: int, target: memoryview) -> None:
        """Fill `target` with the tensor's bytes from `start` on."""
        done = 0
        while done < len(target):
            try:
                count = os.preadv(
                    self._files[tensor.shard], [target[done:]], tensor.offset + start + done
                )
            except OSError as error:
                raise UnfinishedError(f"cannot read {tensor.shard}: {error.strerror}") from error
            if count == 0:
                raise ConvertError(
                    f"{tensor.shard} ended inside {tensor.name}: it changed during the conversion; "
                    "download it again"
                )
            done += count

    def sample(self, path: Path) -> bytes:
        """Return some pages of an open file, from its start to its end at equal distances."""
        last = max(0, self.states[path].st_size - _SAMPLE_BYTES)
        places = sorted({number * last // (_SAMPLES - 1) for number in range(_SAMPLES)})
        try:
            return b"".join(os.pread(self._files[path], _SAMPLE_BYTES, at) for at in places)
        except OSError as error:
            raise UnfinishedError(f"cannot read {path}: {error.strerror}") from error

    def check_unchanged(self) -> None:
        """Raise ConvertError if a file is not as it was opened, or another stands in its place."""
        for path, state in self.states.items():
            try:
                found = [_identity(os.fstat(self._files[path])), _identity(path.stat())]
            except OSError:
                found = []
            if found != [_identity(state)] * 2:
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
        self.states |= other.states
        self._files |= other._files
        other._files = {}

    def _open(self, path: Path) -> int:
        """Open a file for as long as the source is; return its descriptor."""
        file = self._files[path] = os.open(path, os.O_RDONLY)
        self.states[path] = os.fstat(file)
        refuse_pointer(path, os.pread(file, len(LFS_POINTER), 0))
        return file


def _identity(state: os.stat_result) -> tuple[int, ...]:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns
