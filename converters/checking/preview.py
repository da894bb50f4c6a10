"""What a conversion would write, told before it is begun: sizes to the byte, types and why.

Takes a source, which may be a config.json without weights, and options. Gives the size of the file,
its parameters, its parts with their types, and the time that it will take on this machine. Nothing
is written and no weights are read, but for the copies that a family compares.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gguf import GGMLQuantizationType as Kind

from converters.checking.config_only import open_source
from converters.checking.estimate import expected_seconds
from converters.convert import ConvertOptions, open_any, plan_conversion, thread_count
from converters.kernels.quantize import load_kernels
from converters.layout import RawValue
from converters.planning.plan import Plan, PlannedTensor
from converters.planning.split import split_plan
from converters.source.checkpoint import Checkpoint
from converters.source.gguf_reader import decode_value
from converters.source.gguf_source import GGUFFile
from converters.source.safetensors_table import ITEM_SIZES
from converters.source.source import Source
from converters.source.stored import resolve
from converters.types.fitting import Fitted
from converters.types.groups import GROUPS, Group, active_parameters, group_of
from converters.types.imatrix import open_imatrix


@dataclass(frozen=True)
class TypeUse:
    """How much of a part has one type, and the reasons, most tensors first."""

    type: str
    tensors: int
    parameters: int
    size_bytes: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class PartPreview:
    """One part of the model; `types` from the largest to the smallest share of bytes."""

    group: Group
    tensors: int
    parameters: int
    size_bytes: int
    types: tuple[TypeUse, ...]

    @property
    def bits_per_weight(self) -> float:
        """Mean bits a parameter."""
        return 8 * self.size_bytes / self.parameters


@dataclass(frozen=True)
class Preview:
    """A file that a conversion would write, or several: the sizes are those of all together.

    `size_bytes` is exact where `has_tokenizer`; else the metadata of the tokenizer comes on top.
    `data_bytes` are the tensors with their padding, always exact.
    """

    architecture: str
    name: str
    type: str  # the mixture or recipe, or "fit"
    files: int
    size_bytes: int
    head_bytes: int
    data_bytes: int
    has_weights: bool
    has_tokenizer: bool
    tensors: int
    parameters: int
    active_parameters: int  # that one token meets, without the MTP layer
    mtp_parameters: int
    left_out_parameters: int  # stored copies and what the runtime computes
    source_bytes: int  # of the checkpoint's tensors
    expected_s: float
    threads: int
    parts: tuple[PartPreview, ...]
    warnings: tuple[str, ...]
    fitted: Fitted | None  # how the types were chosen for a size

    @property
    def bits_per_weight(self) -> float:
        """Mean bits a parameter, metadata and padding left out."""
        return 8 * sum(part.size_bytes for part in self.parts) / self.parameters


def preview(source: Path, options: ConvertOptions | None = None) -> Preview:
    """Tell what `convert` would write; raise ConvertError for what it would refuse."""
    options = options or ConvertOptions()
    threads = thread_count(options.threads)
    load_kernels()
    with _open(source) as opened, open_imatrix(options.imatrix) as imatrix:
        plan = plan_conversion(opened, options, imatrix)
        return _describe(plan, opened, options, threads)


def _open(source: Path) -> Checkpoint | GGUFFile:
    is_config = source.is_file() and source.suffix == ".json"
    return open_source(source) if source.is_dir() or is_config else open_any(source)


def _describe(plan: Plan, source: Source, options: ConvertOptions, threads: int) -> Preview:
    limit = options.split_bytes
    files = [plan] if limit is None else split_plan(plan, limit)
    size, head = sum(one.size_bytes for one in files), sum(len(one.head) for one in files)
    parts = _parts(plan)
    parameters: dict[Group, int] = {part.group: part.parameters for part in parts}
    total, draft = sum(parameters.values()), parameters.get("MTP layer", 0)
    n_expert, n_used = _count(plan, "expert_count"), _count(plan, "expert_used_count")
    stored = source.tensors
    left_out = (
        resolve(source, stored[one.source]).shape for one in plan.dropped if one.source in stored
    )
    return Preview(
        architecture=plan.architecture,
        name=str(_value(plan, "general.name") or plan.architecture),
        type=options.type if options.fit_bytes is None else "fit",
        files=len(files),
        size_bytes=size,
        head_bytes=head,
        data_bytes=size - head,
        has_weights=source.has_weights,
        has_tokenizer=source.has_tokenizer,
        tensors=len(plan.tensors),
        parameters=total,
        active_parameters=active_parameters(parameters, max(1, n_expert), max(1, n_used)),
        mtp_parameters=draft,
        left_out_parameters=sum(math.prod(shape) for shape in left_out),
        source_bytes=sum(tensor.size_bytes for tensor in stored.values()),
        expected_s=expected_seconds(_work(plan, source), threads),
        threads=threads,
        parts=parts,
        warnings=plan.warnings,
        fitted=plan.fitted,
    )


def _count(plan: Plan, key: str) -> int:
    value = _value(plan, f"{plan.architecture}.{key}")
    return value if isinstance(value, int) else 0


def _value(plan: Plan, key: str) -> object:
    """Return a metadata value, also one that is copied from another GGUF file."""
    value = plan.metadata.get(key)
    return decode_value(value) if isinstance(value, RawValue) else value


def _parts(plan: Plan) -> tuple[PartPreview, ...]:
    n_layer = _count(plan, "block_count") - _count(plan, "nextn_predict_layers")
    found: defaultdict[Group, list[PlannedTensor]] = defaultdict(list)
    for tensor in plan.tensors:
        found[group_of(tensor.name, n_layer)].append(tensor)
    return tuple(_part(group, found[group]) for group in GROUPS if group in found)


def _part(group: Group, tensors: list[PlannedTensor]) -> PartPreview:
    by_type: defaultdict[Kind, list[PlannedTensor]] = defaultdict(list)
    for tensor in tensors:
        by_type[tensor.kind].append(tensor)
    uses = [
        TypeUse(
            kind.name,
            len(members),
            _parameters(members),
            sum(member.size_bytes for member in members),
            tuple(why for why, _ in Counter(member.why for member in members).most_common()),
        )
        for kind, members in by_type.items()
    ]
    uses.sort(key=lambda use: (-use.size_bytes, use.type))
    size = sum(use.size_bytes for use in uses)
    return PartPreview(group, len(tensors), _parameters(tensors), size, tuple(uses))


def _parameters(tensors: Iterable[PlannedTensor]) -> int:
    return sum(math.prod(tensor.shape) for tensor in tensors)


def _work(plan: Plan, source: Source) -> Counter[tuple[str, Kind]]:
    """Count the values of the plan by what they are stored as and what they become."""
    work: Counter[tuple[str, Kind]] = Counter()
    for tensor in plan.tensors:
        for piece in tensor.pieces:
            dtype = source.tensors[piece.source].dtype
            if dtype in ITEM_SIZES:
                work[dtype, tensor.kind] += piece.elements
            elif dtype != tensor.kind.name:
                # Blocks of another type: reading them takes far less time than making them.
                work["F32", tensor.kind] += piece.elements
    return work
