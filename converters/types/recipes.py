"""Our own mixtures for DeepSeek's experts: names for --type that llama-quantize does not know.

Every token passes attention, shared experts, the first dense layers, output and embedding, which
together are a twentieth of a V3; 248 of 256 routed experts sleep at any one token and are the rest.
So the former keep six or eight bits and the latter take the cut: gate and up projections the
recipe's own bits, down projections and the outer layers a step more, and both together two.
Takes a tensor's name and the model's depth, gives its type and why. Router, norms and MTP layer
are held higher by recipe.py for every mixture.
Does not know widths, overrides or data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gguf import GGMLQuantizationType as Kind
from gguf import LlamaFileType

from converters.types.groups import ROUTED, group_of, layer_of
from converters.types.mixtures import Choice, Shape


@dataclass(frozen=True)
class Recipe:
    """A mixture by part; `experts` are the types of routed experts from the fewest bits up."""

    file_type: LlamaFileType  # of the standard mixture next to it: general.file_type has no more
    always_used: Kind  # attention, indexer, dense layers, shared experts
    output: Kind
    embedding: Kind
    experts: tuple[Kind, Kind, Kind]


RECIPES: dict[str, Recipe] = {
    "DS_Q4": Recipe(
        LlamaFileType.MOSTLY_Q4_K_M, Kind.Q8_0, Kind.Q8_0, Kind.Q6_K,
        (Kind.Q4_K, Kind.Q5_K, Kind.Q6_K),
    ),
    "DS_Q3": Recipe(
        LlamaFileType.MOSTLY_Q3_K_M, Kind.Q8_0, Kind.Q8_0, Kind.Q6_K,
        (Kind.Q3_K, Kind.Q4_K, Kind.Q5_K),
    ),
    "DS_Q2": Recipe(
        LlamaFileType.MOSTLY_Q2_K, Kind.Q6_K, Kind.Q6_K, Kind.Q5_K,
        (Kind.Q2_K, Kind.Q3_K, Kind.Q4_K),
    ),
}  # fmt: skip


# By (down projection, outer layer).
_WHY = {
    (False, False): "routed experts take the cut",
    (False, True): "routed experts of an outer layer, a step more",
    (True, False): "down projections, a step more",
    (True, True): "down projections of an outer layer, two steps more",
}


def outer_layers(names: Iterable[str], n_layer: int) -> frozenset[int]:
    """Return the first and last sixteenth of the layers with routed experts, at least one each."""
    layers = sorted({layer_of(name) for name in names if group_of(name, n_layer) in ROUTED})
    count = max(1, len(layers) // 16)
    return frozenset(layers[:count] + layers[-count:])


def recipe_visit(
    recipe: Recipe, tensors: Sequence[Shape], n_layer: int
) -> Callable[[Shape], Choice]:
    """Return what chooses a tensor's type under a recipe."""
    outer = outer_layers((tensor.name for tensor in tensors), n_layer)

    def visit(tensor: Shape) -> Choice:
        group = group_of(tensor.name, n_layer)
        if group == "output":
            return Choice(recipe.output, "every token ends here")
        if group == "embedding":
            return Choice(recipe.embedding, "every token begins here")
        if group not in ROUTED:
            return Choice(recipe.always_used, "every token passes it")
        down, outside = group == "routed experts, down", tensor.layer in outer
        return Choice(recipe.experts[down + outside], _WHY[down, outside])

    return visit
