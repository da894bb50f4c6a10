"""The journal of an unfinished conversion: which tiles are safely on the disk.

A text file beside the unfinished output. Its first line carries the fingerprint of everything that
determines the output's bytes, and the unfinished files' names; each later one says which tiles were
synced before it was written, or what SHA-256 a stored tensor has. Every line begins with a digest
of itself and of all lines before it, so what stands before the first damaged line is whole; what
follows is not believed. The file is also the conversion's lock.
Does not know what tiles are, nor when data is synced.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from converters.errors import ConvertError
from converters.writing.spans import merged, spans_of

_FORMAT = 1
_DIGEST = 16  # hexadecimal digits: against accidents, not against an attacker
_MAX_BYTES = 1 << 26  # far above a line every few seconds for a month


class Journal:
    """An open and locked journal; close it last, for with the lock goes the claim to the output."""

    def __init__(self, path: Path) -> None:
        """Open and lock; raise ConvertError if another conversion holds the lock."""
        self.path = path
        self.done: list[range] = []  # tiles that are safe, as spans that neither touch nor overlap
        self.digests: dict[str, str] = {}  # of stored tensors that are compared with others
        self.complete = False  # all are
        self.saved_nothing = False  # what was read is of a run that stopped before its first save
        self.files: list[str] = []  # names of the unfinished files, of whatever conversion
        self._file = _open_locked(path)
        self._chain = b""
        self._end = 0

    def close(self) -> None:
        """Give up the lock."""
        os.close(self._file)

    def remove(self) -> None:
        """Take the journal away, while it is still locked."""
        if _is_named(self._file, self.path):
            self.path.unlink()

    @property
    def is_empty(self) -> bool:
        """Say whether nothing was ever written."""
        return os.fstat(self._file).st_size == 0

    def read(self, fingerprint: str) -> bool:
        """Take up what is written; say whether it belongs to the fingerprint and is of use.

        A damaged end is cut off, so that the next line follows a whole one.
        """
        lines = os.pread(self._file, _MAX_BYTES, 0).split(b"\n")[:-1]  # the last has no newline
        for number, line in enumerate(lines):
            payload = line[_DIGEST + 1 :]
            if line[: _DIGEST + 1] != self._digest(payload) + b" ":
                break
            if not self._take(payload, first=number == 0, fingerprint=fingerprint):
                break
            self._chain = hashlib.sha256(self._chain + payload).digest()
            self._end += len(line) + 1
        if not self.done:
            # No whole line, or none after the first: nothing was saved, so nothing is damaged.
            self.saved_nothing = not lines or self._end > 0
            return False
        os.ftruncate(self._file, self._end)
        return True

    def begin(self, fingerprint: str, files: list[str]) -> None:
        """Start over: forget all tiles, for good, before the output is touched."""
        os.ftruncate(self._file, 0)
        os.fsync(self._file)
        self.done, self.digests, self.complete = [], {}, False
        self._chain, self._end = b"", 0
        self._append({"format": _FORMAT, "fingerprint": fingerprint, "files": files})

    def add(self, tiles: Iterable[int]) -> None:
        """Record tiles whose data has been synced."""
        spans = spans_of(tiles)
        self._append({"tiles": [[span.start, len(span)] for span in spans]})
        self.done = merged([*self.done, *spans])

    def add_digests(self, digests: dict[str, str]) -> None:
        """Record the SHA-256 of stored tensors, by name."""
        self._append({"digests": digests})
        self.digests |= digests

    def finish(self) -> None:
        """Record that every tile is synced and checked: only the renaming is left."""
        self._append({"complete": True})
        self.complete = True

    def _take(self, payload: bytes, first: bool, fingerprint: str) -> bool:
        """Take one line's content up; say whether it made sense where it stands."""
        try:
            value = json.loads(payload)
        except (ValueError, RecursionError):
            return False
        if first:
            self.files = _read_names(value)
            head = {"format": _FORMAT, "fingerprint": fingerprint, "files": self.files}
            return bool(value == head)
        if value == {"complete": True}:
            self.complete = True
            return True
        if digests := _read_digests(value):
            self.digests |= digests
            return True
        spans = _read_spans(value)
        if spans is None:
            return False
        self.done = merged([*self.done, *spans])
        return True

    def _digest(self, payload: bytes) -> bytes:
        return hashlib.sha256(self._chain + payload).hexdigest()[:_DIGEST].encode()

    def _append(self, value: dict[str, Any]) -> None:
        payload = json.dumps(value).encode()
        line = self._digest(payload) + b" " + payload + b"\n"
        done = 0
        while done < len(line):
            done += os.pwrite(self._file, line[done:], self._end + done)
        os.fsync(self._file)
        self._chain = hashlib.sha256(self._chain + payload).digest()
        self._end += len(line)


def _open_locked(path: Path) -> int:
    try:
        # No link is followed: in a folder that others write to, it could lead to a file of ours.
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise ConvertError(f"cannot create {path}: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Removed between open and lock, it was that of a conversion that has just ended.
        if not _is_named(file, path):
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
    except BlockingIOError as error:
        os.close(file)
        raise ConvertError(f"another conversion is writing {path.with_suffix('')}") from error
    except OSError as error:
        os.close(file)
        raise ConvertError(f"cannot lock {path}: {error.strerror}") from error
    return file


def _is_named(file: int, path: Path) -> bool:
    """Say whether the open file still stands under the path."""
    try:
        return os.path.samestat(os.fstat(file), path.lstat())
    except FileNotFoundError:
        return False


def _read_names(value: Any) -> list[str]:
    names = value.get("files") if isinstance(value, dict) else None
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _read_digests(value: Any) -> dict[str, str]:
    """Return a line's digests, {} if it holds anything else."""
    found = value.get("digests") if isinstance(value, dict) else None
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        return {}
    return found


def _read_spans(value: Any) -> list[range] | None:
    """Return a line's tiles, or None if it holds anything else."""
    pairs = value.get("tiles") if isinstance(value, dict) else None
    if not isinstance(pairs, list):
        return None
    spans = []
    for pair in pairs:
        if not isinstance(pair, list) or [type(number) for number in pair] != [int, int]:
            return None
        first, count = pair
        if first < 0 or count < 1:
            return None
        spans.append(range(first, first + count))
    return spans
