"""What this machine has: processor, memory, disk, compiler, terminal.

Gives plain values; knows nothing about models or about how they are shown.
"""

import os
import platform
import resource
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from localseek.system import environment, huge_pages
from localseek.system.machine import Device, Machine

DEVICE_FILES = ("nvidia", "kfd", "dri", "accel", "dxg")  # in /dev, of drivers that compute


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine's parts that decide what can run; sizes in bytes."""

    cpu: str
    cores: int
    threads: int
    usable_threads: int  # that this process may use: a container may allow fewer
    memory_bytes: int
    free_memory_bytes: int


def cpu_name() -> str:
    """Give the processor's name as the system knows it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux: what Python knows must do
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()


def read_hardware() -> Hardware:
    """Look at the machine."""
    memory = psutil.virtual_memory()
    threads = psutil.cpu_count() or 1
    affinity = getattr(os, "sched_getaffinity", None)
    limit, used = _container_memory()
    return Hardware(
        cpu=cpu_name(),
        cores=psutil.cpu_count(logical=False) or threads,
        threads=threads,
        usable_threads=len(affinity(0)) if affinity else threads,
        memory_bytes=min(memory.total, limit) if limit else memory.total,
        free_memory_bytes=max(0, min(memory.available, limit - used))
        if limit
        else memory.available,
    )


def _container_memory(folder: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """Give what a container allows this process in bytes, and what is used of it; (0, 0): no limit.

    Pages of files that can be dropped are not counted as used (cgroup v2, memory.stat).
    """
    try:
        text = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no cgroup v2 here, or not for this process
        return 0, 0
    if not text.isdigit():
        return 0, 0
    return int(text), max(0, used - int(stat.get("inactive_file", 0)))


def read_machine(devices: Sequence[Device]) -> Machine:
    """Give what a model can be placed on: this machine's memory and the devices given."""
    hardware = read_hardware()
    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return Machine(
        devices=tuple(devices),
        ram_free=hardware.free_memory_bytes,
        ram_total=hardware.memory_bytes,
        cores=max(1, min(hardware.cores, hardware.usable_threads)),
        swap=psutil.swap_memory().total > 0,
        lock_limit=-1 if soft == resource.RLIM_INFINITY else soft,
        huge_pages=huge_pages.are_lent(),
    )


def free_disk_bytes(folder: Path) -> int:
    """Give the bytes that can be written where `folder` is or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def compiler() -> str:
    """Give the path of a C++ compiler, "" if there is none."""
    names = (environment.chosen_compiler(), "c++", "g++", "clang++")
    return next((found for name in names if name and (found := shutil.which(name))), "")


def terminal() -> dict[str, str]:
    """Describe the terminal: kind, colours, size, encoding."""
    size = shutil.get_terminal_size()
    kind = environment.terminal_kind()
    some = "none" if kind == "dumb" else "256" if "256" in kind else "16"
    return {
        "kind": kind,
        "colours": "16 million" if environment.true_colour() else some,
        "size": f"{size.columns}×{size.lines}",
        "encoding": (sys.stdout.encoding or "ascii").lower(),
    }


def device_marks() -> list[str]:
    """Give what changes when devices come or go: the system's start, its device files, variables.

    In a container the start is that of the machine around it.
    """
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux
        started = str(round(psutil.boot_time(), -2))
    names = (path.name for path in Path("/dev").glob("*"))
    files = sorted(name for name in names if name.startswith(DEVICE_FILES))
    return [started, *files, *environment.hidden_devices()]
