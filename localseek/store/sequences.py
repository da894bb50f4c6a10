"""Saved sequences on disk: which there are, the one that helps a prompt most, and their limit.

A file holds what a model has read (engine/state.py knows its bytes), readable by its owner only.
When all of them together grow beyond the limit, the ones longest unused go. Knows nothing about
llama.cpp or what the tokens mean.
"""

import contextlib
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from localseek.system import environment, paths

LIMIT_FILES = 256  # all heads are read before a prompt: so many take 10 ms
SUFFIX = ".sequence"
STALE_SECONDS = 10.0  # before that, a file that nobody has locked may be about to be


@dataclass(frozen=True)
class Saved:
    """One file of the store."""

    path: Path
    size_bytes: int
    used: float  # seconds since the epoch


class SequenceStore:
    """The folder of saved sequences; all failures to write are the caller's OSError."""

    def __init__(self, folder: Path | None = None, limit_bytes: int | None = None) -> None:
        """Take the folder and the limit of the settings, or these."""
        self.limit_bytes = limit_bytes or environment.sequence_limit()
        self.folder = folder or paths.folder("sequences")

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
        """Write a new file whole, then take room from the others if the limit asks for it."""
        self._sweep()
        path = self.folder / f"{prefix}-{secrets.token_hex(8)}{SUFFIX}"
        partial = path.with_suffix(".partial")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "wb") as file:
                with contextlib.suppress(OSError):  # some file systems know no locks
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
                partial.rename(path)  # while it is locked: nobody takes it for a leftover
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        with contextlib.suppress(OSError):  # the new file is safe all the same
            self.evict(keep=path)
        return path

    def touch(self, path: Path) -> None:
        """Note that a file was used."""
        with contextlib.suppress(OSError):
            os.utime(path)

    def remove(self, path: Path) -> None:
        """Remove a file; one that is gone already is fine."""
        path.unlink(missing_ok=True)

    def remove_named(self, names: Iterable[str]) -> None:
        """Remove files by their names; what is no name of a file of this folder is left alone."""
        for name in names:
            if name.endswith(SUFFIX) and Path(name).name == name:
                with contextlib.suppress(OSError):
                    self.remove(self.folder / name)

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
        """Remove all; give how many files and bytes went."""
        saved = self.list()
        for one in saved:
            self.remove(one.path)
        self._sweep(0.0)
        return len(saved), sum(one.size_bytes for one in saved)

    def _sweep(self, older_than: float = STALE_SECONDS) -> None:
        """Remove what a process left behind that was killed while it wrote."""
        for path in self.folder.glob("*.partial"):
            with contextlib.suppress(OSError):
                if time.time() - path.lstat().st_mtime >= older_than and not _is_locked(path):
                    path.unlink()


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
