"""Models as other programs keep them on a machine, in a home for tests: small real GGUF files."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fakes.gguf_file import DENSE, DENSE_TENSORS, Entry, build

Q4_K_M = 15  # general.file_type


def model(path: Path, architecture: str = "qwen2", **changes: Any) -> Path:
    """A small model of an architecture; its folders are made."""
    kept = {key: value for key, value in DENSE.items() if not key.startswith("llama.")}
    sizes = {f"{architecture}.block_count": 1, f"{architecture}.context_length": 2048}
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {**kept, "general.architecture": architecture, **sizes, **changes}
    path.write_bytes(build(facts, DENSE_TENSORS))
    return path


def split(folder: Path, stem: str, count: int = 3, **changes: Any) -> list[Path]:
    """A model in parts, a tensor in each of the first ones."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for number in range(count):
        tensors: list[Entry] = DENSE_TENSORS[number : number + 1]
        place = {"split.no": number, "split.count": count, "split.tensors.count": count}
        metadata = {**DENSE, **changes, **place} if number == 0 else place
        path = folder / f"{stem}-{number + 1:05}-of-{count:05}.gguf"
        path.write_bytes(build(metadata, tensors))
        parts.append(path)
    return parts


def hub(home: Path, repository: str, name: str, commit: str = "c0ffee", **facts: Any) -> Path:
    """A file of the Hugging Face cache: a link in a snapshot to a blob named by its digest."""
    folder = home / ".cache/huggingface/hub" / f"models--{repository.replace('/', '--')}"
    blob = named_by_digest(model(folder / "blobs" / "new", **facts), "")
    link = folder / "snapshots" / commit / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(Path("../" * len(link.relative_to(folder).parent.parts)) / "blobs" / blob.name)
    return link


def lm_studio(home: Path, name: str, **facts: Any) -> Path:
    return model(home / ".lmstudio/models" / name, **facts)


def ollama(
    root: Path, name: str, tag: str, make: Callable[..., Path] = model,
    registry: str = "registry.ollama.ai/library", **facts: Any,
) -> Path:  # fmt: skip
    """A blob and the manifest that names it."""
    blob = named_by_digest(make(root / "blobs" / "new", **facts), "sha256-")
    manifest = root / "manifests" / registry / name / tag
    manifest.parent.mkdir(parents=True, exist_ok=True)
    digest = blob.name.replace("-", ":")
    layers = [
        {"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:" + "1" * 64},
        {"mediaType": "application/vnd.ollama.image.model", "digest": digest},
    ]
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    return blob


def llama_cpp(home: Path, name: str, **facts: Any) -> Path:
    return model(home / ".cache/llama.cpp" / name, **facts)


def named_by_digest(path: Path, prefix: str) -> Path:
    return path.rename(path.with_name(prefix + hashlib.sha256(path.read_bytes()).hexdigest()))
