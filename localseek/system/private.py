"""Folders and files of the state are made here, for their owner only, whatever the umask.

Also tightens what an earlier version or another program left looser, and overwrites what is to be
gone. Takes paths; knows nothing about what is in the files.
"""

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

FOLDER, FILE = 0o700, 0o600
OTHERS = 0o077  # what a group and everybody else may do
WORDS = ("history", "sequences", "drafting", "logs", "recovered")  # folders, with their files
OTHER = ("models", "checkpoints", "settings.toml")  # tightened themselves, not what is in them
ZEROS = bytes(1 << 20)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)  # where zeros want blocks of their own: holes, btrfs
READING_S = 5.0  # to read some gigabytes of a saved sequence


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing; raises OSError."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
        if path == path.parent:
            break
    for one in reversed(missing):
        one.mkdir(mode=FOLDER, exist_ok=True)  # a umask can only take rights away


def descriptor_of(path: Path, flags: int) -> int:
    """Open a file, made for its owner only if it is missing; raises OSError."""
    return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, FILE)


def opened(path: Path, mode: str) -> BinaryIO:
    """Open a file for bytes, "ab" or "wb", as `descriptor_of` does; raises OSError."""
    end = os.O_APPEND if mode == "ab" else os.O_TRUNC
    return cast(BinaryIO, os.fdopen(descriptor_of(path, os.O_WRONLY | end), mode))


def write_whole(path: Path, text: str) -> None:
    """Write a text in place of a file, whole or not at all; raises OSError."""
    unfinished = path.with_name(path.name + ".new")
    try:
        with opened(unfinished, "wb") as file:
            file.write(text.encode())
        unfinished.replace(path)
    except OSError:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            unfinished.unlink(missing_ok=True)
        raise


def make_like(model: Path, path: Path) -> None:
    """Make a file anew that only those may read who may read another; raises OSError."""
    path.unlink(missing_ok=True)
    descriptor = descriptor_of(path, os.O_WRONLY | os.O_EXCL)
    try:
        os.fchmod(descriptor, stat.S_IMODE(model.stat().st_mode) & 0o666)
    finally:
        os.close(descriptor)


def tighten(home: Path) -> None:
    """Take other people's rights from the folders of the state and the files with words.

    What belongs to somebody else, and what a link leads to, stays as it is.
    """
    if home != Path.home():
        _tighten(home)
    for name in (*WORDS, *OTHER):
        _tighten(home / name)
    for name in WORDS:
        with contextlib.suppress(OSError):
            if not (home / name).is_symlink():
                for path in (home / name).iterdir():
                    _tighten(path)


def _tighten(path: Path) -> None:
    with contextlib.suppress(OSError):
        facts = path.lstat()
        ours = facts.st_uid == os.getuid() and stat.S_IMODE(facts.st_mode) & OTHERS
        if ours and (stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode)):
            path.chmod(stat.S_IMODE(facts.st_mode) & ~OTHERS)


def erase(path: Path) -> None:
    """Overwrite a file with zeros, then remove it; raises OSError, nothing if it is gone.

    Waits for who reads it under a lock; who reads on for seconds keeps the bytes until it ends. A
    disk may keep the old bytes elsewhere all the same.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    except PermissionError:
        path.unlink()
        return
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        try:
            if _nobody_reads(file):
                overwrite(file)
        except OSError as error:
            if error.errno not in NO_ROOM:  # else what would keep the disk full goes all the same
                raise
        path.unlink(missing_ok=True)


def _nobody_reads(file: BinaryIO) -> bool:
    deadline = time.monotonic() + READING_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        except OSError:  # a file system without locks
            return True


def overwrite(file: BinaryIO) -> None:
    """Write zeros over all of an open file, and see them to the disk; raises OSError."""
    left = os.fstat(file.fileno()).st_size
    file.seek(0)
    while left > 0:
        left -= file.write(ZEROS[:left])
    os.fsync(file.fileno())


@contextlib.contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """Give an open file that is not erased meanwhile; raises OSError."""
    with path.open("rb") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_SH)
        try:
            yield file
        finally:  # said outright: a mapping of the file would go on holding it
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)
