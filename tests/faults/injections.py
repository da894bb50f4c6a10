"""Faults as the system makes them: a disk of some kilobytes, a limit on memory, lost parents.

Each says by `skip` why this system refuses it. Linux only.
"""

import contextlib
import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

PATIENCE_S = 60.0  # only a failure waits so long
SUBREAPER = 36  # prctl(2): processes whose parent dies become children of this one


def until(condition, what: str) -> None:
    deadline = monotonic() + PATIENCE_S
    while not condition():
        assert monotonic() < deadline, f"never came true: {what}"
        sleep(0.005)


class SmallDisk:
    """A disk of its own for the programs that `run` starts, seen from here at `path`."""

    def __init__(self, place: Path, size: str) -> None:
        self.place = place
        place.mkdir(exist_ok=True)
        root = os.geteuid() == 0
        script = f'mount -t tmpfs -o size={size},mode=700 none "$0" && echo made && cat'
        self._holder = subprocess.Popen(
            ["unshare", "-m" if root else "-rm", "sh", "-c", script, str(place)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.refused = self._holder.stdout.readline() != b"made\n"
        number = self._holder.pid
        self._enter = ["nsenter", "-t", str(number), "-m", f"--wd={os.getcwd()}"]
        if not root:
            self._enter[3:3] = ["-U", "--preserve-credentials"]
        self.path = Path(f"/proc/{number}/root{place}")

    def start(self, words: list[str], environment: dict[str, str], **streams) -> subprocess.Popen:
        return subprocess.Popen([*self._enter, *words], env=environment, **streams)

    def run(self, words: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
        done = subprocess.run(
            [*self._enter, *words], env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def fill(self) -> None:
        with (self.path / "filler").open("ab", buffering=0) as file:
            for size in (1 << 16, 1):  # to the last byte
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def make_room(self) -> None:
        (self.path / "filler").unlink()

    def close(self) -> None:
        self._holder.communicate()


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[SmallDisk]:
    if sys.platform != "linux":
        pytest.skip("mount namespaces are Linux's")
    disk = SmallDisk(place, size)
    try:
        if disk.refused:
            pytest.skip("this system lets nobody but root mount a disk in a namespace")
        yield disk
    finally:
        disk.close()


@contextlib.contextmanager
def memory_group(name: str) -> Iterator["MemoryGroup"]:
    """Give a control group of its own, of whichever version the system has."""
    for folder, limit in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        group = folder / name
        with contextlib.suppress(OSError):
            group.mkdir()
            if (group / limit).exists() and (group / "cgroup.procs").exists():
                try:
                    yield MemoryGroup(group, limit)
                finally:
                    until(lambda g=group: _removed(g), "the group is empty")
                return
            group.rmdir()
    pytest.skip("this system lets no test make a control group")


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError as error:
        return error.errno != errno.EBUSY
    return True


class MemoryGroup:
    """Limits what some processes may have in memory; the kernel kills beyond it."""

    def __init__(self, folder: Path, limit: str) -> None:
        self._folder, self._limit = folder, limit

    def hold(self, pid: int, spare_bytes: int) -> None:
        """Let a process have what it has and `spare_bytes` more of memory of its own."""
        (self._folder / "cgroup.procs").write_text(str(pid))
        with contextlib.suppress(OSError):  # swap would give what the memory does not
            (self._folder / "memory.swap.max").write_text("0")
        # What it had before is counted where it was: only what comes is counted here.
        (self._folder / self._limit).write_text(str(spare_bytes))


@contextlib.contextmanager
def inheriting_orphans() -> Iterator[None]:
    """Let processes that lose their parent become children of this one, to be waited for."""
    if sys.platform != "linux":
        pytest.skip("only Linux hands on children")
    prctl = ctypes.CDLL(None).prctl
    prctl(SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(SUBREAPER, 0, 0, 0, 0)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
