"""What a conversion of the history leaves behind when it is killed, and how it is cleared away.

Looked for when a verb starts. A conversion (conversion.py) writes the new file beside the
old one, links the old one to a second name, and takes its place with one rename: so the history is
whole at every moment, and everything here is overwritten and removed. Knows no passphrase.
"""

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from localseek.store.history.cipher import is_encrypted
from localseek.store.sealing import is_sealed
from localseek.system import private

HISTORY, LOCK = "history.sqlite3", "converting.lock"
NEW, OLD = ".new", ".old"  # after the names of the files
PARTS = ("", "-wal", "-shm", "-journal")


def history_file(home: Path) -> Path:
    """Give the file of the history in a home; nothing is made."""
    return home / "history" / HISTORY


def linked(history: Path) -> Path:
    """Give the file that a symbolic link leads to; SQLite keeps its log beside that one."""
    return Path(os.path.realpath(history))


def clear_away(home: Path) -> None:
    """Remove what is left of conversions that were killed; one that runs is left alone."""
    link = history_file(home)
    history = linked(link)
    with contextlib.suppress(OSError):
        if not link.parent.is_dir() or not (_found(home, history) or _beside(link)):
            return
        with converting(history) as alone:
            if alone:
                for path in {link, history}:  # a localseek before wrote beside the link
                    drop_files(path)
                drop_other_sequences(home / "sequences", history)


@contextlib.contextmanager
def converting(history: Path) -> Iterator[bool]:
    """Hold the lock of conversions in a block; gives whether no other process has it."""
    with private.opened(history.with_name(LOCK), "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def drop_files(history: Path) -> None:
    """Overwrite and remove an unfinished new file and the old one's other name.

    Raises the first OSError when all that can go is gone.
    """
    failed: list[OSError] = []
    for part in PARTS:
        path = history.with_name(history.name + part)
        new = history.with_name(history.name + NEW + part)
        for other in (path.with_name(path.name + OLD), new):
            try:
                drop(other, path)
            except OSError as error:
                failed.append(error)
    if failed:
        raise failed[0]


def drop(other: Path, path: Path) -> None:
    """Overwrite and remove `other`, unless it is still another name of `path`: then that name."""
    if path.exists() and other.exists() and other.samefile(path):
        other.unlink()
    else:
        _erase(other)


def _erase(path: Path) -> None:
    """Overwrite and remove a file; a link or a backup's file (`cp -al`) is removed only."""
    with contextlib.suppress(FileNotFoundError):
        facts = path.lstat()
        if stat.S_ISLNK(facts.st_mode) or facts.st_nlink > 1:
            path.unlink()
        else:
            private.erase(path)


def drop_other_sequences(folder: Path, history: Path) -> None:
    """Remove saved sequences that are encrypted where the history is not, or the other way.

    Those that are not encrypted are overwritten. For a process that has the history not open.
    """
    encrypted = is_encrypted(history)
    for path in _others(folder, encrypted):
        if encrypted:
            _erase(path)
        else:
            path.unlink(missing_ok=True)


def _found(home: Path, history: Path) -> bool:
    """Tell whether there is anything to clear away."""
    return _beside(history) or bool(_others(home / "sequences", is_encrypted(history)))


def _beside(history: Path) -> bool:
    names = {path.name for path in history.parent.iterdir()}
    left = {history.name + part + OLD for part in PARTS}
    left |= {history.name + NEW + part for part in PARTS}
    return not names.isdisjoint(left)


def _others(folder: Path, encrypted: bool) -> list[Path]:
    found = [*folder.glob("*.sequence"), *folder.glob("*.partial")]
    regular = [path for path in found if path.is_file() and not path.is_symlink()]
    return [path for path in regular if is_sealed(path) != encrypted]
