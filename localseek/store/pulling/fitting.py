"""Which models of a repository fit on this machine, planned as `localseek plan` does.

Takes one model's facts, the sizes of the others and a machine. The models of a repository differ
in their types only: for a list, the tensors of one are scaled to the size of another; the one that
is chosen in the end is planned with its own head. Knows nothing about networks.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from localseek.errors import LocalseekError
from localseek.gguf.info import GGUFInfo
from localseek.options import LoadOptions
from localseek.placing.fits import Fit, fit
from localseek.store.pulling.choosing import Model
from localseek.store.pulling.remote import brief
from localseek.system.machine import Machine
from localseek.system.sizes import rough_size

MOST_PLANNED = 200  # models of a list: planning takes 2 ms for each, and more for large ones


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model of a repository, and whether it fits."""

    model: Model
    fit: Fit


OpenInfo = Callable[[Model], AbstractContextManager[GGUFInfo]]


def scaled(info: GGUFInfo, size_bytes: int) -> GGUFInfo:
    """Give the facts of a model as they would be if its file had another size."""
    share = size_bytes / max(1, info.size_bytes)
    tensors = tuple(replace(t, size_bytes=round(t.size_bytes * share)) for t in info.tensors)
    return replace(info, tensors=tensors, size_bytes=size_bytes)


def candidates(
    models: Sequence[Model], machine: Machine, open_info: OpenInfo
) -> tuple[list[Candidate], str]:
    """Judge every model by the head of the smallest, and say what was assumed."""
    if len(models) > MOST_PLANNED:
        return [Candidate(model, by_size(model, machine)) for model in models], "by size alone"
    smallest = min(models, key=lambda model: model.size_bytes)
    options = LoadOptions(model="", mtp="off")  # what drafts need is little, and may be left out
    try:
        with open_info(smallest) as info:
            found = [
                Candidate(model, fit(scaled(info, model.size_bytes), machine, options))
                for model in models
            ]
    except LocalseekError:
        return [Candidate(model, by_size(model, machine)) for model in models], "by size alone"
    name = smallest.type or brief(smallest.name)
    return found, f"planned with the head of {name}, the sizes scaled"


def by_size(model: Model, machine: Machine) -> Fit:
    """Tell whether the weights alone fit in memory, where a head cannot be read."""
    free = machine.ram_free + sum(device.free_bytes for device in machine.devices)
    words = f"{rough_size(model.size_bytes)} of weights, {rough_size(free)} free"
    return Fit(model.size_bytes < free, words)


def best_fitting(
    models: Sequence[Model], machine: Machine, open_info: OpenInfo
) -> Candidate | None:
    """Give the largest quantized model that fits, planned with its own head; None if none does.

    Unquantized files (F16, BF16) are taken only where a repository has nothing else: they are
    slower, and hardly better than Q8_0.
    """
    quantized = [model for model in models if model.quantized]
    options = LoadOptions(model="", mtp="off")
    for model in sorted(quantized or models, key=lambda model: -model.size_bytes):
        if not by_size(model, machine).fits:
            continue
        try:
            with open_info(model) as info:
                found = fit(info, machine, options)
        except LocalseekError:
            found = by_size(model, machine)
        if found.fits:
            return Candidate(model, found)
    return None
