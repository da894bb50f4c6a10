"""`models show`: what a file says of itself, where it is and from where, which names it has.

Takes a file's facts and its place, gives a page of text or a plain object.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from localseek.commands.library.model_list import facts_object, place_name
from localseek.gguf.header import StoredArray, Value
from localseek.gguf.info import GGUFInfo
from localseek.gguf.nextn import holds_only_nextn
from localseek.store.belonging import origin_of
from localseek.store.models.catalogue import Model
from localseek.store.models.reading import facts_of
from localseek.system.sizes import rough_size
from localseek.terminal.columns import table
from localseek.terminal.messages import one_line

LONGEST_VALUE = 60  # characters of a metadata value that fit beside its key
COMMIT_DIGITS = 12


def details(info: GGUFInfo, model: Model | None) -> dict[str, Any]:
    """Give all of it for JSON; `model` is None for a file that no list knows."""
    facts = facts_of(info)
    origin = origin_of(info.path)
    pulled = origin.pulled if origin else None
    return {
        **facts_object(facts),
        "family": facts.family,
        "where": place_name(model) if model else "",
        "short_name": model.name if model else "",
        "names": list(model.short_names) if model else [],
        "also": [str(one.path) for one in model.also] if model else [],
        "repository": pulled.repository if pulled else "",
        "commit": pulled.commit if pulled else "",
        "licence": pulled.licence if pulled else "",
        "parts": [str(part) for part in info.parts],
        "missing": [str(part) for part in info.missing],
        "metadata": {key: _plain(value) for key, value in info.metadata.items()},
        "tensor_types": {group: dict(types) for group, types in _groups(info).items()},
    }


def page(info: GGUFInfo, model: Model | None) -> str:
    """Lay out the facts, the tensor types by group and the metadata."""
    experts, used = info.experts
    rows = [
        ("file", str(info.path)),
        *_places(model),
        *_pulled(info),
        ("title", info.name),
        ("family", facts_of(info).family),
        ("architecture", info.architecture),
        ("type", info.type_name),
        ("size", rough_size(info.size_bytes)),
        ("parameters", f"{rough_count(info.n_params)} in {len(info.tensors):,} tensors"),
        ("context", f"{info.context_length:,} tokens"),
        ("layers", str(info.block_count)),
        ("experts", f"{used} of {experts} for each token" if experts else "none"),
        ("MTP", _mtp(info)),
        *_made(info),
    ]
    lines = _pairs([(label, one_line(text)) for label, text in rows])
    lines += ["", "tensor types:"]
    types = [
        ("  " + one_line(group), ", ".join(f"{count} × {name}" for name, count in kinds.items()))
        for group, kinds in _groups(info).items()
    ]
    lines += _pairs(types)
    lines += ["", "metadata:"]
    metadata = [("  " + one_line(key), _short(value)) for key, value in info.metadata.items()]
    lines += _pairs(metadata)
    return "\n".join(lines)


def rough_count(count: int) -> str:
    """Give a number of weights as people say it: 6.3 M."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)


def _places(model: Model | None) -> list[tuple[str, str]]:
    if model is None:
        return []
    rows = [("names", ", ".join(model.short_names))]
    called = "" if model.in_library else f": {model.place.called}"
    rows.append(("where", f"{place_name(model)}{called}"))
    return [*rows, *(("also", str(one.path)) for one in model.also)]


def _pulled(info: GGUFInfo) -> list[tuple[str, str]]:
    """Give where a file was downloaded from, and under which licence."""
    origin = origin_of(info.path)
    if origin is None:
        return []
    came = origin.pulled
    licence = f", licence {came.licence}" if came.licence else ""
    return [("from", f"{came.repository}@{came.commit[:COMMIT_DIGITS]}{licence}")]


def _pairs(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Write names and values beside each other."""
    return table(rows, left=2) if rows else []


def _plain(value: Value) -> Any:
    """Give a metadata value for JSON; long arrays as their length only."""
    if isinstance(value, StoredArray):
        return {"elements": value.count}
    return list(value) if isinstance(value, tuple) else value


def _groups(info: GGUFInfo) -> dict[str, Counter[str]]:
    """Count ggml types by group: the tensor's name without its layer number."""
    groups: dict[str, Counter[str]] = {}
    for tensor in info.tensors:
        words = [word for word in tensor.name.split(".") if not word.isdigit()]
        name = ".".join(words[1:] if words[0] == "blk" else words)
        groups.setdefault(name, Counter())[tensor.type] += 1
    return groups


def _mtp(info: GGUFInfo) -> str:
    if holds_only_nextn(info):
        return "nothing else: it drafts for the model's main file (--draft-model)"
    count = info.nextn_layers
    return f"yes, {count} layer{'s' * (count > 1)}" if count else "no"


def _made(info: GGUFInfo) -> list[tuple[str, str]]:
    """Give what the file says of how it was made, if localseek made it; and what is missing."""
    rows = []
    if info.missing:
        names = ", ".join(part.name for part in info.missing)
        rows.append(("missing", f"{len(info.missing)} of {len(info.parts) + len(info.missing)} "
                     f"parts: {names}"))  # fmt: skip
    recipe, source = info.get("localseek.recipe"), info.get("localseek.source.fingerprint")
    if isinstance(recipe, str):
        rows.append(("made by", f"localseek convert {recipe}"))
    if isinstance(source, str):
        rows.append(("source", f"fingerprint {source}"))
    return rows


def _short(value: Value) -> str:
    if isinstance(value, StoredArray):
        return f"{value.count:,} elements"
    text = one_line(str(list(value) if isinstance(value, tuple) else value))
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
