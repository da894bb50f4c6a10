"""Saved sequences on disk: which there are, the one that helps a prompt most, and their limit.

A file holds what a model has read (engine/state.py knows its bytes), readable by its owner only.
When all of them together grow beyond the limit, the ones longest unused go. Knows nothing about
llama.cpp or what the tokens mean.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from localseek import paths

LIMIT_BYTES = 4_000_000_000
SUFFIX = ".sequence"
STALE_SECONDS = 3600.0  # after which an unfinished file is a leftover


@dataclass(frozen=True)
class Saved:
    """One file of the store."""

    path: Path
    size_bytes: int
    used: float  # seconds since the epoch


class SequenceStore:
    """The folder of saved sequences; all failures to write are the caller's OSError."""

    def __init__(self, folder: Path | None = None, limit_bytes: int = LIMIT_BYTES) -> None:
        self.folder = folder or paths.folder("sequences")
        self.limit_bytes = limit_bytes

    def list(self) -> list[Saved]:
        """Give all files, the last used first."""
        found = []
        for path in self.folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # another process may clear it just now
                facts = path.stat()
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
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        self.evict(keep=path)
        return path

    def touch(self, path: Path) -> None:
        """Note that a file was used."""
        with contextlib.suppress(OSError):
            os.utime(path)

    def remove(self, path: Path) -> None:
        """Remove a file; one that is gone already is fine."""
        path.unlink(missing_ok=True)

    def evict(self, keep: Path | None = None) -> None:
        """Remove what was longest unused until the limit is kept; `keep` goes last."""
        saved = self.list()
        total = sum(one.size_bytes for one in saved)
        for one in sorted(saved, key=lambda one: (one.path == keep, one.used)):
            if total <= self.limit_bytes:
                return
            self.remove(one.path)
            total -= one.size_bytes

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
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime >= older_than:
                    path.unlink()
