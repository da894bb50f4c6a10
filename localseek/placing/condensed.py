"""A model's shape with each layer's parts added up, and read back from plain data.

For lists of many models, kept beside their other facts: what is left decides on the same place, as
long as nobody moves single tensors. Takes and gives a `ModelShape`.
"""

from dataclasses import replace
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


def from_plain(plain: dict[str, Any]) -> ModelShape:
    """Read what `asdict` gave; raises KeyError, TypeError or ValueError for anything else."""
    found = dict(plain)
    found["layers"] = tuple(
        Layer(
            int(one["index"]), bool(one["draft"]), _parts(one["always"]), _parts(one["experts"])
        )
        for one in plain["layers"]
    )  # fmt: skip
    found["input"], found["output"] = _parts(plain["input"]), _parts(plain["output"])
    found["cache_floats"] = tuple(int(floats) for floats in plain["cache_floats"])
    if plain["compressed"] is not None:
        sizes = dict(plain["compressed"])
        sizes["ratios"] = tuple(int(ratio) for ratio in sizes["ratios"])
        found["compressed"] = CompressedCache(**sizes)
    return ModelShape(**found)


def _parts(plain: list[dict[str, Any]]) -> tuple[Part, ...]:
    return tuple(Part(str(one["name"]), int(one["size_bytes"])) for one in plain)
