"""Importance matrices as llama-imatrix writes them: how large a tensor's inputs were, by column.

Takes a path, in the GGUF format or the older .dat format; gives for every tensor that was watched
the mean squared input of each column, a matrix at a time. Those of a large model take a gigabyte,
so only the table is held and values are read when asked for. Nothing in the file is trusted.
GGUF: NAME.in_sum2 [matrices, columns] holds sums and NAME.counts the tokens that each matrix saw;
.dat: means times the number of chunks, without counts (common/imatrix-loader.cpp).
Does not know the model that the tensors belong to.
"""

from __future__ import annotations

import hashlib
import math
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from gguf import GGMLQuantizationType as Kind

from converters.errors import ConvertError
from converters.header import Entry
from converters.kernels.dtypes import Floats
from converters.source.gguf_reader import decode_value, read_head

_SUMS, _COUNTS = ".in_sum2", ".counts"
_KEYS = ("imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size")
_MAX_NAME_BYTES, _MAX_DATASET_BYTES = 1 << 10, 1 << 16
_LEAST_ENTRY_BYTES = 16  # of the older format: three numbers and one value
_MAX_COUNTS = 1 << 20  # matrices of one tensor; the largest models have a few hundred experts
_HASH_BYTES = 1 << 20
# Mean squares of activations stay under 1e10. From 1e20 on, ggml's I-quant kernels overflow and
# stop the process (found by trying).
_LARGEST = 1e15


@dataclass(frozen=True)
class Measured:
    """Where the values of one tensor lie; `counts` holds one divisor, or one for each matrix."""

    offset: int  # bytes from the start of the file
    values: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class _Contents:
    """What a file says of itself before its values."""

    entries: dict[str, Measured]
    datasets: tuple[str, ...]
    chunks: int
    has_counts: bool


