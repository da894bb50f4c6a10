"""A model's shape with each layer's parts added up, and read back from plain data.

For lists of many models, kept beside their other facts: what is left decides on the same place, as
long as nobody moves single tensors. Takes and gives a `ModelShape`.
"""

from dataclasses import asdict, fields, replace
from typing import Any

from localseek.placing.caches import CompressedCache
from localseek.placing.shape import RECURRENT, Layer, ModelShape, Part


def condensed(shape: ModelShape) -> ModelShape:
    """Add up the parts of each layer; routed experts stay apart."""
    return replace(
        shape,
        layers=tuple(replace(one, always=_summed(one.always)) for one in shape.layers),
        input=_summed(shape.input),
        output=_summed(shape.output),
    )


def _summed(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Give one part of the same size; it keeps a name that tells of a recurrent state."""
    if not parts:
        return ()
    telling = next((part.name for part in parts if RECURRENT.search(part.name)), parts[0].name)
    return (Part(telling, sum(part.size_bytes for part in parts)),)


def to_plain(shape: ModelShape) -> dict[str, Any]:
    """Give a shape as JSON has it; parts as pairs, layers as lists, of which there are many."""
    plain = {field.name: getattr(shape, field.name) for field in fields(shape)}
    plain["layers"] = [[one.draft, _pairs(one.always), _pairs(one.experts)] for one in shape.layers]
    plain["input"], plain["output"] = _pairs(shape.input), _pairs(shape.output)
    plain["cache_floats"] = list(shape.cache_floats)
    plain["compressed"] = asdict(shape.compressed) if shape.compressed else None
    return plain


def from_plain(plain: dict[str, Any]) -> ModelShape:
    """Read what `to_plain` gave; raises KeyError, TypeError or ValueError for anything else."""
    found = dict(plain)
    found["layers"] = tuple(
        Layer(index, draft, _parts(always), _parts(experts))
        for index, (draft, always, experts) in enumerate(plain["layers"])
    )
    found["input"], found["output"] = _parts(plain["input"]), _parts(plain["output"])
    found["cache_floats"] = tuple(plain["cache_floats"])
    if plain["compressed"] is not None:
        sizes = dict(plain["compressed"])
        sizes["ratios"] = tuple(sizes["ratios"])
        found["compressed"] = CompressedCache(**sizes)
    return ModelShape(**found)


def _pairs(parts: tuple[Part, ...]) -> list[list[Any]]:
    return [[part.name, part.size_bytes] for part in parts]


def _parts(pairs: list[list[Any]]) -> tuple[Part, ...]:
    return tuple(Part(name, size) for name, size in pairs)
