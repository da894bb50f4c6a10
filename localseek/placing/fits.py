"""Whether a model fits on a machine, in a word and in a sentence.

Takes the facts of a file, a machine and load options, decides its place by estimate and says what
that means for memory. Loads nothing.
"""

from dataclasses import dataclass
from typing import Literal

from localseek.errors import LocalseekError
from localseek.gguf.draft_file import choose_drafting
from localseek.gguf.info import GGUFInfo
from localseek.options import LoadOptions
from localseek.placing.deciding import decide
from localseek.placing.placement import Placement, wishes_from
from localseek.placing.shape import ModelShape, read_shape
from localseek.system.machine import CPU, Machine
from localseek.system.sizes import rough_size


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether all of a model fits in memory, and why.

    `how` tells a model that is on devices as a whole from one whose experts are not.
    """

    fits: bool
    why: str
    how: Literal["yes", "experts in RAM", "no"] = "no"


def place(info: GGUFInfo, machine: Machine, options: LoadOptions) -> tuple[ModelShape, Placement]:
    """Decide a model's place by estimate; raises ModelError or UsageError where it has none."""
    drafting = choose_drafting(info, options.mtp, options.draft_model)
    shape = read_shape(info, drafting.file)
    return shape, decide(shape, machine, wishes_from(options, drafting.on))


def fit(info: GGUFInfo, machine: Machine, options: LoadOptions) -> Fit:
    """Tell whether a model fits on a machine, and why."""
    try:
        _, placement = place(info, machine, options)
    except LocalseekError as error:
        return Fit(False, error.message)
    return _judged(placement, machine)


def fit_shape(shape: ModelShape, drafts: bool, machine: Machine, options: LoadOptions) -> Fit:
    """Tell whether a model fits whose shape is known, and whether it drafts, and why."""
    try:
        placement = decide(shape, machine, wishes_from(options, drafts))
    except LocalseekError as error:
        return Fit(False, error.message)
    return _judged(placement, machine)


def _judged(placement: Placement, machine: Machine) -> Fit:
    ram, *devices = placement.memory
    needs = sum(one.total for one in placement.memory)
    missing = ram.total - machine.ram_free
    if missing > 0:
        return Fit(
            False,
            f"{rough_size(missing)} of its {rough_size(needs)} stay on the disk and are read over "
            "and over: slow",
        )
    where = f"{rough_size(ram.total)} of {rough_size(machine.ram_free)} free memory"
    on = sum(one.total for one in devices)
    if on:
        where += f", {rough_size(on)} on {', '.join(placement.devices)}"
    return Fit(True, f"takes {where}", "experts in RAM" if _parted(placement) else "yes")


def _parted(placement: Placement) -> bool:
    """Tell whether experts stay in memory while their layer is on a device."""
    return any(
        layer != CPU and CPU in names
        for layer, names in zip(placement.layers, placement.experts, strict=True)
    )
