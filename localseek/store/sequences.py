"""Saved sequences on disk: which there are, the one that helps a prompt most, and their limit.

A file holds what a model has read (engine/state.py knows its bytes), readable by its owner only,
and sealed where the history is encrypted. When all of them together grow beyond the limit, the ones
longest unused go. Knows nothing about llama.cpp or what the tokens mean.
"""

import contextlib
import fcntl
import mmap
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from localseek.store.sealing import PIECE_BYTES, Sealed, seal
from localseek.system import environment, paths, private

LIMIT_FILES = 256  # all heads are read before a prompt: so many take 10 ms
SUFFIX = ".sequence"
STALE_SECONDS = 10.0  # before that, a file that nobody has locked may be about to be


@dataclass(frozen=True)
class Saved:
    """One file of the store."""

    path: Path
    size_bytes: int
    used: float  # seconds since the epoch


class Content(Protocol):
    """The bytes of a file, as they were before it was sealed."""

    size: int

    def first(self, length: int) -> memoryview:
        """Give the first `length` bytes, or all if there are fewer; raises ValueError."""

    def pieces(self) -> Iterator[memoryview]:
        """Give all bytes, a piece at a time; raises ValueError."""


class Plain:
    """The bytes of a file as it is, mapped into memory."""

    def __init__(self, mapped: memoryview) -> None:
        self._mapped, self.size = mapped, len(mapped)

    def first(self, length: int) -> memoryview:
        """Give the first bytes."""
        return self._mapped[:length]

    def pieces(self) -> Iterator[memoryview]:
        """Give all bytes, a piece at a time."""
        for place in range(0, self.size, PIECE_BYTES):
            yield self._mapped[place : place + PIECE_BYTES]


class SequenceStore:
    """The folder of saved sequences; all failures to write are the caller's OSError."""

    def __init__(
        self, folder: Path | None = None, limit_bytes: int | None = None, key: bytes | None = None
    ) -> None:
        """Take the folder and the limit of the settings, or these; with a key, all is sealed."""
        self.limit_bytes = limit_bytes or environment.sequence_limit()
        self.folder = folder or paths.folder("sequences")
        self._key = key

    @property
    def sealed(self) -> bool:
        """Tell whether files are encrypted: then they are read into memory, not mapped."""
        return self._key is not None

    def list(self) -> list[Saved]:
        """Give all files, the last used first; what is no file of our own is not looked at."""
        found = []
        for path in self.folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # another process may clear it just now
                facts = path.lstat()
                if stat.S_ISREG(facts.st_mode):
                    found.append(Saved(path, facts.st_size, facts.st_mtime))
        return sorted(found, key=lambda one: (-one.used, one.path.name))

    def write(self, prefix: str, parts: Iterable[memoryview]) -> Path:
        """Write a new file whole, then take room from the others if the limit asks for it.

        The name of one that is sealed does not begin with `prefix`: it tells nothing.
        """
        self._sweep()
        path = self._written(prefix, parts)
        with contextlib.suppress(OSError):  # the new file is safe all the same
            self.evict(keep=path)
        return path

    def _written(self, prefix: str, parts: Iterable[memoryview]) -> Path:
        own = secrets.token_hex(8)
        path = self.folder / f"{secrets.token_hex(16) if self._key else prefix}-{own}{SUFFIX}"
        partial = path.with_suffix(".partial")
        descriptor = private.descriptor_of(partial, os.O_WRONLY | os.O_EXCL)
        try:
            with open(descriptor, "wb") as file:
                with contextlib.suppress(OSError):  # some file systems know no locks
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._key:
                    seal(file, self._key, parts)
                else:
                    file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
                partial.rename(path)  # while it is locked: nobody takes it for a leftover
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        return path

    @contextlib.contextmanager
    def opened(self, path: Path) -> Iterator[Content]:
        """Give what a file holds, not to be erased meanwhile; raises OSError, ValueError."""
        with private.reading(path) as file:
            if self._key:
                yield Sealed(file, self._key)
                return
            yield Plain(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))

    def written_anew(self, key: bytes | None) -> dict[str, str]:
        """Write every file once more with another key; give the new name of each old one.

        What cannot be read or written has none.
        """
        others = SequenceStore(self.folder, self.limit_bytes, key)
        names = {}
        for saved in self.list():
            with contextlib.suppress(OSError, ValueError), self.opened(saved.path) as content:
                new = others._written("anew", content.pieces())
                os.utime(new, (saved.used, saved.used))
                names[saved.path.name] = new.name
        return names

    def touch(self, path: Path) -> None:
        """Note that a file was used."""
        with contextlib.suppress(OSError):
            os.utime(path)

    def remove(self, path: Path) -> None:
        """Remove a file; one that is gone already is fine."""
        path.unlink(missing_ok=True)

    def remove_named(self, names: Iterable[str]) -> None:
        """Overwrite and remove files by name; what is no name of a file here is left alone."""
        for name in names:
            if name.endswith(SUFFIX) and Path(name).name == name:
                with contextlib.suppress(OSError):
                    private.erase(self.folder / name)

    def evict(self, keep: Path | None = None) -> None:
        """Remove what was longest unused until the limits are kept; `keep` goes last."""
        saved = self.list()
        count, total = len(saved), sum(one.size_bytes for one in saved)
        for one in sorted(saved, key=lambda one: (one.path == keep, one.used)):
            if total <= self.limit_bytes and count <= LIMIT_FILES:
                return
            self.remove(one.path)
            count, total = count - 1, total - one.size_bytes

    def clear(self) -> tuple[int, int]:
        """Overwrite and remove all; give how many files and bytes went."""
        saved = self.list()
        for one in saved:
            private.erase(one.path)
        self._sweep(0.0)
        return len(saved), sum(one.size_bytes for one in saved)

    def _sweep(self, older_than: float = STALE_SECONDS) -> None:
        """Remove what a process left behind that was killed while it wrote."""
        for path in self.folder.glob("*.partial"):
            with contextlib.suppress(OSError):
                if time.time() - path.lstat().st_mtime >= older_than and not _is_locked(path):
                    private.erase(path)


def _is_locked(path: Path) -> bool:
    """Tell whether a process still writes a file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
