"""`localseek models`: what is in the library, what a file says of itself, what was saved."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from localseek import nano
from localseek.api.models import find_model
from localseek.commands import verify
from localseek.errors import ModelError
from localseek.gguf.header import StoredArray, Value
from localseek.gguf.info import GGUFInfo, read_info
from localseek.gguf.nextn import holds_only_nextn
from localseek.store import library
from localseek.store.sequences import SequenceStore
from localseek.system import paths
from localseek.system.sizes import rough_size
from localseek.terminal.columns import table
from localseek.terminal.messages import complain, note, one_line, prepare_streams, width_of

EXAMPLES = """examples:
  localseek models list
  localseek models show nano
  localseek models verify ./r1.gguf --against ./DeepSeek-R1
  localseek models show ./r1.gguf --json | jq .tensor_types
"""
LONGEST_VALUE = 60  # characters of a metadata value that fit beside its key
HEADINGS = ("NAME", "ARCHITECTURE", "TYPE", "SIZE", "PARAMETERS", "CONTEXT", "EXPERTS", "MTP")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    actions = parser.add_subparsers(dest="action", metavar="list|show|verify|sequences")
    shown = actions.add_parser("list", help="the models in the library")
    # SUPPRESS: else an action's default would overwrite a --json that stands before it.
    shown.add_argument("--json", action="store_true", default=argparse.SUPPRESS,
        help="print a JSON array")  # fmt: skip
    show = actions.add_parser("show", help="what a model file says about itself")
    show.add_argument("name", metavar="NAME", help="a name in the library, a GGUF file, or nano")
    show.add_argument("--json", action="store_true", default=argparse.SUPPRESS,
        help="print one JSON object")  # fmt: skip
    checked = actions.add_parser("verify", help="every value checked, alone or against its source")
    verify.configure(checked)
    kept = actions.add_parser("sequences", help="what --prompt-cache has saved")
    kept.add_argument("--clear", action="store_true", help="remove all of it")
    kept.add_argument("--json", action="store_true", default=argparse.SUPPRESS,
        help="print one JSON object")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """List the models or show one."""
    prepare_streams()
    if arguments.action == "show":
        info = read_info(find_model(arguments.name))
        print(json.dumps(_details(info)) if arguments.json else _page(info))
        return 0
    if arguments.action == "verify":
        return verify.run(arguments)
    if arguments.action == "sequences":
        return _sequences(arguments.clear, arguments.json)
    return _list(arguments.json)


def _list(as_json: bool) -> int:
    """Print the library; damaged files are named on stderr and make the exit status 1."""
    rows, damaged = [], 0
    for path in library.model_files():
        try:
            facts = _facts(read_info(path))
        except ModelError as error:
            damaged += 1
            complain(str(error))
        else:
            rows.append({"name": library.library_name(path), **facts})
    if as_json:
        print(json.dumps(rows))
    elif rows:
        listed = [HEADINGS, *(_row(row) for row in rows)]
        print("\n".join(table(listed, width_of(sys.stdout), left=len(HEADINGS))))
    if not as_json and not any(row["name"] == library.EMBEDDED for row in rows):
        there = (nano.CHECKPOINT / "config.json").is_file()
        place = f"Put GGUF files into {paths.models()}, or make them with localseek convert."
        note("nano, the embedded model, is prepared on first use." if there else place)
    return 1 if damaged else 0


def _sequences(clear: bool, as_json: bool) -> int:
    """Say how much the saved sequences take, or remove them."""
    store = SequenceStore(limit_bytes=1) if clear else SequenceStore()  # clearing needs no limit
    if clear:
        count, size = store.clear()
        text = f"Removed: {count} saved, {rough_size(size)}."
    else:
        saved = store.list()
        count, size = len(saved), sum(one.size_bytes for one in saved)
        limit = f"at most {rough_size(store.limit_bytes)} are kept"
        noun = "sequence" if count == 1 else "sequences"
        text = f"{count} saved {noun}, {rough_size(size)}; {limit}, in {store.folder}."
    print(json.dumps({"sequences": count, "size_bytes": size}) if as_json else text)
    return 0


def _facts(info: GGUFInfo) -> dict[str, Any]:
    experts, used = info.experts
    return {
        "title": info.name,
        "path": str(info.path),
        "architecture": info.architecture,
        "type": info.type_name,
        "size_bytes": info.size_bytes,
        "parameters": info.n_params,
        "context_length": info.context_length,
        "layers": info.block_count,
        "experts": experts,
        "experts_used": used,
        "mtp": info.nextn_layers > 0,
        "only_mtp": holds_only_nextn(info),
    }


def _row(facts: dict[str, Any]) -> tuple[str, ...]:
    """Give the cells of a model's line."""
    return (
        one_line(facts["name"]),
        one_line(facts["architecture"]),
        facts["type"],
        rough_size(facts["size_bytes"]),
        _rough_count(facts["parameters"]),
        f"{facts['context_length']:,}",
        f"{facts['experts_used']} of {facts['experts']}" if facts["experts"] else "-",
        "only" if facts["only_mtp"] else "yes" if facts["mtp"] else "no",
    )


def _rough_count(count: int) -> str:
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)


def _pairs(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Write names and values beside each other."""
    return table(rows, left=2) if rows else []


def _plain(value: Value) -> Any:
    """Give a metadata value for JSON; long arrays as their length only."""
    if isinstance(value, StoredArray):
        return {"elements": value.count}
    return list(value) if isinstance(value, tuple) else value


def _details(info: GGUFInfo) -> dict[str, Any]:
    return {
        **_facts(info),
        "parts": [str(part) for part in info.parts],
        "metadata": {key: _plain(value) for key, value in info.metadata.items()},
        "tensor_types": {group: dict(types) for group, types in _groups(info).items()},
    }


def _groups(info: GGUFInfo) -> dict[str, Counter[str]]:
    """Count ggml types by group: the tensor's name without its layer number."""
    groups: dict[str, Counter[str]] = {}
    for tensor in info.tensors:
        words = [word for word in tensor.name.split(".") if not word.isdigit()]
        name = ".".join(words[1:] if words[0] == "blk" else words)
        groups.setdefault(name, Counter())[tensor.type] += 1
    return groups


def _page(info: GGUFInfo) -> str:
    """Lay out the facts, the tensor types by group and the metadata."""
    experts, used = info.experts
    rows = [
        ("file", str(info.path)),
        ("name", info.name),
        ("architecture", info.architecture),
        ("type", info.type_name),
        ("size", rough_size(info.size_bytes)),
        ("parameters", f"{_rough_count(info.n_params)} in {len(info.tensors):,} tensors"),
        ("context", f"{info.context_length:,} tokens"),
        ("layers", str(info.block_count)),
        ("experts", f"{used} of {experts} for each token" if experts else "none"),
        ("MTP", _mtp(info)),
        *_origin(info),
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


def _mtp(info: GGUFInfo) -> str:
    if holds_only_nextn(info):
        return "nothing else: it drafts for the model's main file (--draft-model)"
    count = info.nextn_layers
    return f"yes, {count} layer{'s' * (count > 1)}" if count else "no"


def _origin(info: GGUFInfo) -> list[tuple[str, str]]:
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
