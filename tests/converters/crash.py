"""A conversion in a child process that dies by SIGKILL at a chosen call of the file system.

Takes the number of the call: every write, sync, reservation, truncation, renaming and removal
counts. With `power` the disk loses its memory too: of everything that was not synced, each piece is
kept, lost or half kept, by chance, in the way a disk without power may leave it.
Knows nothing of tiles or journals.
"""

from __future__ import annotations

import os
import random
import signal
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

Undo = Callable[[], None]


class Disk:
    """Stands between a process and its files, counts the calls and kills it at one of them."""

    def __init__(self, dies_at: int, power: bool, seed: int, since: str = "") -> None:
        self.calls = 0
        self._since = since  # the name of the call that counts as the first
        self._dies_at, self._power = dies_at, power
        self._chance = random.Random(seed)
        self._lock = threading.RLock()
        self._volatile: list[tuple[int | None, Undo]] = []  # inode of a file, None for names
        self._real = {
            name: getattr(os, name)
            for name in ("pwrite", "fsync", "ftruncate", "replace", "unlink", "posix_fallocate")
        }

    def install(self) -> None:
        """Put this disk in the place of the real calls, for the rest of the process."""
        for name in self._real:
            setattr(os, name, getattr(self, name))

    def pwrite(self, file: int, data: Any, offset: int) -> int:
        with self._lock:
            self._count("pwrite")
            data, before = bytes(data), os.pread(file, len(data), offset)
            size = os.fstat(file).st_size
            if self.calls == self._dies_at:
                data = data[: self._chance.randrange(len(data) + 1)]
            lost = self._chance.randrange(len(data) + 1) if self._chance.random() < 0.5 else 0

            def undo() -> None:
                self._real["pwrite"](file, before[lost:], offset + lost)
                if offset + len(data) > size:
                    self._real["ftruncate"](file, max(size, offset + lost))

            self._remember(file, undo)
            done: int = self._real["pwrite"](file, data, offset)
            self._die_if_last()
            return done

    def fsync(self, file: int) -> None:
        with self._lock:
            self._count("fsync")
            self._die_if_last()
            self._real["fsync"](file)
            state = os.fstat(file)
            synced = None if stat.S_ISDIR(state.st_mode) else state.st_ino
            self._volatile = [one for one in self._volatile if one[0] != synced]

    def ftruncate(self, file: int, size: int) -> None:
        with self._lock:
            self._count("ftruncate")
            self._die_if_last()
            before = os.pread(file, os.fstat(file).st_size, 0)
            self._real["ftruncate"](file, size)
            self._remember(file, lambda: self._restore(file, before))

    def posix_fallocate(self, file: int, start: int, size: int) -> None:
        with self._lock:
            self._count("posix_fallocate")
            self._die_if_last()
            self._real["posix_fallocate"](file, start, size)

    def replace(self, old: Path, new: Path) -> None:
        with self._lock:
            self._count("replace")
            self._die_if_last()
            self._real["replace"](old, new)
            self._volatile.append((None, lambda: self._real["replace"](new, old)))

    def unlink(self, path: Path, **options: Any) -> None:
        with self._lock:
            self._count("unlink")
            self._die_if_last()
            kept = os.open(path, os.O_RDONLY)
            data = os.pread(kept, os.fstat(kept).st_size, 0)
            os.close(kept)
            self._real["unlink"](path, **options)
            self._volatile.append((None, lambda: void(Path(path).write_bytes(data))))

    def _restore(self, file: int, data: bytes) -> None:
        self._real["ftruncate"](file, len(data))
        self._real["pwrite"](file, data, 0)

    def _remember(self, file: int, undo: Undo) -> None:
        self._volatile.append((os.fstat(file).st_ino, undo))

    def _count(self, name: str) -> None:
        if self._since in ("", name):
            self._since = ""
            self.calls += 1

    def _die_if_last(self) -> None:
        if self.calls != self._dies_at:
            return
        if self._power:
            for _, undo in reversed(self._volatile):
                if self._chance.random() < 0.5:
                    undo()
        os.kill(os.getpid(), signal.SIGKILL)


def void(_value: object) -> None:
    """Give nothing back."""


def run_until(
    dies_at: int, work: Callable[[], object], power: bool = False, seed: int = 0, since: str = ""
) -> bool:
    """Run `work` in a child that dies at that call; say whether it got to its end before."""
    child = os.fork()
    if child == 0:
        try:
            Disk(dies_at, power, seed, since).install()
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001  # a child of pytest must never return into it
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, "the conversion failed in the child"
    return True


def count_calls(work: Callable[[], object]) -> int:
    """Count the calls of a whole run, in a child too."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            disk = Disk(0, False, 0)
            disk.install()
            work()
            os.write(write, str(disk.calls).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as answer:
        return int(answer.read())
