"""Models that other programs keep on this machine, found where they are and never copied.

Takes those programs' folders, gives a `Place` for each model file: where it is, whose it is, and
what that program calls it. Reads no model file. Layouts as of 2026: huggingface_hub (models--*/
snapshots/*, links to blobs), LM Studio (publisher/repository/file), Ollama (manifests that name
blobs), llama.cpp before it took to the Hugging Face cache (owner_repository_file).
"""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from localseek.gguf.info import is_later_part
from localseek.store.models.files import library_name, model_files
from localseek.store.models.walking import files_below
from localseek.system import paths

TITLES = {
    "": "library", "huggingface": "Hugging Face", "lmstudio": "LM Studio", "ollama": "Ollama",
    "llamacpp": "llama.cpp",
}  # fmt: skip
OLLAMA_MODEL = "application/vnd.ollama.image.model"
OLLAMA_HOME = ("registry.ollama.ai", "library")  # what a name means that says no more
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
MANIFEST_BYTES = 1 << 20  # real ones have about one thousand


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model file is: `program` is a key of TITLES, "" the library.

    `called` is the name it has there, `owner` whoever published it, "" where that is not known.
    """

    path: Path
    program: str = ""
    called: str = ""
    owner: str = ""


def all_places() -> list[Place]:
    """Find every model file: the library's, then each program's, in the order of TITLES."""
    return [*library(), *hugging_face(), *lm_studio(), *ollama(), *llama_cpp()]


def library() -> list[Place]:
    """Give the files of the library."""
    found = []
    for path in model_files():
        name = library_name(path)
        found.append(Place(path, "", name, name.rpartition("/")[0].partition("/")[0]))
    return found


def hugging_face() -> Iterator[Place]:
    """Give the GGUF files in the Hugging Face cache, each from its newest snapshot."""
    for cache in paths.hugging_face_caches():
        for folder in _folders(cache):
            if not folder.name.startswith("models--"):
                continue
            repository = folder.name.removeprefix("models--").replace("--", "/")
            seen: set[Path] = set()
            for snapshot in sorted(_folders(folder / "snapshots"), key=_changed, reverse=True):
                for path in _whole_models(snapshot):
                    inside = path.relative_to(snapshot)
                    if inside not in seen:
                        seen.add(inside)
                        yield Place(path, "huggingface", repository, repository.split("/")[0])


def lm_studio() -> Iterator[Place]:
    """Give LM Studio's files, also from the folder that its settings name."""
    homes = paths.lm_studio_homes()
    moved = _text(paths.lm_studio_pointer()).strip()
    homes += _folder(moved)
    roots: list[Path] = []
    for home in homes:
        chosen = _json(home / "settings.json").get("downloadsFolder")
        roots += _folder(chosen)
        roots.append(home / "models")
    for root in dict.fromkeys(roots):
        for path in _whole_models(root):
            repository = path.relative_to(root).parent.as_posix()
            yield Place(path, "lmstudio", repository, repository.partition("/")[0].strip("."))


def ollama() -> Iterator[Place]:
    """Give the blobs that Ollama's manifests call models, by the names of `ollama list`."""
    for root in paths.ollama_folders():
        for manifest in files_below(root / "manifests"):
            registry, *names = manifest.relative_to(root / "manifests").parts
            if len(names) < 2:
                continue
            *owner, name, tag = names
            spoken = f"{name}:{tag}"
            if (registry, *owner) != OLLAMA_HOME:
                host = () if registry == OLLAMA_HOME[0] else (registry,)
                spoken = "/".join((*host, *owner, spoken))
            for blob in _model_blobs(manifest, root / "blobs"):
                yield Place(blob, "ollama", spoken, "" if owner == ["library"] else "/".join(owner))


def llama_cpp() -> Iterator[Place]:
    """Give what llama.cpp has downloaded itself, repository and file in one name."""
    for cache in paths.llama_cpp_caches():
        for path in _whole_models(cache):
            yield Place(path, "llamacpp", path.name)


def removal(place: Place) -> str:
    """Say how the program that a model belongs to removes it."""
    if place.program == "huggingface":
        return f"hf cache rm model/{place.called}"
    if place.program == "ollama":
        return f"ollama rm {place.called}"
    if place.program == "lmstudio":
        return "remove it under My Models in LM Studio"
    return f"rm {shlex.quote(str(place.path))}"


def _whole_models(root: Path) -> Iterator[Path]:
    """Give the GGUF files below a folder that are models: first parts, and no model's eyes."""
    for path in files_below(root, ".gguf"):
        if not is_later_part(path) and "mmproj" not in path.name.lower():
            yield path


def _model_blobs(manifest: Path, blobs: Path) -> Iterator[Path]:
    layers = _json(manifest).get("layers")
    for layer in layers if isinstance(layers, list) else ():
        if isinstance(layer, dict) and layer.get("mediaType") == OLLAMA_MODEL:
            digest = DIGEST.fullmatch(str(layer.get("digest")))
            blob = blobs / f"sha256-{digest[1]}" if digest else blobs
            if _is_file(blob):  # else it is still being downloaded
                yield blob
                return  # further ones are its later parts, under names that nothing can open


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir())
    except OSError:  # not there, or not ours to read
        return []


def _folder(written: object) -> list[Path]:
    """Give the folder that a program's settings name, nothing if they name none."""
    if not isinstance(written, str) or not written or "\0" in written:
        return []
    try:
        return [Path(written).expanduser()]
    except RuntimeError:  # the home of nobody
        return []


def _changed(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MANIFEST_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError):  # another program's file, of which nothing is promised
        return ""


def _json(path: Path) -> dict[str, object]:
    try:
        found = json.loads(_text(path) or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
