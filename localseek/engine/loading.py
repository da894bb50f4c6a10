"""A model loaded as it was placed: plan, measure, load, compare.

Takes load options, gives the model with its contexts, or the placement alone. Runs in the engine
child; knows nothing about requests.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from localseek import hardware
from localseek.deciding import decide
from localseek.engine.draft import Drafter
from localseek.engine.llama import (
    AbortFlag,
    Allotted,
    Arrangement,
    Context,
    Devices,
    Model,
    allotted,
    start_backend,
)
from localseek.engine.protocol import LoadOptions
from localseek.gguf_info import GGUFInfo, check_runnable, read_info
from localseek.machine import CPU, Machine
from localseek.placement import Placement, wishes_from
from localseek.weights import ModelShape, read_shape

EASY_SHARE = 0.8  # of the free memory: below it nothing hangs on the exact size of buffers


@dataclass(frozen=True)
class Planned:
    """A checked file and where it will go."""

    info: GGUFInfo
    shape: ModelShape
    machine: Machine
    devices: Devices
    placement: Placement


@dataclass(frozen=True)
class LoadedParts:
    """A loaded model with its contexts, and what llama.cpp says they take."""

    planned: Planned
    model: Model
    target: Context
    drafter: Drafter | None

    def memory(self) -> list[Allotted]:
        """Ask llama.cpp for the memory of both contexts by device; weights are counted once."""
        found = {one.device: one for one in allotted(self.target.handle, self.planned.devices)}
        if self.drafter is not None:
            for one in allotted(self.drafter.context.handle, self.planned.devices):
                own = found.get(one.device, Allotted(one.device, one.weights, 0, 0))
                found[one.device] = Allotted(
                    one.device, own.weights, own.cache + one.cache, own.compute + one.compute
                )
        return list(found.values())


def plan_load(options: LoadOptions, always_measure: bool = False) -> Planned:
    """Check a file and place it on this machine; raises ModelError and UsageError.

    Buffers are measured where something hangs on them: on devices, and in a memory that is nearly
    full.
    """
    info = read_info(Path(options.model))
    check_runnable(info)
    start_backend()
    devices = Devices()
    machine = hardware.read_machine(devices.values)
    shape = read_shape(info)
    wishes = wishes_from(options, options.mtp != "off" and info.nextn_layers > 0)
    placement = decide(shape, machine, wishes)
    ram = placement.memory[0]
    if always_measure or placement.devices or ram.total > EASY_SHARE * machine.ram_free:
        placement = decide(
            shape, machine, wishes, lambda one: measure_compute(options.model, one, devices)
        )
    return Planned(info, shape, machine, devices, placement)


def measure_compute(path: str, placement: Placement, devices: Devices) -> dict[str, int]:
    """Give the compute buffers of a placement by device, from a load that allots nothing."""
    model = Model(path, placement.draft, None, Arrangement(placement, devices), no_alloc=True)
    compute = dict.fromkeys((CPU, *placement.devices), 0)
    contexts: list[Context] = []
    try:
        target = _target(model, placement, None)
        contexts.append(target)
        if placement.draft:
            contexts.insert(0, Drafter(model, target, placement.threads).context)
        for context in contexts:
            for one in allotted(context.handle, devices):
                compute[one.device] = compute.get(one.device, 0) + one.compute
    finally:
        for context in contexts:
            context.close()
        model.close()
    return compute


def load(options: LoadOptions, progress: Callable[[float], None], abort: AbortFlag) -> LoadedParts:
    """Place and load a model; raises ModelError, UsageError, and EngineError from llama.cpp."""
    planned = plan_load(options)
    placement = planned.placement
    model = Model(options.model, placement.draft, progress, Arrangement(placement, planned.devices))
    target = _target(model, placement, abort)
    drafter = Drafter(model, target, placement.threads) if placement.draft else None
    return LoadedParts(planned, model, target, drafter)


def _target(model: Model, placement: Placement, abort: AbortFlag | None) -> Context:
    return Context(
        model, placement.ctx, placement.threads, placement.batch, hidden=placement.draft,
        abort=abort, cache_type=placement.cache_type,
    )  # fmt: skip
