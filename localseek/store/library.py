"""Finds the model file that a name means.

Takes what the user wrote after `--model`, gives the path of a GGUF: a path, a file of the library,
or one of another program's. `nano` is made from the embedded checkpoint on first use, by a
conversion that the caller hands in. Knows nothing about converters, engines or terminals.
"""

import difflib
import fcntl
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from localseek import nano
from localseek.errors import ModelError
from localseek.gguf.info import is_later_part
from localseek.store.models.catalogue import Model, all_models, meant
from localseek.store.models.files import EMBEDDED, EMBEDDED_FILE, library_name, model_files
from localseek.system import paths, private

__all__ = ["EMBEDDED", "Preparation", "embedded", "library_name", "look_up", "model_files",
           "resolve"]  # fmt: skip
EMBEDDED_LEFTOVER = re.compile(r"\.nano-Q8_0-[0-9a-f]{12}\.gguf\..+")  # unfinished
MOST_NAMED = 8  # models in an error's one line
Convert = Callable[[Path, Path], None]  # a checkpoint folder, the GGUF to make of it


@dataclass(frozen=True)
class Preparation:
    """How to make the embedded model: the conversion, its version, where to say that it runs."""

    convert: Convert
    version: str
    notice: Callable[[str], None]


def resolve(name: str, preparation: Preparation) -> Path:
    """Find the file that `name` means; raises ModelError with the nearest names."""
    if name == EMBEDDED:
        return embedded(preparation)
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if not name.strip():
        raise ModelError("The model has no name.", "`localseek models list` shows what there is.")
    if path.is_dir():
        return _only_model(path)
    if path.is_symlink() and not path.exists():
        raise ModelError(f"{name} is a link to {path.readlink()}, which is not there.")
    if path.exists():
        raise ModelError(f"{name} is not a regular file.", "A model is read from a file on a disk.")
    matches = _by_place({file: library_name(file) for file in model_files()}, name)
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise _several(name, [library_name(file) for file in matches])
    return look_up(name).path


def _by_place(called: dict[Path, str], name: str) -> list[Path]:
    """Give the library's files that a name means by their places, with or without folder."""
    for wanted in (name, name.removesuffix(".gguf")):
        found = [file for file, key in called.items() if wanted in (key, key.rpartition("/")[2])]
        if found:
            return found
    return []


def look_up(name: str, models: list[Model] | None = None, to_get: bool = True) -> Model:
    """Find the model that a name means among those listed; raises ModelError with near names.

    `to_get`: the error says how to get one too.
    """
    listed = all_models() if models is None else models
    placed = _by_place({one.path: one.place.called for one in listed if one.in_library}, name)
    found = [one for one in listed if one.path in placed]
    found = found or meant(name, listed) or meant(name.removesuffix(".gguf"), listed)
    if len(found) == 1:
        return found[0]
    if found:
        raise _several(name, [one.name for one in found])
    raise _unknown(name, listed, to_get)


def _several(name: str, names: list[str]) -> ModelError:
    return ModelError(f"{name} can mean {', '.join(names)}.", "Write one of these names.")


def _only_model(folder: Path) -> Path:
    """Give the one model that a folder holds, as the Hub's cache keeps it."""
    held = [one for one in sorted(folder.glob("*.gguf")) if not is_later_part(one)]
    models = [one for one in held if not one.name.startswith("mmproj")]  # a model's eyes
    if len(models) == 1:
        return models[0]
    if models:
        names = ", ".join(one.name for one in models[:8])
        raise ModelError(f"{folder} holds {len(models)} models.", f"Name one of them: {names}.")
    raise ModelError(
        f"{folder} is a folder without a GGUF file.",
        f"If it is a checkpoint: localseek convert {folder} OUT.gguf",
    )


def _unknown(name: str, models: list[Model], to_get: bool) -> ModelError:
    """Say that there is no such model, and which of the names there are is near."""
    wanted = name.removesuffix(".gguf")
    owners: dict[str, list[str]] = {}
    for model in models:
        for one in model.short_names:
            owners.setdefault(one, []).append(model.name)
    known = list(dict.fromkeys([EMBEDDED, *owners]))
    near = difflib.get_close_matches(wanted.lower(), known, n=6, cutoff=0.4)
    # Of the names of one model the nearest, if it means no other; else the one that is shown.
    offered: dict[str, str] = {}
    for one in near:
        for owner in owners.get(one, [one]):
            offered.setdefault(owner, one if len(owners.get(one, [])) < 2 else owner)
    first = list(offered.values())[:3]
    names = [*dict.fromkeys([EMBEDDED, *(one.name for one in models)])]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    there = ", ".join(names[:MOST_NAMED]) + more
    offer = f"Did you mean {' or '.join(first)}?" if first else f"There is: {there}."
    return ModelError(
        f"There is no model {name!r}, neither as a file nor among those here.",
        f"{offer} To get one: localseek convert CHECKPOINT {paths.models()}/NAME.gguf"
        if to_get else offer,
    )


def embedded(preparation: Preparation) -> Path:
    """Give the embedded model's GGUF, made now if it is not there; safe in several processes."""
    source = nano.CHECKPOINT
    if not (source / "config.json").is_file():
        raise ModelError(
            f"The embedded model is not in this installation ({source} is missing).",
            "Name another with --model; localseek models list shows what is there.",
        )
    target = paths.models() / f"nano-Q8_0-{_fingerprint(source, preparation.version)}.gguf"
    if target.is_file():
        return target
    with _lock_file() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_file():  # another process was faster
            return target
        preparation.notice("preparing the embedded model (first use)…")
        unfinished = target.with_name(f".{target.name}.new")
        try:
            preparation.convert(source, unfinished)
            unfinished.chmod(private.FILE)
            unfinished.replace(target)
        except OSError as error:
            raise ModelError(f"{target} cannot be written: {error.strerror}.") from error
        finally:
            unfinished.unlink(missing_ok=True)
        for old in paths.models().iterdir():
            outdated = old != target and EMBEDDED_FILE.fullmatch(old.name)
            # Of runs that were killed: under the lock, nobody writes them any more.
            if outdated or EMBEDDED_LEFTOVER.fullmatch(old.name):
                old.unlink(missing_ok=True)
    return target


def _lock_file() -> BinaryIO:
    path = paths.models() / ".nano.lock"
    try:
        return private.opened(path, "wb")
    except OSError as error:
        raise ModelError(
            f"{path} cannot be written: {error.strerror}.",
            "Set LOCALSEEK_HOME to a folder that you can write to.",
        ) from error


def _fingerprint(folder: Path, version: str) -> str:
    """Give 12 hexadecimal digits that change with the checkpoint's files or the converter."""
    digest = hashlib.sha256(version.encode())
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix in (".json", ".safetensors"):
            digest.update(b"\0" + file.name.encode() + b"\0")
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]
