"""The whole conversion, decided before a byte of data is read.

Takes a checkpoint, its family's description and the type rules; gives every tensor of the file
with its type, offset and the stored pieces it comes from, and the finished head of the file.
Here everything is checked that headers can tell: missing, left-over and misshapen tensors,
dtypes, scales. Does not read tensor data (but for the duplicates that a family compares).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gguf import GGML_QUANT_VERSION, LlamaFileType, size_label
from gguf import GGMLQuantizationType as Kind

from converters.errors import ConvertError
from converters.families import Family, draft_family, find_family
from converters.header import ALIGNMENT, Entry, encode_head, padded
from converters.kernels.quantize import USES_IMPORTANCE, row_bytes
from converters.layout import Dropped, Metadata, Piece, Target, Value
from converters.metadata.chat_template import missing_template
from converters.metadata.sampling import sampling_metadata
from converters.metadata.tokenizer import tokenizer_metadata
from converters.planning.origin import origin_metadata, recipe_text
from converters.source.checkpoint import Checkpoint
from converters.source.config import Config
from converters.source.folders import model_name
from converters.source.source import Source
from converters.source.stored import Weight, check_quantization, resolve, scale_names
from converters.types.fitting import Fitted, fit_types
from converters.types.imatrix import Imatrix
from converters.types.importance import (
    Importance,
    imatrix_metadata,
    importance_warnings,
    match_importance,
)
from converters.types.mixtures import Choice, Shape
from converters.types.recipe import (
    canonical_type,
    choose_types,
    file_type,
    model_facts,
    nearest_file_type,
)

Mtp = Literal["keep", "drop", "only"]  # the layer with the trunk, not at all, or alone (V4)


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the file: what it is, why its type, where it goes, what it is made of."""

    name: str
    shape: tuple[int, ...]
    kind: Kind
    why: str
    offset: int  # bytes from the start of the file
    size_bytes: int
    pieces: tuple[Piece, ...]
    values: tuple[float, ...] = ()  # of a vector that is computed, not stored: F32
    importance: Importance | None = None  # only where the type looks at it
    below: int = 0  # of tables: every number must be under it


@dataclass(frozen=True)
class Plan:
    """A file to write: its head, its tensors in file order, and its size."""

    architecture: str
    head: bytes
    metadata: Metadata
    n_metadata: int
    tensors: tuple[PlannedTensor, ...]
    size_bytes: int
    alignment: int  # bytes between which tensors begin
    dropped: tuple[Dropped, ...]
    warnings: tuple[str, ...]
    fitted: Fitted | None = None  # how the types were chosen for a size


def make_plan(
    checkpoint: Checkpoint,
    type_name: str,
    mtp: Mtp = "keep",
    overrides: Sequence[tuple[str, str]] = (),
    name: str | None = None,
    fit_bytes: int | None = None,
    imatrix: Imatrix | None = None,
) -> Plan:
    """Plan a conversion; raise ConvertError for whatever the headers show to be wrong.

    `fit_bytes` is the largest size of the file, for which types are chosen whatever `type_name`.
    """
    type_name = canonical_type(type_name)
    raw = checkpoint.read_json("config.json")
    config = Config(raw)
    family = find_family(config)
    check_quantization(config, checkpoint)
    if mtp == "only":
        family = draft_family(family)
    described = family.metadata(config, checkpoint, mtp != "drop")
    targets, dropped = _split(family.tensors(config, checkpoint, mtp != "drop"))
    weights = check_sources(checkpoint, targets, dropped)
    shapes = [Shape(one.name, one.shape, _stored_kind(one, weights)) for one in targets]
    facts = model_facts(family.GGUF_ARCHITECTURE, described.values, has_imatrix=imatrix is not None)
    importance = match_importance(imatrix, shapes) if imatrix else {}
    metadata: dict[str, Value] = {
        "general.architecture": family.GGUF_ARCHITECTURE,
        "general.type": "model",
        "general.name": name or model_name(checkpoint.folder),
        "general.size_label": _size_label(targets),
        "general.file_type": 0,  # known when the types are
        "general.quantization_version": GGML_QUANT_VERSION,
    }
    sampling = sampling_metadata(checkpoint)
    metadata |= sampling.values
    metadata |= _prefixed(family, described.values)
    warnings = described.warnings + sampling.warnings
    if checkpoint.has_tokenizer:
        tokenizer = tokenizer_metadata(checkpoint.folder, config.count("vocab_size"), raw)
        metadata |= tokenizer.values
        template = missing_template(
            family.GGUF_ARCHITECTURE, str(metadata["general.name"]), tokenizer.values
        )
        metadata |= template.values
        warnings += tokenizer.warnings + template.warnings
    if warnings:
        metadata["localseek.notes"] = warnings  # so that the file itself says so
    metadata |= origin_metadata(
        checkpoint, recipe_text(type_name, mtp, overrides, fit_bytes, imatrix)
    )
    if imatrix:
        metadata |= imatrix_metadata(imatrix)
    fitted = None
    if fit_bytes is None:
        choices = choose_types(shapes, type_name, facts, overrides, importance)
        mostly = LlamaFileType.MOSTLY_MXFP4_MOE if _is_mostly_fp4(shapes, choices) else None
        metadata["general.file_type"] = int(mostly or file_type(type_name))
    else:
        reserve = 0 if checkpoint.has_tokenizer else _tokenizer_reserve(config)
        # Types and offsets have fixed widths, so the head is as long whatever is chosen.
        start = _head_bytes(metadata, targets)
        choices, fitted = fit_types(shapes, facts, fit_bytes, start, reserve, overrides, importance)
        metadata["general.file_type"] = int(nearest_file_type(choices, shapes))
    if imatrix:
        warnings += importance_warnings(imatrix, importance, shapes, choices)
    plan = lay_out(
        family.GGUF_ARCHITECTURE,
        metadata,
        targets,
        choices,
        dropped,
        warnings,
        importance=importance,
    )
    return replace(plan, fitted=fitted)


