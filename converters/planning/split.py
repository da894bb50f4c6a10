"""A plan in one piece → plans of several files, in llama.cpp's way of splitting a model.

Takes a plan and the most bytes of tensors that a file may hold; gives a plan a file, laid out as
llama.cpp's gguf-split would: tensors in order, all metadata in the first file, and in every file
`split.no`, `split.tensors.count` and `split.count` (tools/gguf-split, src/llama-model-loader.cpp).
The size counts tensors with their padding; heads come on top, the first with the tokenizer.
Does not write anything.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gguf import GGUFValueType

from converters.errors import ConvertError
from converters.header import Entry, encode_head, padded
from converters.layout import Metadata, RawValue
from converters.planning.plan import Plan, PlannedTensor

_MAX_PARTS = 65_535  # split.no is a uint16


def split_plan(plan: Plan, limit_bytes: int) -> list[Plan]:
    """Return a plan a file, with offsets within that file; the plan itself if one is enough.

    Raises ConvertError for a tensor that is larger than a file may be.
    """
    largest = max(plan.tensors, key=lambda tensor: tensor.size_bytes)
    if (least := padded(largest.size_bytes, plan.alignment)) > limit_bytes:
        raise ConvertError(f"--split-size is too small: {largest.name} alone has {least:,} bytes")
    groups: list[list[PlannedTensor]] = [[]]
    filled = 0
    for tensor in plan.tensors:
        size = padded(tensor.size_bytes, plan.alignment)
        if filled + size > limit_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(tensor)
        filled += size
    if len(groups) == 1:
        return [plan]
    if len(groups) > _MAX_PARTS:
        raise ConvertError(f"--split-size is too small: it makes {len(groups)} files")
    counts = {
        "split.tensors.count": _number(GGUFValueType.INT32, "<i", len(plan.tensors)),
        "split.count": _number(GGUFValueType.UINT16, "<H", len(groups)),
    }
    parts = []
    for number, tensors in enumerate(groups):
        own = {"split.no": _number(GGUFValueType.UINT16, "<H", number)} | counts
        parts.append(_part(plan, tensors, {**plan.metadata, **own} if number == 0 else own))
    return parts


def part_paths(target: Path, count: int) -> list[Path]:
    """Return where the files of a split model go; one file keeps the name that was asked for."""
    if count == 1:
        return [target]
    stem = target.name.removesuffix(".gguf")
    return [
        target.with_name(f"{stem}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)
    ]


def _part(plan: Plan, tensors: Sequence[PlannedTensor], metadata: Metadata) -> Plan:
    """Return the plan of one file, which holds a run of the whole plan's tensors."""
    first = tensors[0].offset
    entries = [Entry(one.name, one.shape, int(one.kind), one.offset - first) for one in tensors]
    head = encode_head(metadata, entries, plan.alignment)
    last = tensors[-1]
    end = last.offset - first + padded(last.size_bytes, plan.alignment)
    return replace(
        plan,
        head=head,
        metadata=metadata,
        n_metadata=len(metadata),
        tensors=tuple(replace(one, offset=one.offset - first + len(head)) for one in tensors),
        size_bytes=len(head) + end,
    )


def _number(kind: GGUFValueType, layout: str, value: int) -> RawValue:
    return RawValue(kind, struct.pack(layout, value))
