"""A placement as text: a table of memory, and the layers drawn by device.

Takes a `ModelShape`, a `Machine` and a `Placement`, gives lines. Decides nothing.
"""

from localseek.placing.placement import Placement
from localseek.placing.shape import ModelShape
from localseek.system.machine import CPU, Machine
from localseek.system.sizes import rough_size
from localseek.terminal.columns import GAP, table
from localseek.terminal.messages import one_line

ROW, LEAST_ROW = 64, 10  # layers a line
WHOLE, ALWAYS, EXPERTS, SOME, NOTHING = "█", "▀", "▄", "▓", "·"
LEGEND = {
    WHOLE: "whole layer", ALWAYS: "all but its experts", EXPERTS: "its experts",
    SOME: "some of its expert tensors", NOTHING: "nothing",
}  # fmt: skip


def plan_page(
    shape: ModelShape, machine: Machine, placement: Placement, width: int | None = None
) -> list[str]:
    """Give the whole plan: what the model is, memory, layers, caches, reasons, warnings."""
    size = rough_size(shape.weights_bytes)
    what = f"{one_line(shape.name)}: {shape.architecture}, {shape.type}, {size}"
    lines = [f"{what}, {len(shape.layers)} layers, context {placement.ctx:,}", ""]
    lines += memory_table(machine, placement, width)
    lines += ["", *layer_rows(shape, placement, width), "", *cache_lines(shape, placement)]
    how = "measured by a load without weights" if placement.measured else "estimated"
    lines += [f"buffers: {how}; prompts in pieces of {placement.batch}", ""]
    lines += [f"- {reason}" for reason in placement.reasons]
    return [*lines, *(f"! {warning}" for warning in placement.warnings)]


def place_name(device: str) -> str:
    """Give what people call a place."""
    return "processor" if device == CPU else device


def memory_table(machine: Machine, placement: Placement, width: int | None = None) -> list[str]:
    """Show what lies on each device by part, and what there is."""
    rows = [("", "weights", "cache", "draft cache", "buffers", "together", "of")]
    free = {CPU: machine.ram_free} | {d.name: d.free_bytes for d in machine.devices}
    for one in placement.memory:
        sizes = (one.weights, one.cache, one.draft_cache, one.compute, one.total)
        cells = [rough_size(size) if size else "-" for size in (*sizes, free[one.device])]
        rows.append((place_name(one.device), *cells))  # type: ignore[arg-type]  # seven they are
    return table(rows, width)


def layer_rows(shape: ModelShape, placement: Placement, width: int | None = None) -> list[str]:
    """Draw a line for each device and each 64 layers: what of a layer is there.

    Fewer layers a line where the terminal has fewer columns than that takes.
    """
    names = [CPU, *placement.devices]
    beside = max(len(place_name(name)) for name in names)
    room = ROW if width is None else (width - beside - len(GAP)) // 10 * 10
    each = max(LEAST_ROW, min(ROW, room))
    count = len(shape.layers)
    lines = []
    seen: set[str] = set()
    for start in range(0, count, each):
        layers = range(start, min(count, start + each))
        marks = "".join(f"{n:<10}" for n in layers if n % 10 == 0)
        lines.append(f"{'layer':{beside}}  {marks[: len(layers) + 4].rstrip()}")
        for name in names:
            drawn = "".join(_mark(shape, placement, index, name) for index in layers)
            seen |= set(drawn)
            lines.append(f"{place_name(name):{beside}}  {drawn}")
    said = [f"{mark} {what}" for mark, what in LEGEND.items() if mark in seen]
    legend = f"{'':{beside}}{GAP}{'   '.join(said)}"
    return [*lines, *([legend] if width is None or len(legend) <= width else said)]


def _mark(shape: ModelShape, placement: Placement, index: int, device: str) -> str:
    layer = shape.layers[index]
    if layer.draft and not placement.draft:
        return NOTHING
    attention = placement.layers[index] == device
    experts = placement.experts[index]
    here = sum(name == device for name in experts)
    if attention:
        return WHOLE if here == len(experts) else SOME if here else ALWAYS
    return NOTHING if not here else EXPERTS if here == len(experts) else SOME


def cache_lines(shape: ModelShape, placement: Placement) -> list[str]:
    """Say what a token adds to the caches, beside what attention without compression would."""
    each = shape.cache_bytes(placement.cache_type)
    beyond = " beyond the window" if shape.compressed else ""
    lines = [f"cache: {each:,} B a token{beyond} in {placement.cache_type}"]
    full = shape.full_attention_bytes
    if shape.latent and each:
        times = full / shape.cache_bytes("f16")
        lines.append(f"full attention would take {full:,} B a token in f16, {times:.0f} times it")
    if placement.draft:
        each = shape.cache_bytes("f16", draft=True)
        lines.append(f"draft cache: {each:,} B a token in f16" if each else "draft cache: a window")
    return lines
