"""What llama-quantize chose (golden_types.json), and how our recipe is compared with it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import golden_models
from golden_shapes import LISTED

from converters.families import find_family
from converters.layout import Target
from converters.source.checkpoint import Checkpoint
from converters.source.config import Config
from converters.types.mixtures import MIXTURES, PLAIN, Facts, Shape
from converters.types.recipe import NEED_IMATRIX, choose_types, model_facts

FILE = Path(__file__).parent / "golden_types.json"
CHECKPOINTS = tuple(name for name in golden_models.MODELS if name not in golden_models.SAME_TYPES)


@dataclass(frozen=True)
class Column:
    """A mixture, without or with an importance matrix."""

    mixture: str
    imatrix: bool


_QUANTIZED = tuple(name for name, mixture in MIXTURES.items() if mixture.base not in PLAIN)
COLUMNS = (
    *(Column(name, False) for name in _QUANTIZED if name not in NEED_IMATRIX),
    *(Column(name, True) for name in _QUANTIZED),
)
REFUSED = "-"  # llama-quantize stops where rows hold no whole blocks of Q1_0

Types = dict[Column, dict[str, str]]


def load() -> dict[str, Types]:
    """Return the types by model, column and tensor."""
    return {name: expand(rows) for name, rows in json.loads(FILE.read_text()).items()}


def expand(rows: dict[str, list[str]]) -> Types:
    """Turn lines of types and the tensors that share them into types by column and tensor."""
    types: Types = {column: {} for column in COLUMNS}
    for row, names in rows.items():
        for column, kind in zip(COLUMNS, row.split(), strict=True):
            types[column] |= dict.fromkeys(names, kind)
    return types


def model_of(name: str, folder: Path) -> tuple[Facts, list[Shape]]:
    """Return what the recipe is asked about a golden model; `folder` is where a checkpoint is."""
    if name in LISTED:
        listed = LISTED[name]
        return model_facts(listed.architecture, listed.values), list(listed.tensors)
    with Checkpoint(folder) as checkpoint:
        config = Config(checkpoint.read_json("config.json"))
        family = find_family(config)
        values = family.metadata(config, checkpoint, True).values
        described = list(family.tensors(config, checkpoint, True))
    shapes = [Shape(one.name, one.shape) for one in described if isinstance(one, Target)]
    return model_facts(family.GGUF_ARCHITECTURE, values), shapes


def differences(name: str, folder: Path, expected: Types) -> list[str]:
    """Name every tensor of the trunk to which our recipe gives another type."""
    facts, shapes = model_of(name, folder)
    names = {shape.name for shape in shapes}
    found = []
    for column in COLUMNS:
        chosen = choose_types(
            shapes,
            column.mixture,
            replace(facts, has_imatrix=column.imatrix),
            important=names if column.imatrix else (),
        )
        found += [
            f"{column}: {shape.name} is {chosen[shape.name].kind.name}, "
            f"not {expected[column].get(shape.name)}"
            for shape in shapes
            if shape.layer < facts.n_layer
            and expected[column].get(shape.name) != REFUSED
            and chosen[shape.name].kind.name != expected[column].get(shape.name)
        ]
    return found
