"""`localseek models rename` and `remove`: the library's models only, nothing gone unasked."""

import argparse
import json
import sys
from pathlib import Path

from localseek.errors import ModelError, UsageError
from localseek.store import changing, library
from localseek.store.models import catalogue
from localseek.store.models.catalogue import Model
from localseek.store.models.files import EMBEDDED, library_name
from localseek.store.models.programs import TITLES, removal
from localseek.system import paths
from localseek.system.in_use import mapping_processes
from localseek.system.sizes import rough_size
from localseek.terminal.messages import is_terminal, note, one_line


def rename(arguments: argparse.Namespace) -> int:
    """Rename a model, or finish a renaming that was interrupted."""
    new = changing.checked_name(arguments.new)
    for begun in changing.unfinished():
        changing.finish(begun)
        words = f"Renaming {begun.old} to {begun.new} was interrupted; it is done now."
        note(one_line(words))
        if begun.new == new and not _is_there(arguments.name):
            _tell_renamed(begun.folder / begun.files[0][1], arguments.json)
            return 0
    models = catalogue.all_models()
    model = _of_library(arguments.name, models, "renamed")
    if model.place.called == EMBEDDED:
        raise UsageError("nano cannot be renamed: it is the embedded model.", "Rename another.")
    taken = [one for one in models if one.in_library and one is not model and new in one.names]
    if taken:
        raise ModelError(f"{new} is already a name of {taken[0].path}.", "Take another name.")
    _tell_renamed(changing.rename(model.path, new), arguments.json)
    return 0


def _is_there(name: str) -> bool:
    try:
        library.look_up(name)
    except ModelError:
        return False
    return True


def _tell_renamed(path: Path, as_json: bool) -> None:
    model = catalogue.at(path, catalogue.all_models())
    short = model.name if model else ""
    if as_json:
        print(json.dumps({"path": str(path), "name": library_name(path), "short_name": short}))
    else:
        print(f"{one_line(str(path))}\nIt answers to {one_line(short)} now.")


def remove(arguments: argparse.Namespace) -> int:
    """Delete models after a question; exit status 1 if the answer is no."""
    models = catalogue.all_models()
    found = [_of_library(name, models, "removed") for name in arguments.names]
    chosen = list({model.path: model for model in found}.values())
    files = {model.path: changing.files_of(model.path) for model in chosen}
    sizes = {path: changing.freed_bytes(parts) for path, parts in files.items()}
    if not arguments.yes and not _agreed(chosen, files, sizes):
        note("Nothing was removed.")
        return 1
    freed = 0
    for model in chosen:
        users = mapping_processes(files[model.path])
        changing.remove(model.path)
        freed += sizes[model.path]
        if users:
            numbers = ", ".join(map(str, users))
            note(f"{one_line(model.name)} is in use by process {numbers}: "
                 "its memory on the disk is free when that ends.")  # fmt: skip
    gone = [str(file) for model in chosen for file in files[model.path]]
    if arguments.json:
        print(json.dumps({"removed": gone, "freed_bytes": freed}))
    else:
        names = ", ".join(one_line(model.name) for model in chosen)
        print(f"Removed: {names}; {rough_size(freed)} are free.")
    return 0


def _agreed(chosen: list[Model], files: dict[Path, list[Path]], sizes: dict[Path, int]) -> bool:
    """Show what would go and ask; raises UsageError where there is nobody to ask."""
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        raise UsageError(
            "Nothing was removed: there is no terminal to ask on.", "--yes removes unasked."
        )
    for model in chosen:
        count = len(files[model.path])
        parts = f"{count} files" if count > 1 else one_line(str(model.path))
        link = f", a link to {model.path.readlink()}" if model.path.is_symlink() else ""
        print(f"{one_line(model.name)}: {parts}{one_line(link)}, "
              f"frees {rough_size(sizes[model.path])}", file=sys.stderr)  # fmt: skip
    print("Remove? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _of_library(name: str, models: list[Model], done: str) -> Model:
    """Find a model that is localseek's own; raises ModelError for any other."""
    if name == EMBEDDED and not any(one.place.called == EMBEDDED for one in models):
        raise ModelError("nano was not prepared yet: there is no file.", "Nothing has to be done.")
    path = Path(name).expanduser()
    if path.is_file():
        model = catalogue.at(path, models)
    else:
        model = library.look_up(name, models, to_get=False)
    if model is None:
        raise ModelError(
            f"{name} is not in the library: only what is in it can be {done}.",
            "It is your file; the system's own commands do it.",
        )
    if not model.in_library:
        raise ModelError(
            f"{model.name} belongs to {TITLES[model.place.program]}; only the library's models "
            f"can be {done} here.",
            f"There: {removal(model.place)}" if done == "removed" else "",
        )
    real = model.path.parent.resolve()
    if not real.is_relative_to(paths.models().resolve()):
        raise ModelError(
            f"{model.name} lies behind a link, in {real}; only what is in the library itself "
            f"can be {done}.",
            "The system's own commands do it there, or remove the link.",
        )
    return model
