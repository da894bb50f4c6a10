"""Layers dealt out to devices: the arithmetic of placement, without its reasons.

Takes needs in bytes and budgets, gives which layer lies where. llama.cpp puts the first layers on
the processor and the rest on devices, in order and without gaps, the output on the last
(llama_model::load_tensors); so does this. Knows nothing about models, contexts or users.
"""

from collections.abc import Sequence
from dataclasses import dataclass

ROUNDS = 24  # of bisection: to a ten-millionth of the memory


@dataclass(frozen=True, slots=True)
class Room:
    """A device's budget; `shares` is true where the load is spread and not filled up."""

    budget: int
    fixed: int  # bytes that are needed once something lies here: compute buffers
    shares: bool = False


@dataclass(frozen=True, slots=True)
class Need:
    """A layer's bytes on a device: always, and its experts if they are kept there."""

    always: int
    experts: int


@dataclass(frozen=True, slots=True)
class Filling:
    """The device of each layer (-1: the processor), and how many layers keep their experts."""

    devices: tuple[int, ...]
    kept: int  # experts of the layers before this one are on the layer's device
    output: int
    spare: tuple[int, ...]  # bytes left on each device


def fill(
    needs: Sequence[Need], output: int, rooms: Sequence[Room], on_cpu: int, kept: int
) -> Filling | None:
    """Deal layers from `on_cpu` on to rooms, in order; None when they don't fit.

    Rooms that share get loads in proportion to their budgets.
    """
    whole = _deal(needs, output, rooms, on_cpu, kept, 1.0)
    if whole is None or not any(room.shares for room in rooms):
        return whole
    low, high = 0.0, 1.0
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        found = _deal(needs, output, rooms, on_cpu, kept, middle)
        if found is None:
            low = middle
        else:
            high, whole = middle, found
    return whole


def _deal(
    needs: Sequence[Need], output: int, rooms: Sequence[Room], on_cpu: int, kept: int, share: float
) -> Filling | None:
    def space(room: Room) -> int:
        return int((room.budget - room.fixed) * (share if room.shares else 1.0))

    left = [space(room) for room in rooms]
    devices = [-1] * len(needs)
    at = 0
    for index in range(on_cpu, len(needs) + 1):
        if index == len(needs):
            size = output
        else:
            size = needs[index].always + (needs[index].experts if index < kept else 0)
        while at < len(rooms) and left[at] < size:
            at += 1
        if at == len(rooms):
            return None
        left[at] -= size
        if index < len(needs):
            devices[index] = at
    spare = (
        room.budget - room.fixed - space(room) + rest
        for room, rest in zip(rooms, left, strict=True)
    )
    return Filling(tuple(devices), kept, at, tuple(spare))


def best_filling(
    needs: Sequence[Need], output: int, rooms: Sequence[Room],
    on_cpu: int | None = None, cpu_experts: int | None = None,
) -> Filling | None:  # fmt: skip
    """Find the filling with the fewest layers on the processor, then the most experts on devices.

    What the user has fixed stays: `on_cpu` first layers on the processor, the experts of
    `cpu_experts` last layers in memory. None when nothing fits.
    """
    count = len(needs)
    for first in range(count + 1) if on_cpu is None else (on_cpu,):
        if cpu_experts is not None:
            found = fill(needs, output, rooms, first, max(0, count - cpu_experts))
            if found is not None:
                return found
            continue
        if fill(needs, output, rooms, first, 0) is None:
            continue
        low, high = 0, count  # `low` fits; the more experts, the tighter
        while low < high:
            middle = (low + high + 1) // 2
            if fill(needs, output, rooms, first, middle) is None:
                high = middle - 1
            else:
                low = middle
        return fill(needs, output, rooms, first, low)
    return None
