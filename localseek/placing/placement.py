"""What of a model goes where on a machine: the decision as a value, and the user's part in it.

`decide` takes a `ModelShape`, a `Machine` and what the user has fixed (`Wishes`), gives a frozen
`Placement` that the engine hands to llama.cpp. How it is found stands in deciding.py. Knows
nothing about files or llama.cpp's interface.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from localseek.options import LoadOptions
from localseek.placing.memory import DeviceMemory
from localseek.system.machine import CPU, Device, Machine

# Sequences; eight instead of four gave 17 to 38 % more tokens a second where drafts do not pay, as
# many where they do (tests/bench/batching.py, two cores).
PARALLEL = 8
SEQUENCE_TOKENS = 1024  # of context for each of several sequences, on the average


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user has fixed; None, 0 and empty leave it to the decision.

    `drafts_pay` is not a wish, but known from earlier starts.
    """

    ctx: int = 0
    gpu_layers: int | None = None  # as llama.cpp counts: the output is one
    cpu_experts: int | None = None  # last layers whose experts stay in memory
    place: tuple[tuple[str, str], ...] = ()  # (regular expression over tensor names, device)
    devices: tuple[str, ...] = ()
    cache_type: str = ""
    mmap: bool | None = None
    threads: int = 0
    draft: bool = True
    drafts_pay: bool = True
    parallel: int = 1  # sequences at once; 0: chosen


@dataclass(frozen=True, slots=True)
class Placement:
    """A decision with its reasons. `CPU` is the processor with its memory."""

    devices: tuple[str, ...]  # that are used, in the order in which layers are dealt to them
    layers: tuple[str, ...]  # the device of each layer's attention and of its cache
    experts: tuple[tuple[str, ...], ...]  # of each layer's expert tensors; () where it has none
    output: str
    overrides: tuple[tuple[str, str], ...]  # (regular expression over tensor names, device)
    ctx: int
    cache_type: str  # of the target; a draft's cache is f16 always
    batch: int
    threads: int
    mmap: bool
    mlock: bool
    repack: bool  # weights in memory are copied into the order that the kernels like best
    draft: bool
    parallel: int  # sequences that share the context
    memory: tuple[DeviceMemory, ...]  # the processor's first
    measured: bool  # compute buffers by a load that allots nothing, not by estimate
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    draft_file: str = ""  # the file that the last layer, which drafts, comes from; "": the model's

    @property
    def _dealt(self) -> tuple[str, ...]:
        """Give the device of each layer of the model's own file, and of the output."""
        own = self.layers[:-1] if self.draft_file else self.layers
        return (*own, self.output)

    @property
    def gpu_layers(self) -> int:
        """Count the layers on devices, the output as one, as llama.cpp does."""
        return sum(name != CPU for name in self._dealt)

    @property
    def split(self) -> tuple[int, ...]:
        """Give the layers of each device, the output as one: llama.cpp's tensor_split."""
        return tuple(self._dealt.count(name) for name in self.devices)

    def of_draft_file(self) -> "Placement":
        """Give the placement of the file that drafts: as a whole where its layer is."""
        device = self.layers[-1]
        devices = () if device == CPU else (device,)
        layers = (device,) * len(self.layers)
        return replace(self, devices=devices, layers=layers, output=device, draft_file="")

    @property
    def choice(self) -> tuple[object, ...]:
        """Give what the engine is told, without figures and words."""
        return (
            self.layers, self.experts, self.output, self.overrides, self.ctx, self.batch,
            self.parallel,
        )  # fmt: skip


# Compute bytes by device that llama.cpp says a placement needs.
Measure = Callable[[Placement], Mapping[str, int]]


def at_once(wish: int, ctx: int, branches: bool) -> tuple[int, list[str]]:
    """Choose how many sequences share a context unless the user has; give it with reasons.

    `branches`: the model's cache can be shared at all.
    """
    if not branches:
        alone = "one at a time: the cache of this family cannot be shared"
        return 1, [alone] if wish != 1 else []
    if wish:
        return wish, []
    parallel = max(1, min(PARALLEL, ctx // SEQUENCE_TOKENS))
    return parallel, [
        f"{parallel} at once: they share {ctx:,} tokens of context, and each reading of the "
        "weights serves all"
    ]


def wishes_from(options: LoadOptions, draft: bool) -> Wishes:
    """Give what load options fix of a placement; `draft` if the model can and may."""
    fixed = options.fixed
    return Wishes(
        ctx=options.ctx,
        gpu_layers=fixed.gpu_layers,
        cpu_experts=fixed.cpu_experts,
        place=fixed.place,
        devices=fixed.devices,
        cache_type=fixed.cache_type,
        mmap=fixed.mmap,
        threads=options.threads,
        draft=draft,
        parallel=options.parallel,
    )


def placement_from(message: Mapping[str, Any]) -> tuple[Machine, Placement]:
    """Read a machine and a placement from the engine's message."""
    placement = dict(message["placement"])
    placement["memory"] = tuple(DeviceMemory(**one) for one in placement["memory"])
    for name in ("experts", "overrides"):
        placement[name] = tuple(tuple(one) for one in placement[name])
    for name in ("devices", "layers", "reasons", "warnings"):
        placement[name] = tuple(placement[name])
    return machine_from(message), Placement(**placement)


def machine_from(message: Mapping[str, Any]) -> Machine:
    """Read a machine from the engine's message."""
    machine = dict(message["machine"])
    machine["devices"] = tuple(Device(**device) for device in machine["devices"])
    return Machine(**machine)
