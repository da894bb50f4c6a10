"""How a model is placed: each choice made together with its reason.

Attention, shared experts, routers, dense layers and caches go to devices first, routed experts
last; the experts of the last layers stay in memory. What the user has fixed stays fixed, the rest
is decided around it. Knows nothing about files or llama.cpp's interface.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from localseek.errors import ModelError, UsageError
from localseek.options import MAX_DEPTH
from localseek.placing import words
from localseek.placing.filling import Filling, Need, Room, best_filling
from localseek.placing.host import choose_lock, choose_mapping, choose_threads
from localseek.placing.memory import (
    CONTEXT_STEP,
    DeviceMemory,
    Role,
    cells,
    estimate_compute,
    layer_cache,
)
from localseek.placing.placement import Measure, Placement, Wishes, at_once
from localseek.placing.rules import moved_parts, overrides
from localseek.placing.shape import CACHE_TYPES, Layer, ModelShape, Part
from localseek.system.machine import CPU, Device, Machine

DEFAULT_CTX = 32_768
LEAST_CTX = 4_096  # an automatic context shrinks to this before layers leave a device
BATCH, LARGE_BATCH = 512, 2048  # tokens of a prompt that are run at once
MARGIN, LEAST_MARGIN, MOST_MARGIN = 0.03, 256 * 2**20, 0.1  # of a device, for its driver
RAM_MARGIN = 0.05
ESTIMATE_OFF = 1.15  # buffers were seen to be a tenth more than estimated (memory.py)
RAM_SPEED = 40e9  # bytes a second of two memory channels; decides on parts of layers only
HOP_S = 100e-6  # from a device to the processor and back
SMALLER_CACHE = "q8_0"  # what is offered where a context in f16 is too large
ROUNDS = 3  # of measuring; the second nearly always confirms the first


def decide(
    shape: ModelShape, machine: Machine, wishes: Wishes, measure: Measure | None = None
) -> Placement:
    """Place a model; raises UsageError for what cannot be meant, ModelError for what cannot fit.

    With `measure`, compute buffers are those that llama.cpp says it needs.
    """
    placement = Decision(shape, machine, wishes).make()
    for _ in range(ROUNDS if measure else 0):
        assert measure is not None  # the loop is empty then
        before = placement
        placement = Decision(shape, machine, wishes, measure(before)).make()
        if placement.choice == before.choice:
            break
    return placement


class Decision:
    """One pass from the context to the reasons, for one idea of the compute buffers."""

    def __init__(
        self, shape: ModelShape, machine: Machine, wishes: Wishes,
        compute: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        self.shape, self.machine, self.wishes, self.measured = shape, machine, wishes, compute
        self.reasons: list[str] = []
        self.warnings: list[str] = []
        self.draft = wishes.draft and bool(shape.draft_layers)
        self.devices = self._devices()
        self.cache_type = wishes.cache_type or "f16"
        if self.cache_type not in CACHE_TYPES:
            known = ", ".join(CACHE_TYPES)
            raise UsageError(f"{self.cache_type!r} is not a cache type.", f"Known: {known}.")
        names = {CPU.lower(): CPU} | {d.name.lower(): d.name for d in machine.devices}
        self.moved = moved_parts(shape, wishes.place, names)
        self.batch = BATCH

    def make(self) -> Placement:
        """Decide everything."""
        ctx = self._context()
        filling = self._larger_batch(ctx, self._filling(ctx))
        layers, output = self._layers(filling)
        experts = self._experts(filling, layers)
        memory = self._memory(ctx, layers, experts, output)
        used = tuple(d.name for d in self.devices if d.name in (*layers, output))
        self.reasons += words.links([one for one in self.devices if one.name in used])
        self.reasons += words.layers(self.shape, layers, output, self.draft)
        self.reasons += words.experts(self.shape, layers, experts, memory)
        fits = self._in_ram(memory[0], ctx)
        parallel, reasons = at_once(self.wishes.parallel, ctx, self.shape.branches)
        self.reasons += reasons
        mapped, locked, threads = self._on_the_host(memory[0], used, fits)
        return Placement(
            devices=used, layers=layers, experts=experts, output=output,
            overrides=overrides(self.shape, layers, experts, self.moved, self._rules()),
            ctx=ctx, cache_type=self.cache_type, batch=self.batch,
            threads=threads, mmap=mapped, mlock=locked, repack=fits, draft=self.draft,
            parallel=parallel, memory=memory,
            measured=self.measured is not None, reasons=tuple(self.reasons),
            warnings=tuple(self.warnings), draft_file=self.shape.draft_file if self.draft else "",
        )  # fmt: skip

    # What there is to place on.

    def _devices(self) -> tuple[Device, ...]:
        """Give the devices in the order in which they are filled."""
        chosen = self.machine.devices
        asked = [name for name in self.wishes.devices if name.lower() not in ("none", "cpu")]
        if self.wishes.devices:
            chosen = tuple(self.machine.device(name) for name in asked)
        if self.wishes.gpu_layers == 0:
            return ()
        if self.wishes.gpu_layers and not chosen:
            raise UsageError("This machine has no device for --gpu-layers.", "Leave it out.")
        remote = sorted(
            (d for d in chosen if d.kind == "remote"), key=lambda device: -device.bandwidth
        )
        return (*(d for d in chosen if d.kind == "gpu"), *remote)

    def _rooms(self, ctx: int) -> list[Room]:
        rooms = []
        for device in self.devices:
            least = min(LEAST_MARGIN, int(MOST_MARGIN * device.free_bytes))
            margin = max(int(MARGIN * device.free_bytes), least)
            fixed = self._compute(device.name, ctx) + sum(
                part.size_bytes for part in self._all_parts() if self._is_moved_to(part, device)
            )
            rooms.append(Room(device.free_bytes - margin, fixed, device.kind == "remote"))
        return rooms

    def _all_parts(self) -> list[Part]:
        parts = [*self.shape.input, *self.shape.output]
        for layer in self._loaded():
            parts += [*layer.always, *layer.experts]
        return parts

    def _loaded(self) -> list[Layer]:
        return [layer for layer in self.shape.layers if self.draft or not layer.draft]

    def _is_moved_to(self, part: Part, device: Device) -> bool:
        return self.moved.get(part.name) == device.name

    def _cache(self, layer: Layer, ctx: int) -> int:
        snapshots = MAX_DEPTH if self.draft else 0
        return layer_cache(self.shape, layer.index, self.cache_type, ctx, self.batch, snapshots)

    def _compute(self, device: str, ctx: int) -> int:
        if self.measured is not None and device in self.measured:
            return self.measured[device]
        role = Role() if device != CPU or not self.devices else Role(False, False, True, True)
        contexts = 2 if self.draft else 1
        return contexts * estimate_compute(self.shape, ctx, self.batch, role)

    # Layers and context.

    def _needs(self, ctx: int) -> list[Need]:
        def stays(parts: Sequence[Part]) -> int:
            return sum(part.size_bytes for part in parts if part.name not in self.moved)

        needs = []
        for layer in self.shape.layers:
            if layer.draft and not self.draft:
                needs.append(Need(0, 0))
                continue
            cache = self._cache(layer, ctx)
            needs.append(Need(stays(layer.always) + cache, stays(layer.experts)))
        return needs

    def _best(self, ctx: int, free: bool = False) -> Filling | None:
        """Deal the layers as well as possible; `free`: as if the user had fixed nothing."""
        if not self.devices:
            return None
        head = sum(p.size_bytes for p in self.shape.output if p.name not in self.moved)
        needs, wished = self._needs(ctx), None if free else self.wishes.gpu_layers
        on_cpu = None if wished is None else max(0, len(needs) + 1 - wished)
        experts = None if free else self.wishes.cpu_experts
        return best_filling(needs, head, self._rooms(ctx), on_cpu, experts)

    def _filling(self, ctx: int) -> Filling | None:
        """Deal the layers; raises ModelError when what the user has fixed does not fit."""
        found = self._best(ctx)
        wished, experts = self.wishes.gpu_layers, self.wishes.cpu_experts
        if found is not None or not self.devices or (wished is None and experts is None):
            return found
        largest = self._best(ctx, free=True)
        fits = len(self.shape.layers) + 1 - words.first_on_device(largest) if largest else 0
        asked = f"--gpu-layers {wished}" if wished is not None else f"--cpu-experts {experts}"
        names = ", ".join(device.name for device in self.devices)
        raise ModelError(
            f"{asked} with a context of {ctx:,} tokens does not fit on {names}.",
            f"--gpu-layers {fits} would fit; without the option it is chosen for you.",
        )

    def _larger_batch(self, ctx: int, filling: Filling | None) -> Filling | None:
        """Read prompts in larger pieces if experts are in memory and the buffers push none out."""
        if filling is None or not self._leaves_experts(filling):
            return filling
        if all(device.kind == "remote" for device in self.devices):
            return filling  # a worker reads its weights as fast either way
        self.batch = LARGE_BATCH
        larger = self._best(ctx)
        first = words.first_on_device
        if larger is None or larger.kept < filling.kept - 1 or first(larger) > first(filling):
            self.batch = BATCH
            return filling
        self.reasons.append(
            f"prompts in pieces of {LARGE_BATCH:,} tokens: experts in memory are read once a piece"
        )
        return larger

    def _leaves_experts(self, filling: Filling) -> bool:
        """Tell whether experts of layers on devices stay in memory."""
        return any(
            layer.experts and filling.devices[layer.index] >= 0
            for layer in self._loaded()[filling.kept :]
        )

    def _context(self) -> int:
        """Choose the context: what the user says, else what fits of the default."""
        trained = self.shape.context_trained or DEFAULT_CTX
        if self.wishes.ctx:
            if self.wishes.ctx > trained:
                self.warnings.append(
                    f"The model was trained for {trained:,} tokens; "
                    f"what it says beyond them may be nonsense."
                )
            ctx = cells(self.wishes.ctx)
            if ctx != self.wishes.ctx:
                why = f"not {self.wishes.ctx:,}: caches come in steps of {CONTEXT_STEP}"
                self.reasons.append(f"context {ctx:,} tokens, {why}")
            return ctx
        wanted = min(trained, DEFAULT_CTX)
        least = min(wanted, LEAST_CTX)
        goal = self._first_layer(least)
        if self._first_layer(wanted) <= goal and self._cache_fits(wanted, goal):
            return wanted
        low, high = least // CONTEXT_STEP, wanted // CONTEXT_STEP  # `low` is taken anyway
        while low < high:
            middle = (low + high + 1) // 2
            ctx = middle * CONTEXT_STEP
            if self._first_layer(ctx) <= goal and self._cache_fits(ctx, goal):
                low = middle
            else:
                high = middle - 1
        ctx = max(least, low * CONTEXT_STEP)
        why = f"context {ctx:,} tokens, not {wanted:,}: more would push layers out"
        self.reasons.append(why + self._with_smaller_cache(ctx))
        return ctx

    def _with_smaller_cache(self, ctx: int) -> str:
        """Say what a quantized cache would hold; it loses a little, so the user chooses."""
        if self.wishes.cache_type:
            return ""
        wishes = replace(self.wishes, cache_type=SMALLER_CACHE)
        more = Decision(self.shape, self.machine, wishes, self.measured)._context()
        return f" (--cache-type {SMALLER_CACHE} would hold {more:,})" if more > ctx else ""

    def _first_layer(self, ctx: int) -> int:
        """Give the first layer on a device at a context; the count of layers when there is none."""
        return words.first_on_device(self._best(ctx)) if self.devices else 0

    def _cache_fits(self, ctx: int, first: int) -> bool:
        """Tell whether caches and buffers on the processor's side fit half of its memory."""
        return self._anonymous(ctx, first if self.devices else len(self.shape.layers)) <= (
            self.machine.ram_free // 2
        )

    def _anonymous(self, ctx: int, layers_on_cpu: int) -> int:
        here = self._loaded()[:layers_on_cpu]
        return sum(self._cache(one, ctx) for one in here) + self._compute(CPU, ctx)

    # Names of devices.

    def _layers(self, filling: Filling | None) -> tuple[tuple[str, ...], str]:
        """Name the device of each layer and of the output."""
        if filling is None:
            return (CPU,) * len(self.shape.layers), CPU
        names = [device.name for device in self.devices]
        return (
            tuple(names[index] if index >= 0 else CPU for index in filling.devices),
            names[filling.output],
        )

    def _experts(
        self, filling: Filling | None, layers: tuple[str, ...]
    ) -> tuple[tuple[str, ...], ...]:
        """Name the device of each expert tensor; of the first layer left out, parts that pay."""
        kept = filling.kept if filling is not None else 0
        rest = filling.spare if filling is not None else (0,) * len(self.devices)
        spare = {device.name: left for device, left in zip(self.devices, rest, strict=True)}
        placed: list[tuple[str, ...]] = []
        for layer, device in zip(self.shape.layers, layers, strict=True):
            here = device if layer.index < kept else CPU
            names = [here] * len(layer.experts)
            if layer.index == kept and device != CPU and self.wishes.cpu_experts is None:
                names = self._paying_parts(layer, device, spare[device])
            moved = [self.moved.get(part.name) for part in layer.experts]
            placed.append(tuple(m or name for m, name in zip(moved, names, strict=True)))
        return tuple(placed)

    def _paying_parts(self, layer: Layer, device: str, spare: int) -> list[str]:
        """Keep gate, up or down on the device where that saves more time than the hop costs."""
        names = []
        used = self.shape.n_expert_used / max(1, self.shape.n_expert)
        for part in layer.experts:
            saved_s = part.size_bytes * used / RAM_SPEED
            if saved_s > HOP_S and part.size_bytes <= spare:
                spare -= part.size_bytes
                names.append(device)
            else:
                names.append(CPU)
        return names

    def _rules(self) -> list[tuple[str, str]]:
        """Give the user's rules with the devices' own spelling."""
        names = {CPU.lower(): CPU} | {d.name.lower(): d.name for d in self.machine.devices}
        return [(rule, names[device.lower()]) for rule, device in self.wishes.place]

    # Memory.

    def _memory(
        self, ctx: int, layers: tuple[str, ...], experts: tuple[tuple[str, ...], ...], output: str
    ) -> tuple[DeviceMemory, ...]:
        """Sum up what lies where, the processor's memory first."""
        used = [CPU, *(d.name for d in self.devices)]
        weights, caches = dict.fromkeys(used, 0), dict.fromkeys(used, 0)
        drafts = dict.fromkeys(used, 0)

        def add(part: Part, device: str) -> None:
            weights[self.moved.get(part.name, device)] += part.size_bytes

        for part in self.shape.input:
            add(part, CPU)
        for part in self.shape.output:
            if output != CPU or part not in self.shape.input:  # tied: one copy serves both
                add(part, output)
        for layer in self._loaded():
            device = layers[layer.index]
            for part in layer.always:
                add(part, device)
            for part, name in zip(layer.experts, experts[layer.index], strict=True):
                add(part, name)
            cache = self._cache(layer, ctx)
            (drafts if layer.draft else caches)[device] += cache
        return tuple(
            DeviceMemory(name, weights[name], caches[name], drafts[name],
                         self._compute(name, ctx) if name in (CPU, *layers, output) else 0)
            for name in used
        )  # fmt: skip

    def _in_ram(self, ram: DeviceMemory, ctx: int) -> bool:
        """Tell whether the processor's part fits its memory; raises ModelError if it cannot run."""
        room = int(self.machine.ram_free * (1 - RAM_MARGIN))
        anonymous = ram.total - ram.weights
        if anonymous > room:
            most = self._largest_context(room, (ram.cache + ram.draft_cache) // cells(ctx), ctx)
            raise ModelError(
                words.too_large(ctx, anonymous, room),
                f"--ctx {most} would fit." if most else "Close other programs.",
            )
        if ram.total <= room:
            return True
        used = self.shape.n_expert_used / self.shape.n_expert if self.shape.n_expert else 1.0
        self.warnings += words.streaming(ram, room - anonymous, used)
        return False

    def _largest_context(self, room: int, a_token: int, refused: int) -> int:
        """Give the largest context whose caches and buffers fit a room, 0 if none does."""
        self.measured = None  # buffers grow with the context: only an estimate follows
        low, high = 0, refused // CONTEXT_STEP
        while low < high:
            middle = (low + high + 1) // 2
            ctx = middle * CONTEXT_STEP
            if a_token * ctx + int(ESTIMATE_OFF * self._compute(CPU, ctx)) <= room:
                low = middle
            else:
                high = middle - 1
        return low * CONTEXT_STEP

    def _on_the_host(
        self, ram: DeviceMemory, used: tuple[str, ...], fits: bool
    ) -> tuple[bool, bool, int]:
        """Decide whether the file is mapped, whether weights are locked, and the threads."""
        gpus = [one for one in self.devices if one.kind == "gpu" and one.name in used]
        gpu = gpus[0] if gpus else None
        mapped, threads = self.wishes.mmap, self.wishes.threads
        whys = []
        if mapped is None:
            pay = self.draft and self.wishes.drafts_pay and not used  # at workers they rarely do
            mapped, why = choose_mapping(self.shape, self.machine, gpu, ram, fits, pay)
            whys.append(why)
        if not threads:
            threads, why = choose_threads(self.shape, self.machine)
            whys.append(why)
        locked, why = choose_lock(self.machine, ram, fits)
        self.reasons += [one for one in (*whys, why) if one]
        return mapped, locked, threads
