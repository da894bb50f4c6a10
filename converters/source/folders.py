"""Folders as people have them: which one holds the checkpoint, and what one holds that has none.

Takes the path that a person named. Follows a Hugging Face Hub cache (`models--ORG--NAME`) to its
snapshot, names a model after its repository, finds shards that no index lists (or the headers that
stand for them), and says what a folder is that cannot be converted. Does not read tensors.
"""

from __future__ import annotations

import re
from pathlib import Path

from converters.errors import ConvertError
from localseek.gguf.head import LFS_POINTER

HEADER_SUFFIX = ".header"
_CACHE = re.compile(r"models--(?P<organization>.+?)--(?P<name>.+)")
_SHARD = re.compile(
    r"(?P<stem>model|pytorch_model)-\d{5}-of-(?P<count>\d{5})(?P<ending>\.safetensors|\.bin)"
)
_MODEL_PAGE = "the original model's repository, the one with config.json and .safetensors files"


def followed(source: Path) -> Path:
    """Return the newest snapshot of a Hub cache folder; any other path as it is.

    `refs/main` names the snapshot that was downloaded last; without it, the newest one counts.
    """
    snapshots = source / "snapshots"
    if (source / "config.json").exists() or not snapshots.is_dir():
        return source
    found = [one for one in snapshots.iterdir() if one.is_dir()]
    if not found:
        raise ConvertError(f"{source} is a Hub cache without a snapshot: download the model again")
    try:
        commit = (source / "refs" / "main").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):  # downloaded by commit, or by another branch
        commit = ""
    named = [one for one in found if one.name == commit]
    return named[0] if named else max(found, key=lambda one: one.stat().st_mtime_ns)


def model_name(folder: Path) -> str:
    """Return what a model is called: its repository in a Hub cache, else its folder."""
    folder = folder.resolve()
    cache = _CACHE.fullmatch(folder.parent.parent.name)
    return cache["name"] if cache and folder.parent.name == "snapshots" else folder.name


def header_path(shard: Path) -> Path:
    """Return the file that stands for a safetensors shard while the shard itself is not there."""
    return shard.with_name(shard.name + HEADER_SUFFIX)


def is_there(shard: Path) -> bool:
    """Say whether a shard, or at least its header, is in its folder."""
    return shard.is_file() or (shard.suffix == ".safetensors" and header_path(shard).is_file())


def unlisted_shards(folder: Path) -> list[Path]:
    """Return all shards `model-0000i-of-0000n` of a folder that has no index, [] if it has none.

    Raises ConvertError if some are missing. Safetensors count before PyTorch's files.
    """
    names = {path.name.removesuffix(HEADER_SUFFIX) for path in folder.glob("*")}
    shards = [match for name in sorted(names) if (match := _SHARD.fullmatch(name))]
    if not shards:
        return []
    first = min(shards, key=lambda match: (match["ending"] != ".safetensors", match[0]))
    stem, count, ending = first["stem"], int(first["count"]), first["ending"]
    wanted = [folder / f"{stem}-{i:05}-of-{count:05}{ending}" for i in range(1, count + 1)]
    missing = [path.name for path in wanted if not is_there(path)]
    if missing:
        raise ConvertError(
            f"{folder} lacks {len(missing)} of {count} shards, {missing[0]} among them, and the "
            "index that lists them: download the checkpoint again"
        )
    return wanted


def describe(folder: Path) -> str:
    """Say what a folder is that holds no weights to convert, and what to do."""

    def has(*patterns: str) -> bool:
        return any(any(folder.glob(pattern)) for pattern in patterns)

    if has("adapter_config.json", "adapter_model.*"):
        return (
            f"{folder} is an adapter (LoRA), which changes another model: merge it into that model "
            "first (peft's merge_and_unload), then convert the result"
        )
    if gguf := sorted(folder.glob("*.gguf")):
        return (
            f"{folder} holds GGUF files: they run as they are. Name one, such as {gguf[0]}, to run "
            "it or to change its types"
        )
    if has("*.onnx", "onnx/*.onnx"):
        return f"{folder} is an ONNX export, which cannot be converted: get {_MODEL_PAGE}"
    if has("*.npz"):
        return f"{folder} is an MLX model, which cannot be converted: get {_MODEL_PAGE}"
    if has("config.json"):
        return (
            f"{folder} has no model.safetensors and no model.safetensors.index.json: "
            "download the weights"
        )
    if has("tokenizer.json", "tokenizer.model"):
        return f"{folder} holds only a tokenizer: download the whole checkpoint"
    if not any(folder.iterdir()):
        return f"{folder} is empty: download the checkpoint into it"
    return f"{folder} is not a checkpoint: it has neither config.json nor model.safetensors"


def refuse_pointer(path: Path, content: bytes) -> None:
    """Raise ConvertError if a file begins as a Git LFS pointer does."""
    if content.startswith(LFS_POINTER):
        raise ConvertError(
            f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder"
        )