def _is_mostly_fp4(shapes: Iterable[Shape], choices: Mapping[str, Choice]) -> bool:
    """Say whether most values stay in the FP4 in which they are stored."""
    balance = 0
    for one in shapes:
        kept = one.stored is Kind.MXFP4 and choices[one.name].kind is Kind.MXFP4
        balance += math.prod(one.shape) if kept else -math.prod(one.shape)
    return balance > 0


def _tokenizer_reserve(config: Config) -> int:
    """Return more bytes than the metadata of any DeepSeek tokenizer takes (41 a token for V3)."""
    return 64 * config.count("vocab_size")


def _head_bytes(metadata: Metadata, targets: Iterable[Target]) -> int:
    return len(encode_head(metadata, [Entry(one.name, one.shape, 0, 0) for one in targets]))


def lay_out(
    architecture: str,
    metadata: Metadata,
    targets: Sequence[Target],
    choices: Mapping[str, Choice],
    dropped: Sequence[Dropped] = (),
    warnings: tuple[str, ...] = (),
    alignment: int = ALIGNMENT,
    importance: Mapping[str, Importance] | None = None,
) -> Plan:
    """Give every tensor its place in the file, in the order of `targets`, and write the head."""
    tensors: list[PlannedTensor] = []
    end = 0
    for target in targets:
        choice = choices[target.name]
        size = math.prod(target.shape[:-1]) * row_bytes(choice.kind, target.shape[-1])
        wanted = importance.get(target.name) if importance else None
        tensors.append(
            PlannedTensor(
                target.name,
                target.shape,
                choice.kind,
                choice.why,
                end,
                size,
                target.pieces,
                target.values,
                wanted if choice.kind in USES_IMPORTANCE else None,
                target.below,
            )
        )
        end += padded(size, alignment)
    entries = [Entry(one.name, one.shape, int(one.kind), one.offset) for one in tensors]
    head = encode_head(metadata, entries, alignment)
    return Plan(
        architecture=architecture,
        head=head,
        metadata=metadata,
        n_metadata=len(metadata),
        tensors=tuple(replace(one, offset=len(head) + one.offset) for one in tensors),
        size_bytes=len(head) + end,
        alignment=alignment,
        dropped=tuple(dropped),
        warnings=warnings,
    )


def _split(described: Iterable[Target | Dropped]) -> tuple[list[Target], list[Dropped]]:
    targets: list[Target] = []
    dropped: list[Dropped] = []
    for one in described:
        if isinstance(one, Target):
            targets.append(one)
        else:
            dropped.append(one)
    return targets, dropped


def check_sources(
    checkpoint: Source, targets: Iterable[Target], dropped: Iterable[Dropped]
) -> dict[str, Weight]:
    """Check that every piece is there and as described, and that nothing stored is left over.

    Returns the weights that are used, by name.
    """
    used: set[str] = set()
    weights: dict[str, Weight] = {}
    for one in dropped:
        used |= {one.source, *scale_names(one.source)}
    for target in targets:
        filled = sum(piece.elements for piece in target.pieces) + len(target.values)
        if filled != math.prod(target.shape):
            raise ConvertError(f"{target.name}: the pieces hold {filled} values, not its shape")
        for piece in target.pieces:
            if piece.source not in weights:
                weight = weights[piece.source] = _weight_of(checkpoint, piece, bool(target.below))
                used |= weight.names
    left = [name for name in checkpoint.tensors if name not in used]
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        raise ConvertError(
            f"left-over tensor {left[0]}{more}: the model has parts that this architecture lacks"
        )
    return weights


def _weight_of(checkpoint: Source, piece: Piece, is_table: bool) -> Weight:
    """Find one source tensor and check that it holds what the family says."""
    tensor = checkpoint.tensors.get(piece.source)
    if tensor is None:
        raise ConvertError(f"{piece.source} is missing from the checkpoint: download it again")
    weight = resolve(checkpoint, tensor)
    if weight.shape != piece.shape:
        raise ConvertError(
            f"{piece.source} has the shape {list(weight.shape)}, config.json says "
            f"{list(piece.shape)}"
        )
    if (weight.coding == "table") != is_table:
        wanted = "whole numbers" if is_table else "weights"
        raise ConvertError(f"{piece.source} has the dtype {tensor.dtype}, but holds {wanted}")
    return weight


def _stored_kind(target: Target, weights: Mapping[str, Weight]) -> Kind | None:
    """Return the ggml type that holds all of a target's codes as they are stored, if one does."""
    if target.below:
        return Kind.I32
    kinds = {weights[piece.source].kind for piece in target.pieces}
    return kinds.pop() if len(kinds) == 1 else None


def _prefixed(family: Family, values: Metadata) -> dict[str, Value]:
    return {f"{family.GGUF_ARCHITECTURE}.{key}": value for key, value in values.items()}


def _size_label(targets: Iterable[Target]) -> str:
    """Name the size as GGUF files do, such as 256x20B: parameters with one expert of each."""
    shared = experts = count = 0
    for target in targets:
        size = math.prod(target.shape)
        if "_exps." in target.name:
            count = target.shape[0]
            experts += size // count
        else:
            shared += size
    return str(size_label(shared + experts * max(count, 1), shared, experts, count))
