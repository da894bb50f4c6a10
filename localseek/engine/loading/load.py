"""A model loaded as it was placed: plan, measure, load, compare.

Takes load options, gives the model with its contexts, or the placement alone. Runs in the engine
child; knows nothing about requests.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from localseek.engine.decoding.lanes import Lanes
from localseek.engine.drafting.draft import Drafter
from localseek.engine.drafting.learnt_store import LearntStore, learnt_key
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
from localseek.engine.process.bridge import Remote
from localseek.errors import EngineError
from localseek.gguf.draft_file import choose_drafting
from localseek.gguf.info import GGUFInfo, read_info
from localseek.gguf.runnable import check_runnable
from localseek.options import MAX_DEPTH, LoadOptions
from localseek.placing.deciding import decide
from localseek.placing.placement import Placement, wishes_from
from localseek.placing.shape import ModelShape, read_shape
from localseek.system import hardware
from localseek.system.machine import CPU, Device, Machine
from localseek.system.sizes import rough_size

EASY_SHARE = 0.8  # of the free memory: below it nothing hangs on the exact size of buffers


@dataclass(frozen=True)
class Planned:
    """A checked file and where it will go."""

    info: GGUFInfo
    shape: ModelShape
    machine: Machine
    devices: Devices
    placement: Placement
    notice: str = ""  # who drafts, or why nobody does
    learnt: LearntStore | None = None  # where what drafting learns is kept

    @property
    def files(self) -> tuple[Path, ...]:
        """Give the model's files, and the one that drafts for it."""
        return _files(self.info, self.placement)


@dataclass(frozen=True)
class LoadedParts:
    """A loaded model with its contexts, and what llama.cpp says they take."""

    planned: Planned
    model: Model
    target: Context
    drafter: Drafter | None  # of a single sequence
    lanes: Lanes | None  # of several
    parallel: int  # sequences

    def memory(self) -> list[Allotted]:
        """Ask llama.cpp for the memory of both contexts by device; weights are counted once."""
        found = {one.device: one for one in allotted(self.target.handle, self.planned.devices)}
        drafts = self.drafter or self.lanes
        if drafts is not None:
            another = drafts.context.model is not self.model
            for one in allotted(drafts.context.handle, self.planned.devices):
                own = found.get(one.device, Allotted(one.device, 0, 0, 0))
                found[one.device] = Allotted(
                    one.device, own.weights + (one.weights if another else 0),
                    own.cache + one.cache, own.compute + one.compute,
                )  # fmt: skip
        return list(found.values())


def find_devices(remotes: Sequence[Remote]) -> Devices:
    """Find this machine's devices and the workers'; raises EngineError for one that is no use."""
    for remote in remotes:
        if remote.facts.problem:
            raise EngineError(f"The worker {remote.facts.address} {remote.facts.problem}.")
    start_backend()
    devices = Devices()
    for remote in remotes:
        facts = remote.facts
        several = len(facts.memory) > 1
        own = [
            Device(
                f"{facts.address}#{index}" if several else facts.address, "remote", free, total,
                f"llama.cpp RPC {facts.version}", facts.bandwidth, facts.latency_s,
            )
            for index, (free, total) in enumerate(facts.memory)
        ]  # fmt: skip
        devices.add_worker(facts.address, remote.local, own)
    return devices


def worker_facts(remotes: Sequence[Remote]) -> dict[str, str]:
    """Say of each worker whether it can be used, for `doctor`."""
    found = {}
    for remote in remotes:
        facts = remote.facts
        free = sum(free for free, _ in facts.memory)
        found[f"worker {facts.address}"] = facts.problem or (
            f"RPC {facts.version}, {rough_size(free)} free, "
            f"{rough_size(facts.bandwidth)}/s, {facts.latency_s * 1e3:.1f} ms there and back"
        )
    return found


def remote_notices(placement: Placement, remotes: Sequence[Remote]) -> list[str]:
    """Say what leaves this machine; the user must not have to guess."""
    used = [
        one.facts.address
        for one in remotes
        if any(name.split("#")[0] == one.facts.address for name in placement.devices)
    ]
    if not used:
        return []
    return [
        f"Layers are computed at {' and '.join(used)}: numbers made from your words go there, "
        "unencrypted save in a tunnel."
    ]


def plan_load(
    options: LoadOptions, remotes: Sequence[Remote] = (), always_measure: bool = False
) -> Planned:
    """Check a file and place it on this machine; raises ModelError and UsageError.

    Buffers are measured where something hangs on them: on devices, and in a memory that is nearly
    full.
    """
    info = read_info(Path(options.model))
    check_runnable(info)
    devices = find_devices(remotes)
    machine = hardware.read_machine(devices.values)
    drafting = choose_drafting(info, options.mtp, options.draft_model)
    shape = read_shape(info, drafting.file)
    wishes = wishes_from(options, drafting.on)
    placement = decide(shape, machine, wishes)
    if not _drafts_pay(_find_learnt(options, info, placement), placement.parallel):
        wishes = replace(wishes, drafts_pay=False)
        placement = decide(shape, machine, wishes)
    ram = placement.memory[0]
    if always_measure or placement.devices or ram.total > EASY_SHARE * machine.ram_free:
        placement = decide(
            shape, machine, wishes, lambda one: measure_compute(options.model, one, devices)
        )
    learnt = _find_learnt(options, info, placement)
    return Planned(info, shape, machine, devices, placement, drafting.notice, learnt)


