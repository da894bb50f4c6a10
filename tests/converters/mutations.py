"""Hostile variants of a checkpoint's files: JSON trees changed in one place, headers, single bytes.

Takes a random generator and a file's bytes, gives other bytes; the same seed gives the same. What
comes out may be harmless by chance. Knows nothing of what the converters check.
"""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable
from typing import Any

DEEP = 100_000  # levels: far beyond any parser's stack


class Raw(str):
    """Text that goes into the JSON as it is."""


def hostile(chance: random.Random) -> Any:
    """Draw a value that somebody may have put there."""
    return chance.choice([
        None, True, False, 0, 1, -1, 2, 3, 31, 255, 1 << 16, (1 << 31) - 1, 1 << 31, 1 << 32,
        (1 << 47) - 1, 1 << 48, 1 << 62, 1 << 63, (1 << 64) - 1, 10**30, -(1 << 63), 0.0, 0.5, -1.5,
        1e308, 5e-324, Raw("NaN"), Raw("Infinity"), Raw("-Infinity"), Raw("1" * 5000),
        Raw("1e99999"), "", "x", "0", "\0", "\ud800", "a\nb", "../../etc/passwd", "/etc/passwd",
        "x" * 100_000, "F32", "F8_E4M3", "BF16", "I64", [], [0], [1, 2, 3], [-1], [None], ["a"],
        [1 << 62, 1 << 62], [0] * 1000, [[[]]], {}, {"a": 1}, {"": None}, {"type": "x"},
        Raw("[" * DEEP + "]" * DEEP), Raw('{"a":' * DEEP + "1" + "}" * DEEP),
        Raw('{"a": 1, "a": 2}'), chance.randrange(1 << 20), chance.random(),
    ])  # fmt: skip


def _places(value: Any) -> list[tuple[Any, Any]]:
    """List all (container, key) pairs of a tree, not more than some thousands."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting and len(found) < 5000:
        one = waiting.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one))
        for key in list(keys)[:2000]:
            found.append((one, key))
            if isinstance(one[key], dict | list):
                waiting.append(one[key])
    return found


def mutate_tree(chance: random.Random, tree: Any) -> None:
    """Change a JSON tree in one to three places."""
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        places = _places(tree)
        if not places:
            return
        holder, key = chance.choice(places)
        action = chance.randrange(6)
        if action <= 2:
            holder[key] = hostile(chance)
        elif action == 3:
            del holder[key]
        elif action == 4:
            other, other_key = chance.choice(places)
            holder[key] = copy.deepcopy(other[other_key])
        elif isinstance(holder, dict):
            name = chance.choice(["", "x", "\0", "__metadata__", "\ud800", str(hostile(chance))])
            holder[name] = holder.pop(key)
        else:
            holder.insert(key, hostile(chance))


def to_json(value: Any) -> bytes:
    """Write JSON, with `Raw` texts as they are and lone surrogates escaped."""
    marks: list[str] = []

    def marked(one: Any) -> Any:
        if isinstance(one, Raw):
            marks.append(one)
            return f"@@{len(marks) - 1}@@"
        if isinstance(one, dict):
            return {key: marked(item) for key, item in one.items()}
        return [marked(item) for item in one] if isinstance(one, list) else one

    text = json.dumps(marked(value))
    for number, mark in enumerate(marks):
        text = text.replace(f'"@@{number}@@"', mark)
    return text.encode()


def mutate_bytes(chance: random.Random, data: bytes) -> bytes:
    """Flip, insert, remove, repeat or cut off some bytes."""
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 8])):
        at = chance.randrange(len(changed) + 1)
        action = chance.randrange(6)
        if action == 0 and at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
        elif action == 1:
            changed[at:at] = chance.randbytes(chance.randrange(1, 9))
        elif action == 2:
            del changed[at : at + chance.randrange(1, 65)]
        elif action == 3:
            changed[at:at] = changed[at : at + chance.randrange(1, 257)]
        elif action == 4:
            changed[at : at + 1] = chance.choice(
                [b'"', b"{", b"}", b"[", b"]", b",", b"9", b"\xff"]
            )
        else:
            del changed[at:]
    return bytes(changed)


def mutate_json(chance: random.Random, data: bytes) -> bytes:
    """Change a JSON file, as a tree or as bytes."""
    if chance.random() < 0.3:
        return mutate_bytes(chance, data)
    tree = json.loads(data)
    mutate_tree(chance, tree)
    return to_json(tree)


def mutate_safetensors(chance: random.Random, data: bytes) -> bytes:
    """Change a shard: its header's tree or bytes, the length that it claims, or its end."""
    length = struct.unpack("<Q", data[:8])[0]
    head, body = data[8 : 8 + length], data[8 + length :]
    action = chance.randrange(10)
    if action == 0:
        claims = [0, 1, 2, length - 1, length + 1, 1 << 20, 1 << 31, 1 << 63, (1 << 64) - 1]
        return struct.pack("<Q", chance.choice(claims)) + head + body
    if action == 1:
        return data[: chance.randrange(len(data))]
    if action == 2:
        return data + chance.randbytes(chance.randrange(1, 100))
    if action == 3:
        return mutate_bytes(chance, data)
    if action == 4:
        head = mutate_bytes(chance, head)
    elif action <= 7:
        head = to_json(_entry_changed(chance, json.loads(head)))
    else:
        tree = json.loads(head)
        mutate_tree(chance, tree)
        head = to_json(tree)
    return struct.pack("<Q", len(head)) + head + body


def _entry_changed(chance: random.Random, header: dict[str, Any]) -> dict[str, Any]:
    """Change what a header says of one tensor, in ways that stay close to sense."""
    name = chance.choice([key for key in header if key != "__metadata__"])
    entry = header[name]
    begin, end = entry["data_offsets"]
    changes: list[Callable[[], Any]] = [
        lambda: entry.update(data_offsets=[begin - 1, end - 1]),
        lambda: entry.update(data_offsets=[end, begin]),
        lambda: entry.update(data_offsets=[begin + (1 << 40), end + (1 << 40)]),
        lambda: entry.update(data_offsets=[0, 0]),
        lambda: entry.update(shape=entry["shape"][::-1]),
        lambda: entry.update(shape=[*entry["shape"], 1]),
        lambda: entry.update(shape=[0, *entry["shape"]], data_offsets=[0, 0]),
        lambda: entry.update(shape=[1] * 1000 + entry["shape"]),
        lambda: entry.update(shape=[1 << 32, 1 << 32]),
        lambda: entry.update(dtype=chance.choice(["F32", "F16", "BF16", "F8_E4M3", "I8", "F4"])),
        lambda: header.update({name + "_scale_inv": entry}),
        lambda: header.pop(name),
        lambda: header.update({f"model.layers.{10**9}.x": header.pop(name)}),
    ]
    chance.choice(changes)()
    return header