class Imatrix:
    """An open importance matrix; a context manager that closes the file."""

    def __init__(self, path: Path) -> None:
        """Read and check the table; raise ConvertError for anything wrong with it."""
        self.path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise ConvertError(f"cannot read {path}: {error.strerror}") from error
        try:
            is_gguf = self._file.read(4) == b"GGUF"
            found = _read_gguf(path, self._file) if is_gguf else _read_dat(path, self._file)
            if not found.entries:
                raise _damaged(path, "it holds no importance of any tensor")
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise ConvertError(f"cannot read {path}: {error.strerror}") from error
            raise
        self.entries = found.entries
        self.datasets = found.datasets  # names of the texts it was computed on
        self.chunks = found.chunks  # how many pieces of text; 0 if the file does not say
        self._has_counts = found.has_counts

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the whole file, which takes a second a gigabyte; raises ConvertError."""
        digest, at = hashlib.sha256(), 0
        try:
            while data := os.pread(self._file.fileno(), _HASH_BYTES, at):
                digest.update(data)
                at += len(data)
        except OSError as error:
            raise ConvertError(f"cannot read {self.path}: {error.strerror}") from error
        return digest.hexdigest()

    def means(self, name: str, matrix: int, cols: int) -> Floats | None:
        """Return the mean squared inputs [cols] of a tensor's matrix; None if it was never seen.

        Raises ConvertError for values that no measurement gives: negative, not finite, absurd.
        """
        entry = self.entries[name]
        count = entry.counts[matrix if len(entry.counts) > 1 else 0]
        if self._has_counts and count == 0:
            return None
        data = _bytes_at(self.path, self._file, entry.offset + 4 * matrix * cols, 4 * cols)
        # In float32, as llama-quantize divides; in the older format 0 chunks divide nothing.
        with np.errstate(invalid="ignore"):  # what is not a number is refused below
            means: Floats = np.frombuffer(data, np.float32) / np.float32(count or 1)
        if not (np.isfinite(means).all() and means.min() >= 0 and means.max() <= _LARGEST):
            raise ConvertError(
                f"{self.path}: the importance of {name} holds values that are negative, infinite, "
                "no number or absurdly large: compute it again"
            )
        # The older format stores ones for an expert that was never seen.
        return None if not self._has_counts and (means == 1).all() else means


def open_imatrix(path: Path | None) -> AbstractContextManager[Imatrix | None]:
    """Open an importance matrix if one is given."""
    return nullcontext() if path is None else Imatrix(path)


def _damaged(path: Path, what: str) -> ConvertError:
    return ConvertError(f"{path} is no importance matrix, or damaged: {what}")


def _bytes_at(path: Path, file: BinaryIO, start: int, size: int) -> bytes:
    """Read by position, which threads can do side by side."""
    try:
        data = os.pread(file.fileno(), size, start)
    except OSError as error:
        raise ConvertError(f"cannot read {path}: {error.strerror}") from error
    if len(data) < size:
        raise _damaged(path, "it ends too early")
    return data


def _read_gguf(path: Path, file: BinaryIO) -> _Contents:
    head = read_head(path)
    missing = next((key for key in _KEYS if key not in head.metadata), None)
    if missing:
        raise _damaged(path, f"it has no {missing}")
    datasets, chunks, _ = (decode_value(head.metadata[key]) for key in _KEYS)
    if not isinstance(chunks, int) or not isinstance(datasets, tuple):
        raise _damaged(path, f"{_KEYS[0]} or {_KEYS[1]} has an unexpected type")
    stored = {one.name: one for one in head.entries}
    entries: dict[str, Measured] = {}
    for name in stored:
        base = name.removesuffix(_COUNTS).removesuffix(_SUMS)
        if base == name:
            continue
        sums, counts = stored.get(base + _SUMS), stored.get(base + _COUNTS)
        if sums is None or counts is None or {sums.kind, counts.kind} != {int(Kind.F32)}:
            raise _damaged(path, f"{base} has no sums or no counts in F32")
        if base not in entries:
            divisors = _read_counts(path, file, head.data_start + counts.offset, counts)
            entries[base] = Measured(head.data_start + sums.offset, math.prod(sums.shape), divisors)
    texts = tuple(one for one in datasets if isinstance(one, str))
    return _Contents(entries, texts, chunks, has_counts=True)


def _read_counts(path: Path, file: BinaryIO, offset: int, stored: Entry) -> tuple[int, ...]:
    size = math.prod(stored.shape)
    if size > _MAX_COUNTS:
        raise _damaged(path, f"{stored.name} claims {size:,} values")
    counts = np.frombuffer(_bytes_at(path, file, offset, 4 * size), "<f4").astype(np.float64)
    if not (np.isfinite(counts).all() and counts.min() >= 0 and counts.max() < 2**53):
        raise _damaged(path, f"{stored.name} holds no counts")
    return tuple(int(count) for count in np.floor(counts + 0.5))


def _read_dat(path: Path, file: BinaryIO) -> _Contents:
    """Read entries of (length, name, chunks, length, float32 values), then chunks and dataset."""
    size = os.fstat(file.fileno()).st_size
    file.seek(0)

    def number() -> int:
        data = file.read(4)
        if len(data) < 4:
            raise _damaged(path, "it ends too early")
        return int.from_bytes(data, "little", signed=True)

    def text(limit: int) -> str:
        length = number()
        if not 0 <= length <= limit:
            raise _damaged(path, f"a name has {length:,} bytes, not 0 to {limit:,}")
        try:
            found = file.read(length).decode()
        except UnicodeDecodeError as error:
            raise _damaged(path, "a name is not valid UTF-8") from error
        if not found.isprintable():
            raise _damaged(path, "a name holds control characters")
        return found

    n_entries = number()
    if not 0 < n_entries <= size // _LEAST_ENTRY_BYTES:
        raise _damaged(path, f"it claims {n_entries:,} entries")
    entries: dict[str, Measured] = {}
    for _ in range(n_entries):
        name = text(_MAX_NAME_BYTES)
        chunks, values = number(), number()
        start = file.tell()
        if name in entries or not 0 < values <= (size - start) // 4:
            raise _damaged(path, f"{name} is there twice or claims {values:,} values")
        entries[name] = Measured(start, values, (max(chunks, 0),))
        file.seek(start + 4 * values)
    # Files of the first versions end here.
    chunks = number() if file.tell() < size else 0
    dataset = text(_MAX_DATASET_BYTES) if file.tell() < size else ""
    return _Contents(entries, (dataset,) if dataset else (), chunks, has_counts=False)
