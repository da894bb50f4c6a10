"""A GGUF file → the plan of another: other types, the same metadata, and an MTP layer if asked for.

Takes an open GGUF file and the type rules, and the checkpoint with the layer to add. Metadata is
copied as bytes in its order; only what tells the types, and how they came, is written again. Types
are those that llama-quantize chooses for the file; tensors that have theirs already are copied.
Does not know how tensors are decoded or written.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gguf import GGML_QUANT_VERSION
from gguf import GGMLQuantizationType as Kind

from converters.errors import ConvertError
from converters.layout import Metadata, Piece, Target, Value
from converters.planning.draft_layer import DraftLayer, take_draft_layer
from converters.planning.origin import recipe_text, repeated_metadata
from converters.planning.plan import Plan, lay_out
from converters.source.gguf_source import GGUFFile
from converters.source.source import StoredTensor
from converters.types.imatrix import Imatrix
from converters.types.importance import imatrix_metadata, importance_warnings, match_importance
from converters.types.mixtures import Choice, Facts, Shape
from converters.types.recipe import KEEP, canonical_type, choose_types, file_type, model_facts

_PLAIN = ("F32", "F16", "BF16")
# Quantizing Q8_0 again adds under a hundredth to the error of Q6_K, less to that of smaller types.
_NEARLY_LOSSLESS = (*_PLAIN, "Q8_0")


def plan_requantized(
    model: GGUFFile,
    type_name: str,
    overrides: Sequence[tuple[str, str]] = (),
    name: str | None = None,
    mtp_from: Path | None = None,
    imatrix: Imatrix | None = None,
) -> Plan:
    """Plan a file with other types; `type_name` KEEP keeps them, `mtp_from` is a checkpoint.

    Raises ConvertError. With `mtp_from`, the checkpoint's tensors are among the model's afterwards.
    """
    stored = list(model.tensors.values())
    targets = [_as_stored(one) for one in stored]
    shapes = [Shape(one.name, one.shape, kind_of(one)) for one in stored]
    metadata: dict[str, Value] = dict(model.metadata)
    recipe = recipe_text(type_name, overrides=overrides, imatrix=imatrix) + (
        " --add-mtp" if mtp_from else ""
    )
    origin = repeated_metadata(model, recipe)  # before it has tensors of another source
    added = take_draft_layer(model, mtp_from) if mtp_from else DraftLayer((), {})
    targets += added.targets
    shapes += [Shape(one.name, one.shape) for one in added.targets]
    metadata |= added.metadata
    importance = match_importance(imatrix, shapes) if imatrix else {}
    facts = replace(_facts(model, added.metadata), has_imatrix=imatrix is not None)
    choices = choose_types(shapes, type_name, facts, overrides, importance)
    if type_name.upper() != KEEP:
        metadata["general.file_type"] = int(file_type(canonical_type(type_name)))
    metadata["general.quantization_version"] = GGML_QUANT_VERSION
    metadata |= origin
    if name is not None:
        metadata["general.name"] = name
    warnings = (*_warnings(stored, choices), *added.warnings)
    if imatrix:
        metadata |= imatrix_metadata(imatrix)
        warnings += importance_warnings(imatrix, importance, shapes, choices)
    return lay_out(
        model.architecture,
        metadata,
        targets,
        choices,
        added.dropped,
        warnings,
        model.alignment,
        importance,
    )


def _as_stored(tensor: StoredTensor) -> Target:
    """Describe a target with the same values; each expert of a stack is a piece of its own."""
    shape = tensor.shape
    if len(shape) < 3:
        return Target(tensor.name, shape, (Piece(tensor.name, shape),))
    rows = shape[-2]
    starts = range(0, math.prod(shape[:-1]), rows)
    return Target(tensor.name, shape, tuple(Piece(tensor.name, shape, at, rows) for at in starts))


def kind_of(tensor: StoredTensor) -> Kind:
    kind = Kind.__members__.get(tensor.dtype)
    if kind is None:
        raise ConvertError(f"{tensor.name} is stored as {tensor.dtype}, which cannot be converted")
    return kind


def _facts(model: GGUFFile, added: Metadata) -> Facts:
    """Collect what the type rules ask about the model, of which `added` is already a part."""
    prefix = f"{model.architecture}."
    values: dict[str, Value] = {}
    for key in model.metadata:
        found = added.get(key, model.get(key)) if key.startswith(prefix) else None
        if isinstance(found, tuple):
            values[key.removeprefix(prefix)] = tuple(one for one in found if isinstance(one, int))
        elif isinstance(found, int):
            values[key.removeprefix(prefix)] = found
    values |= {key.removeprefix(prefix): value for key, value in added.items()}
    return model_facts(model.architecture, values)


def _warnings(stored: Sequence[StoredTensor], choices: dict[str, Choice]) -> tuple[str, ...]:
    """Say once if values that were quantized before are quantized again."""
    again = Counter(
        one.dtype
        for one in stored
        if one.dtype not in _NEARLY_LOSSLESS
        and choices[one.name].kind.name not in (one.dtype, *_PLAIN)
    )
    if not again:
        return ()
    types = ", ".join(f"{count} {name}" for name, count in again.most_common())
    return (
        f"{again.total()} tensors were quantized before ({types}) and lose quality twice: start "
        "from the checkpoint or an F16 file if there is one",
    )
