"""PyTorch checkpoint files without torch, for tests: what torch.save writes, opcode by opcode.

Takes Tensors, gives `.bin` files in the zip format of torch 1.6 and later; `pickle_of` makes the
data.pkl alone, for tests that break it. Layout: torch/serialization.py, pickletools.
"""

from __future__ import annotations

import json
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

from checkpoints import Tensors

STORAGES = {"F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage"}
ITEMS = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class View:
    """A tensor as the pickle describes it; offset and strides count values."""

    name: str
    dtype: str
    key: str
    count: int  # values of the storage
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0


def rows_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a tensor without gaps, the last dimension fastest."""
    strides, step = [], 1
    for length in reversed(shape):
        strides.append(step)
        step *= length
    return tuple(reversed(strides))


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def describe(view: View) -> bytes:
    storage = f"ctorch\n{STORAGES[view.dtype]}\n".encode()
    reference = b"(" + text("storage") + storage + text(view.key) + text("cpu")
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + reference + number(view.count) + b"tQ"
        + number(view.offset) + numbers(view.shape) + numbers(view.strides)
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip


def pickle_of(views: list[View]) -> bytes:
    """Return the data.pkl of a state dict, with the attribute that torch's has."""
    items = b"".join(text(view.name) + describe(view) for view in views)
    metadata = b"}" + text("_metadata") + b"ccollections\nOrderedDict\n)Rsb"
    return b"\x80\x02ccollections\nOrderedDict\n)Rq\x00(" + items + b"u" + metadata + b"."


def write_zip(path: Path, pickle: bytes, storages: dict[str, bytes], **changes: bytes) -> None:
    """Write a file; `changes` replaces or adds members beside the storages."""
    members = {"data.pkl": pickle, "byteorder": b"little", "version": b"3\n"} | changes
    members |= {f"data/{key}": data for key, data in storages.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for name, data in members.items():
            file.writestr(f"{path.stem}/{name}", data)


def write_torch(path: Path, tensors: Tensors) -> None:
    """Write one shard, each tensor in a storage of its own."""
    views, storages = [], {}
    for number_, (name, (dtype, shape, data)) in enumerate(tensors.entries.items()):
        key = str(number_)
        storages[key] = data
        views.append(View(name, dtype, key, len(data) // ITEMS[dtype], shape, rows_first(shape)))
    write_zip(path, pickle_of(views), storages)


def replace_by_torch(folder: Path, tensors: Tensors, shards: int = 1) -> None:
    """Put .bin files in the place of a checkpoint's safetensors."""
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    if shards == 1:
        write_torch(folder / "pytorch_model.bin", tensors)
        return
    names = list(tensors.entries)
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        file = f"pytorch_model-{shard + 1:05d}-of-{shards:05d}.bin"
        part = names[shard::shards]
        write_torch(folder / file, Tensors({name: tensors.entries[name] for name in part}))
        weight_map |= dict.fromkeys(part, file)
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
