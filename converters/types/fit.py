"""The best mixture that fits a size: which type each tensor gets so that the file is no larger.

Takes, for every tensor, the types that it may have with their sizes; gives a choice for each and
says what it costs. What is kept small is Σ weight × relative squared error over all tensors: near
its optimum a model's loss grows by about a constant times each tensor's relative squared error
("linearity theorem", Malinovskii et al. 2024, arXiv:2411.17525), whatever the tensor's size; so the
few bytes of attention, router and output are the cheapest to keep well, and routed experts take the
cut. The errors are measured (type_errors.py), the weights below are in part.
Does not know checkpoints, heads or rules: they limit the types that come in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gguf import GGMLQuantizationType as Kind

from converters.types.groups import ROUTED, Group, group_of, layer_of
from converters.types.recipes import outer_layers

# Loss a tensor for the same relative error, routed gate projections being 1. From the embedded
# model (tests/reference/measure_sensitivity.py): output 18, embedding 5, attention 1.2, dense 4,
# shared 0.3, gate 1, up 0.4, down 0.8. Raised where that model is too small to speak for others:
# what every token passes is not put below what one in thirty meets, and down projections, in the
# outer layers most, stand above gate and up, as llama-quantize has them.
_WEIGHTS: dict[Group, float] = {
    "output": 18.0,
    "embedding": 5.0,
    "attention": 2.0,
    "indexer": 2.0,
    "dense FFN": 4.0,
    "shared experts": 2.0,
    "routed experts, gate": 1.0,
    "routed experts, up": 1.0,
    "routed experts, down": 2.0,
}
_OTHER_WEIGHT = 2.0
_OUTER_WEIGHT = 1.5  # times that, in the first and last sixteenth of the layers with experts


@dataclass(frozen=True)
class Option:
    """A type that a tensor may have."""

    kind: Kind
    size_bytes: int  # in the file, padding included
    error: float  # relative, squared


@dataclass(frozen=True)
class Item:
    """A tensor to choose for: `options` grow in size and fall in error, the first is smallest."""

    name: str
    group: Group
    weight: float
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Step:
    """A change of one tensor to a larger type, and the loss that every byte of it takes away."""

    rate: float
    order: int  # among equal rates: outer layers first
    item: int
    option: int


@dataclass(frozen=True)
class Fit:
    """The option chosen for each item, and what the chosen options add up to."""

    chosen: tuple[int, ...]
    size_bytes: int
    loss: float


def make_items(
    names: Sequence[str], n_layer: int, allowed: Mapping[str, Sequence[Option]]
) -> list[Item]:
    """Weigh every tensor and keep of its options those that no smaller one equals in error."""
    outer = outer_layers(names, n_layer)
    items = []
    for name in names:
        group = group_of(name, n_layer)
        weight = _WEIGHTS.get(group, _OTHER_WEIGHT)
        if group in ROUTED and layer_of(name) in outer:
            weight *= _OUTER_WEIGHT
        items.append(Item(name, group, weight, _useful(allowed[name])))
    return items


def smallest(items: Sequence[Item]) -> int:
    """Return the least that the items can take, in bytes."""
    return sum(item.options[0].size_bytes for item in items)


def fit(items: Sequence[Item], budget: int) -> Fit:
    """Choose an option for each item, together at most `budget` bytes; ValueError if none fits.

    All start at their smallest; then the step that takes away most loss a byte is taken, as long as
    it fits. Steps run along each item's convex hull, so this is the optimum of the relaxed problem
    up to where the first step no longer fits, and off by less than that one step's gain there.
    """
    used = smallest(items)
    if used > budget:
        raise ValueError(f"the smallest options take {used} bytes, {budget} are allowed")
    chosen = [0] * len(items)
    stuck = [False] * len(items)
    for step in sorted(_steps(items), key=lambda step: (-step.rate, step.order)):
        item = items[step.item]
        now = item.options[chosen[step.item]].size_bytes
        cost = item.options[step.option].size_bytes - now
        if stuck[step.item] or used + cost > budget:
            stuck[step.item] = True
            continue
        used, chosen[step.item] = used + cost, step.option
    used = _fill_up(items, chosen, used, budget)
    return Fit(tuple(chosen), used, sum(map(_loss, items, chosen)))


def _useful(options: Sequence[Option]) -> tuple[Option, ...]:
    kept: list[Option] = []
    for option in sorted(set(options), key=lambda one: (one.size_bytes, one.error, one.kind)):
        if not kept or option.error < kept[-1].error:
            kept.append(option)
    return tuple(kept)


def _loss(item: Item, option: int) -> float:
    return item.weight * item.options[option].error


def _hull(item: Item) -> list[int]:
    """Return the options on the lower convex hull of error over size, in order of size."""
    hull: list[int] = []
    for index in range(len(item.options)):
        while len(hull) >= 2 and _rate(item, hull[-1], index) >= _rate(item, hull[-2], hull[-1]):
            hull.pop()
        hull.append(index)
    return hull


def _rate(item: Item, one: int, other: int) -> float:
    gain = _loss(item, one) - _loss(item, other)
    return gain / (item.options[other].size_bytes - item.options[one].size_bytes)


def _steps(items: Sequence[Item]) -> list[Step]:
    layers = [layer_of(item.name) for item in items]
    deepest = max(layers, default=0)
    # From the outside in: layers at both ends first, and of two at like distance the earlier.
    outside_in = sorted(
        range(len(items)), key=lambda n: (min(layers[n], deepest - layers[n]), layers[n], n)
    )
    order = {item: place for place, item in enumerate(outside_in)}
    found = []
    for index, item in enumerate(items):
        hull = _hull(item)
        for one, other in zip(hull, hull[1:], strict=False):
            found.append(Step(_rate(item, one, other), order[index], index, other))
    return found


def _fill_up(items: Sequence[Item], chosen: list[int], used: int, budget: int) -> int:
    """Spend what is left on single steps to any larger option, the greatest gain first."""
    by_gain = [
        (_loss(item, chosen[index]) - _loss(item, option), index, option)
        for index, item in enumerate(items)
        for option in range(chosen[index] + 1, len(item.options))
    ]
    done: defaultdict[int, bool] = defaultdict(bool)
    for _, index, option in sorted(by_gain, key=lambda one: (-one[0], one[1], one[2])):
        options = items[index].options
        cost = options[option].size_bytes - options[chosen[index]].size_bytes
        if not done[index] and used + cost <= budget:
            used, chosen[index], done[index] = used + cost, option, True
    return used
