"""--fit SIZE: the types of a model's tensors chosen so that the file is no larger.

Takes tensors, the rules that hold for every mixture (recipe.py: norms and router in F32, the MTP
layer at Q8_0, --tensor-type, widths, missing importance) and the bytes that the tensors may take.
Gives a choice for each tensor and a table of what was chosen and what more would cost. The choosing
itself is in fit.py. Does not know checkpoints or heads.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from gguf import GGMLQuantizationType as Kind

from converters.errors import ConvertError
from converters.header import padded
from converters.kernels.quantize import row_bytes
from converters.types.fit import Fit, Item, Option, fit, make_items, smallest
from converters.types.groups import GROUPS, Group, layer_of
from converters.types.mixtures import Choice, Facts, Shape
from converters.types.recipe import Visit, choose_types
from converters.types.type_errors import RELATIVE_ERRORS

# Ternary and one-bit types are left out: they are for models that were trained in them. So is F32:
# no release has weights that BF16 does not hold.
_CANDIDATES = (
    Kind.BF16, Kind.Q8_0, Kind.Q6_K, Kind.Q5_K, Kind.Q5_1, Kind.Q5_0, Kind.Q4_K, Kind.Q4_1,
    Kind.Q4_0, Kind.IQ4_NL, Kind.IQ4_XS, Kind.Q3_K, Kind.IQ3_S, Kind.Q2_K, Kind.MXFP4,
)  # fmt: skip
_WITH_IMATRIX = (
    Kind.IQ3_XXS, Kind.IQ2_S, Kind.IQ2_XS, Kind.IQ2_XXS, Kind.IQ1_M, Kind.IQ1_S,
)  # fmt: skip
_CHOSEN = "chosen to fit the size"


@dataclass(frozen=True)
class FitLine:
    """The tensors of one part that got the same type."""

    group: Group
    layers: str  # such as "3–6, 55–60", or nothing
    type: str
    tensors: int
    size_bytes: int
    loss_share: float  # of the whole expected loss, 0..1
    why: str


@dataclass(frozen=True)
class Fitted:
    """What --fit chose: the limit that was given, the least possible, and the choice by part."""

    limit_bytes: int
    smallest_bytes: int  # of the whole file, with the candidates that there were
    reserved_bytes: int  # left free for a tokenizer that is not there yet
    lines: tuple[FitLine, ...]


def fit_types(
    tensors: Sequence[Shape],
    facts: Facts,
    limit_bytes: int,
    head_bytes: int,
    reserved_bytes: int = 0,
    overrides: Sequence[tuple[str, str]] = (),
    important: Container[str] = frozenset(),
) -> tuple[dict[str, Choice], Fitted]:
    """Choose types so that head, tensors and reserve take at most `limit_bytes`.

    Raises ConvertError that names the smallest possible file if none fits.
    """
    kinds = _CANDIDATES + (_WITH_IMATRIX if facts.has_imatrix else ())
    plans = [choose_types(tensors, _always(kind), facts, overrides, important) for kind in kinds]
    allowed = {
        tensor.name: [_option(kind, tensor) for kind in {plan[tensor.name].kind for plan in plans}]
        for tensor in tensors
    }
    items = make_items([tensor.name for tensor in tensors], facts.n_layer, allowed)
    fixed = head_bytes + reserved_bytes
    least = smallest(items) + fixed
    if least > limit_bytes:
        raise ConvertError(_nothing_fits(limit_bytes, least, facts))
    found = fit(items, limit_bytes - fixed)
    choices = {
        item.name: _choice(item, chosen, plans)
        for item, chosen in zip(items, found.chosen, strict=True)
    }
    return choices, Fitted(limit_bytes, least, reserved_bytes, _lines(items, found))


def _always(kind: Kind) -> Visit:
    return lambda tensor: Choice(kind, _CHOSEN)


def _option(kind: Kind, tensor: Shape) -> Option:
    *outer, cols = tensor.shape
    size = padded(math.prod(outer) * row_bytes(kind, cols))
    # What is stored as blocks of this type is copied.
    return Option(kind, size, 0.0 if kind == tensor.stored else RELATIVE_ERRORS[kind.name])


def _choice(item: Item, chosen: int, plans: Iterable[dict[str, Choice]]) -> Choice:
    """Return the rule's own reason where a rule left no choice."""
    kind = item.options[chosen].kind
    if len(item.options) > 1:
        return Choice(kind, _CHOSEN)
    return next(plan[item.name] for plan in plans if plan[item.name].kind == kind)


def _nothing_fits(limit: int, least: int, facts: Facts) -> str:
    ways = []
    if facts.n_layer_all > facts.n_layer:
        ways.append("--mtp drop leaves out the MTP layer")
    if not facts.has_imatrix:
        ways.append("smaller types need --imatrix FILE")
    more = f" ({', '.join(ways)})" if ways else ""
    return f"nothing fits {limit:,} bytes: the smallest possible file takes {least:,}{more}"


def _lines(items: Sequence[Item], found: Fit) -> tuple[FitLine, ...]:
    members: defaultdict[tuple[Group, Kind], list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        members[item.group, item.options[found.chosen[index]].kind].append(index)
    lines = []
    for (group, kind), indices in sorted(
        members.items(), key=lambda one: (GROUPS.index(one[0][0]), -one[0][1])
    ):
        options = [items[index].options[found.chosen[index]] for index in indices]
        loss = sum(
            items[index].weight * option.error
            for index, option in zip(indices, options, strict=True)
        )
        lines.append(
            FitLine(
                group,
                _ranges(layer_of(items[index].name) for index in indices),
                kind.name,
                len(indices),
                sum(option.size_bytes for option in options),
                loss / found.loss if found.loss else 0.0,
                _next_step([(items[index], found.chosen[index]) for index in indices], found.loss),
            )
        )
    return tuple(lines)


def _next_step(members: Sequence[tuple[Item, int]], loss: float) -> str:
    """Say what it would cost to give these tensors the next better type, and what it would save."""
    if all(len(item.options) == 1 for item, _ in members):
        return "no choice"
    cost = saved = 0.0
    kinds = set()
    for item, chosen in members:
        if chosen + 1 < len(item.options):
            now, other = item.options[chosen], item.options[chosen + 1]
            cost += other.size_bytes - now.size_bytes
            saved += item.weight * (now.error - other.error)
            kinds.add(other.kind.name)
    if not kinds:
        return "the best there is"
    share = saved / loss if loss else 0.0
    size = f"{cost / 1e6:,.1f} MB" if cost >= 1e6 else f"{cost / 1e3:,.1f} kB"
    return f"{', '.join(sorted(kinds))} would cost {size} for {share:.1%} of the loss"


def _ranges(layers: Iterable[int]) -> str:
    """Write layer numbers as 3–6, 55–60; those of no layer (-1) are left out."""
    runs: list[list[int]] = []
    for layer in sorted(set(layers) - {-1}):
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in runs)
