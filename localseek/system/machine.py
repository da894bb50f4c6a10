"""The places where a model can lie: devices of this machine, named workers, memory.

Plain values, read from the real machine by the engine child or made up with `imagined`. Sizes in
bytes. Knows nothing about models.
"""

from dataclasses import dataclass, field
from typing import Literal

from localseek.errors import UsageError

CPU = "CPU"


@dataclass(frozen=True, slots=True)
class Device:
    """A device that llama.cpp can compute on; `bandwidth` and `latency` are those of its link."""

    name: str  # CUDA0, Metal, or HOST:PORT of a worker
    kind: Literal["gpu", "remote"]
    free_bytes: int
    total_bytes: int
    description: str = ""
    bandwidth: float = 0.0  # bytes a second, 0: not measured
    latency_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to place a model on."""

    devices: tuple[Device, ...]
    ram_free: int
    ram_total: int
    cores: int  # physical ones that this process may use
    swap: bool = False
    lock_limit: int = 0  # bytes that the process may lock in memory; -1: no limit
    huge_pages: bool = False  # what is allotted comes to lie in pages of 2 MB
    imagined: bool = field(default=False)

    def device(self, name: str) -> Device:
        """Find a device by name; raises UsageError that lists the names."""
        for device in self.devices:
            if device.name.lower() == name.lower():
                return device
        names = ", ".join([*(device.name for device in self.devices), CPU])
        raise UsageError(f"There is no device {name!r}.", f"There is: {names}.")


def imagined(vram: tuple[int, ...], ram: int, cores: int) -> Machine:
    """Make a machine up: one GPU for each size in `vram`, nothing else in its memory."""
    devices = tuple(Device(f"GPU{n}", "gpu", size, size) for n, size in enumerate(vram))
    return Machine(devices, ram, ram, cores, lock_limit=0, imagined=True)
