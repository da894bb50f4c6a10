"""The words of a placement: layers, experts, and what to expect where memory is short.

Takes what was decided, gives sentences; decides nothing.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from localseek.placing.filling import Filling
from localseek.placing.memory import DeviceMemory
from localseek.placing.shape import ModelShape
from localseek.system.machine import CPU, Device
from localseek.system.sizes import rough_size

DISK_SPEED = 3e9  # bytes a second of a good SSD
SLOW_LINK = 50e6  # bytes a second: rows of a prompt wait longer on it than on arithmetic


def first_on_device(filling: Filling | None) -> int:
    """Give the first layer that lies on a device; beyond the last when none does."""
    if filling is None:
        return 1 << 16
    on = (index for index, device in enumerate(filling.devices) if device >= 0)
    return next(on, len(filling.devices))


def ranges(numbers: Iterable[int]) -> str:
    """Give numbers as people write them: 3–7, 9."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{low}–{high}" if low != high else f"{low}" for low, high in spans)


def links(devices: Sequence[Device]) -> list[str]:
    """Say what the way to each worker was measured to be, and warn of a slow one."""
    return [
        f"{one.name}: {rough_size(one.bandwidth)}/s and {one.latency_s * 1e3:.1f} ms there and "
        f"back{', slow for prompts' if one.bandwidth < SLOW_LINK else ''}"
        for one in devices
        if one.bandwidth
    ]


def layers(shape: ModelShape, devices: Sequence[str], output: str, draft: bool) -> list[str]:
    """Say where layers and output lie."""
    said = []
    for name in dict.fromkeys((*devices, output)):
        mine = [index for index, device in enumerate(devices) if device == name]
        what = f"layers {ranges(mine)}" if mine else ""
        if output == name:
            what = f"{what} and the output" if what else "the output"
        where = "the processor" if name == CPU else name
        also = " with their caches" if mine else ""
        said.append(f"{what}{also} on {where}")
    if shape.draft_layers:
        last = ranges(layer.index for layer in shape.draft_layers)
        origin = f", from {Path(shape.draft_file).name}," if shape.draft_file else ""
        said.append(
            f"layer {last}{origin} drafts, with a cache of its own"
            if draft
            else f"layer {last}, which drafts, is not loaded"
        )
    return said


def experts(
    shape: ModelShape,
    devices: Sequence[str],
    placed: Sequence[Sequence[str]],
    memory: Sequence[DeviceMemory],
) -> list[str]:
    """Say which routed experts lie elsewhere than their layer."""
    away: list[int] = []
    parts: list[str] = []
    for layer, device, names in zip(shape.layers, devices, placed, strict=True):
        if device == CPU or not names:
            continue
        elsewhere = [n for n in names if n != device]
        if len(elsewhere) == len(names):
            away.append(layer.index)
        elif elsewhere:
            kept = [p.name.split(".")[2] for p, n in zip(layer.experts, names, strict=True)
                    if n == device]  # fmt: skip
            parts.append(f"of layer {layer.index} only {', '.join(kept)} fits on {device}")
    if not away:
        return parts
    size = sum(shape.layers[index].experts_bytes for index in away)
    used = ", ".join(f"{rough_size(one.total)} of {one.device} used" for one in memory[1:])
    where = "in memory" if all(n == CPU for i in away for n in placed[i]) else "elsewhere"
    return [f"experts of layers {ranges(away)} {where} ({rough_size(size)}): {used}", *parts]


def too_large(ctx: int, needed: int, room: int) -> str:
    """Say that caches and buffers alone exceed the memory."""
    return (
        f"A context of {ctx:,} tokens needs {rough_size(needed)} of memory for caches and "
        f"buffers, and {rough_size(room)} are there."
    )


def streaming(ram: DeviceMemory, room: int, used: float) -> list[str]:
    """Say what happens when weights exceed the memory: they come from disk, again and again.

    `used` is the share of the experts that a token needs.
    """
    missing = ram.weights - room
    a_token = missing * used
    return [
        f"{rough_size(ram.weights)} of weights for {rough_size(room)} of memory: the rest is read "
        f"from disk as it is needed, about {rough_size(a_token)} a token, "
        f"{a_token / DISK_SPEED:.1f} s from a good SSD.",
        f"A file smaller by {rough_size(missing)} would fit: a type with fewer bits, "
        f"or a smaller model.",
    ]
