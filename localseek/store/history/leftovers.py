"""What a conversion of the history leaves behind when it is killed, and how it is cleared away.

Looked for when a verb starts. A conversion (conversion.py) writes the new file beside the
old one, links the old one to a second name, and takes its place with one rename: so the history is
whole at every moment, and everything here is overwritten and removed. Knows no passphrase.
"""

import contextlib
import fcntl
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


def clear_away(home: Path) -> None:
    """Remove what is left of conversions that were killed; one that runs is left alone."""
    history = history_file(home)
    with contextlib.suppress(OSError):
        if not history.parent.is_dir() or not _found(home, history):
            return
        with converting(history) as alone:
            if alone:
                drop_files(history)
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
    """Overwrite and remove an unfinished new file and the old one's other name."""
    for part in PARTS:
        path = history.with_name(history.name + part)
        drop(path.with_name(path.name + OLD), path)
        new = history.with_name(history.name + NEW + part)
        private.erase(new)


def drop(other: Path, path: Path) -> None:
    """Overwrite and remove `other`, unless it is still another name of `path`: then that name."""
    if path.exists() and other.exists() and other.samefile(path):
        other.unlink()
    else:
        private.erase(other)


def drop_other_sequences(folder: Path, history: Path) -> None:
    """Remove saved sequences that are encrypted where the history is not, or the other way.

    Those that are not encrypted are overwritten. For a process that has the history not open.
    """
    encrypted = is_encrypted(history)
    for path in _others(folder, encrypted):
        if encrypted:
            private.erase(path)
        else:
            path.unlink(missing_ok=True)


def _found(home: Path, history: Path) -> bool:
    """Tell whether there is anything to clear away."""
    names = {path.name for path in history.parent.iterdir()}
    beside = any(history.name + part + OLD in names for part in PARTS)
    beside |= any(history.name + NEW + part in names for part in PARTS)
    return beside or bool(_others(home / "sequences", is_encrypted(history)))


def _others(folder: Path, encrypted: bool) -> list[Path]:
    found = [*folder.glob("*.sequence"), *folder.glob("*.partial")]
    regular = [path for path in found if path.is_file() and not path.is_symlink()]
    return [path for path in regular if is_sealed(path) != encrypted]