def _files(info: GGUFInfo, placement: Placement) -> tuple[Path, ...]:
    drafting = (Path(placement.draft_file),) if placement.draft_file else ()
    return (*info.parts, *drafting)


def _find_learnt(
    options: LoadOptions, info: GGUFInfo, placement: Placement
) -> LearntStore | None:  # fmt: skip
    """Give where what drafting learns is kept, if the depth is automatic and it is wanted."""
    if options.mtp != "auto" or not placement.draft or not options.draft_memory:
        return None
    with contextlib.suppress(OSError):  # the file was moved meanwhile
        return LearntStore(learnt_key(_files(info, placement), placement, options.fixed.remote))
    return None


def _drafts_pay(learnt: LearntStore | None, most: int) -> bool:
    """Tell whether drafts pay as far as earlier starts know; they may if none does.

    `most`: sequences at once.
    """
    found = learnt.read() if learnt else {}
    known = [one.drafts for count, one in found.items() if count <= most]
    return not known or any(known)


def measure_compute(path: str, placement: Placement, devices: Devices) -> dict[str, int]:
    """Give the compute buffers of a placement by device, from a load that allots nothing."""
    compute = dict.fromkeys((CPU, *placement.devices), 0)
    with contextlib.ExitStack() as opened:
        models = _models(path, placement, devices, None, no_alloc=True)
        for model in dict.fromkeys(models):
            opened.callback(model.close)
        parallel = _parallel(models[0], placement)
        target = _target(models[0], placement, None, parallel)
        opened.callback(target.close)
        contexts = [target]
        if (drafts := _drafts(models[1], target, placement, parallel)) is not None:
            opened.callback(drafts.context.close)
            contexts.append(drafts.context)
        for context in contexts:
            for one in allotted(context.handle, devices):
                compute[one.device] = compute.get(one.device, 0) + one.compute
    return compute


def load(
    options: LoadOptions, progress: Callable[[float], None], abort: AbortFlag,
    remotes: Sequence[Remote] = (),
) -> LoadedParts:  # fmt: skip
    """Place and load a model; raises ModelError, UsageError, and EngineError from llama.cpp."""
    planned = plan_load(options, remotes)
    placement = planned.placement
    model, layer = _models(options.model, placement, planned.devices, progress)
    parallel = _parallel(model, placement)
    target = _target(model, placement, abort, parallel)
    where = _drafting_kind(planned)
    drafts = _drafts(layer, target, placement, parallel, alike=where == "gpu")
    drafter = drafts if isinstance(drafts, Drafter) else None
    if drafter and where:
        drafter.warm_up()
    lanes = drafts if isinstance(drafts, Lanes) else None
    return LoadedParts(planned, model, target, drafter, lanes, parallel)


def _models(
    path: str, placement: Placement, devices: Devices, progress: Callable[[float], None] | None,
    no_alloc: bool = False,
) -> tuple[Model, Model]:  # fmt: skip
    """Load a model, and the file with the layer that drafts, which may be the same."""
    own = placement.draft and not placement.draft_file
    model = Model(path, own, progress, Arrangement(placement, devices), no_alloc)
    if not placement.draft_file:
        return model, model
    arrangement = Arrangement(placement.of_draft_file(), devices)
    try:
        return model, Model(placement.draft_file, True, None, arrangement, no_alloc)
    except EngineError:
        model.close()
        raise


def _drafts(
    layer: Model, target: Context, placement: Placement, parallel: int, alike: bool = False
) -> Drafter | Lanes | None:
    """Make what drafts for a target context: for one sequence, for several, or nothing."""
    if not placement.draft:
        return None
    if parallel > 1:
        return Lanes(layer, target, placement.threads, parallel)
    return Drafter(layer, target, placement.threads, alike)


def _drafting_kind(planned: Planned) -> str:
    """Give the kind of device that has the layer that drafts, "" if none."""
    if not planned.placement.draft:
        return ""
    name = planned.placement.layers[-len(planned.shape.draft_layers)]  # the first of several
    return next((one.kind for one in planned.devices.values if one.name == name), "")


def _parallel(model: Model, placement: Placement) -> int:
    """Give how many sequences can be decoded together, with as many drafts as there may be."""
    return min(placement.parallel, placement.batch // (MAX_DEPTH + 1)) if model.branches else 1


def _target(
    model: Model, placement: Placement, abort: AbortFlag | None, parallel: int
) -> Context:  # fmt: skip
    return Context(
        model, placement.ctx, placement.threads, placement.batch, hidden=placement.draft,
        abort=abort, cache_type=placement.cache_type, sequences=parallel,
    )  # fmt: skip
