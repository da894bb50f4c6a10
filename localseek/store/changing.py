"""Models of the library renamed and removed, all their parts and what belongs to them.

Takes a file of the library, leaves it whole whatever happens. A renaming is written down before
the first part gets its new name, so that one that was killed in the middle is finished by the
next; the first part goes last, so that the model can be asked for until then. Removing begins with
the last part for the same reason. Only the model's own files and folders that are empty then go.
"""

import contextlib
import errno
import json
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from localseek.errors import LocalseekError, ModelError, UsageError
from localseek.gguf.info import SPLIT_NAME
from localseek.store.belonging import follow_removed, follow_renamed
from localseek.store.models.files import EMBEDDED, model_files
from localseek.system import paths

NOTE = ".localseek-rename.json"
LONGEST_NAME = 230  # bytes: file systems take 255, and parts add 21
# What separates folders, type, place; what a shell or another system reads otherwise.
REFUSED = re.compile(r"[/\\:@*?\"'<>|$`&;!#~(){}\[\]\x00-\x1f\x7f]|\s")
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


@dataclass(frozen=True, slots=True)
class Renaming:
    """A renaming that was begun: the names without ending, and each file's old and new name."""

    folder: Path
    old: str
    new: str
    files: tuple[tuple[str, str], ...]


def files_of(path: Path) -> list[Path]:
    """Give all files of a model that are there, by their names, the first part first."""
    match = SPLIT_NAME.match(path.name)
    if match is None:
        return [path]
    pattern = re.compile(rf"{re.escape(match['stem'])}-\d{{5}}-of-{match['count']}\.gguf")
    return sorted(one for one in path.parent.iterdir() if pattern.fullmatch(one.name))


def checked_name(new: str) -> str:
    """Give a new name without its ending; raises UsageError for what cannot be one."""
    name = new.removesuffix(".gguf")
    why = ""
    if not name.strip():
        why = "it is empty"
    elif found := REFUSED.search(name):
        shown = "a space" if found[0] == " " else repr(found[0])
        why = f"{shown} cannot stand in it"
    elif name[0] in ".-":
        why = f"it begins with {name[0]!r}"
    elif name.lower() == EMBEDDED:
        why = "that is the embedded model's"
    elif SPLIT_NAME.match(f"{name}.gguf"):
        why = "it ends like a part of a model"
    elif len(os.fsencode(name)) > LONGEST_NAME:
        why = f"it is longer than {LONGEST_NAME} bytes"
    if why:
        hint = "A name has letters, digits, '.', '-' and '_'; the file stays in its folder."
        raise UsageError(f"{new!r} cannot be a model's name: {why}.", hint)
    return name


def rename(path: Path, new: str) -> Path:
    """Rename a model's files, never over others; give the first one's new place.

    Raises UsageError for a name that cannot be, ModelError if it is taken, LocalseekError if the
    folder cannot be written to; then what was renamed so far is written down.
    """
    name = checked_name(new)
    match = SPLIT_NAME.match(path.name)
    old = match["stem"] if match else path.name.removesuffix(".gguf")
    pairs = [(one.name, name + one.name.removeprefix(old)) for one in files_of(path)]
    for _, target in pairs:
        if os.path.lexists(path.parent / target):
            raise ModelError(f"{path.parent / target} is there already.", "Take another name.")
    renaming = Renaming(path.parent, old, name, tuple(pairs))
    try:
        _write_down(renaming)
        finish(renaming)
    except OSError as error:
        raise _unwritable(path.parent, error) from error
    return path.with_name(pairs[0][1])


def finish(renaming: Renaming) -> None:
    """Rename what has its old name still; raises ModelError if a new one is taken meanwhile."""
    for old, new in reversed(renaming.files):
        _move(renaming.folder / old, renaming.folder / new)
    follow_renamed({renaming.folder / old: renaming.folder / new for old, new in renaming.files})
    (renaming.folder / NOTE).unlink(missing_ok=True)


def unfinished() -> list[Renaming]:
    """Give the renamings that something stopped in the middle."""
    folders = dict.fromkeys([paths.models(), *(path.parent for path in model_files())])
    return [found for folder in folders if (found := _read(folder))]


def remove(path: Path) -> list[Path]:
    """Remove a model's files and the folders that are empty then; give the files.

    Raises LocalseekError; the first part goes last, so that the rest can be asked for again.
    """
    files = files_of(path)
    try:
        for file in reversed(files):
            file.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path.parent, error) from error
    follow_removed(files)
    _remove_empty(path.parent)
    return files


def freed_bytes(files: Iterable[Path]) -> int:
    """Give what removing files makes free: nothing of links, and of files with another name."""
    facts = [file.lstat() for file in files]
    return sum(one.st_size for one in facts if one.st_nlink == 1 and not stat.S_ISLNK(one.st_mode))


def _move(old: Path, new: Path) -> None:
    """Give a file another name, never over another file; done already is fine."""
    if not os.path.lexists(old):
        if os.path.lexists(new):
            return
        raise ModelError(f"{old} is gone.", "Get the model again.")
    try:
        os.link(old, new, follow_symlinks=False)  # fails if `new` is there, which rename does not
    except FileExistsError as error:
        if not _same(old, new):
            raise ModelError(
                f"{new} is there already.", "Move it away; the same command goes on then."
            ) from error
    except OSError as error:
        if error.errno not in NO_LINKS or os.path.lexists(new):
            raise
        old.rename(new)
        return
    old.unlink()


def _same(one: Path, other: Path) -> bool:
    return os.path.samestat(one.lstat(), other.lstat())


def _write_down(renaming: Renaming) -> None:
    text = json.dumps({"old": renaming.old, "new": renaming.new, "files": renaming.files})
    partial = renaming.folder / f"{NOTE}.new"
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(renaming.folder / NOTE)
    finally:
        partial.unlink(missing_ok=True)


def _read(folder: Path) -> Renaming | None:
    """Read what was begun in a folder; names with folders in them are none of ours."""
    try:
        found = json.loads((folder / NOTE).read_bytes())
        pairs = tuple((str(old), str(new)) for old, new in found["files"])
        if not pairs or any(name != Path(name).name for pair in pairs for name in pair):
            return None
        return Renaming(folder, str(found["old"]), str(found["new"]), pairs)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remove_empty(folder: Path) -> None:
    """Remove a folder and those above it as far as they hold nothing; never the library's own."""
    top = paths.models()
    while folder != top and folder.is_relative_to(top):
        with contextlib.suppress(OSError):  # it holds something
            folder.rmdir()
            folder = folder.parent
            continue
        return


def _unwritable(folder: Path, error: OSError) -> LocalseekError:
    return LocalseekError(f"{folder} cannot be changed: {error.strerror}.")
