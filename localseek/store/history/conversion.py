"""A history made into an encrypted one, a plain one, or one with another passphrase.

Takes the file and both keys. The new file is written whole beside the old one, checked, and takes
its place with one rename: whoever is killed leaves the old or the new history, and leftovers.py
clears away the rest. The old file and its log are overwritten before they go, while nobody else can
read them. Saved sequences are encrypted, or made plain again, with it.
"""

import contextlib
import errno
import os
import secrets
import shutil
import sqlite3
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from localseek.store.history import cipher, leftovers
from localseek.store.history.cipher import Key
from localseek.store.history.database import (
    WAIT_S,
    BusyError,
    HistoryError,
    explained,
    is_full,
    open_database,
)
from localseek.store.history.migrations import MIGRATIONS
from localseek.store.sequences import SequenceStore
from localseek.system import private
from localseek.system.sizes import rough_size

SEQUENCES = "sequences"  # the name of their key, in the encrypted database
SEQUENCE_KEY_BYTES = 32
ROOM = 2  # times the size of the old file: the new one, and as much for all others meanwhile
LOCKED_FROM, LOCKED_BYTES = 0x4000_0002, 510  # what of its file SQLite locks (os.h: SHARED_FIRST)


def convert(path: Path, old: Key | None, new: Key | None, folder: Path) -> bool:
    """Make the history at `path`, which `old` opens, one that `new` opens; None: not encrypted.

    `folder` is that of the saved sequences. For a process that has the history not open. Tells
    whether the old file was overwritten: one that has other names is a backup's too, and is not.
    Raises HistoryError, and leaves all as it was.
    """
    path = leftovers.linked(path)
    with explained(path), leftovers.converting(path) as alone:
        if not alone:
            raise BusyError("Another process is converting the history.", "Wait for its end.")
        leftovers.drop_files(path)
        private.make_folder(folder)
        _check_room(path, folder if (old is None) != (new is None) else None)
        open_database(path, old).close()  # made, brought up to date, its key checked
        if who := users(path):
            raise BusyError(f"The history {path} is open in {who}.", "Close it first.")
        before = path.stat()
        try:
            _replace(path, old, new, folder)
        except BaseException as error:
            with contextlib.suppress(OSError):
                _clear(path, folder)
            if not isinstance(error, OSError) and not is_full(error):
                raise
            if path.stat().st_ino == before.st_ino:
                reason = error.strerror if isinstance(error, OSError) else None
                raise _cannot(path, reason or os.strerror(errno.ENOSPC)) from error
        _clear(path, folder)
        return before.st_nlink == 1


def _clear(path: Path, folder: Path) -> None:
    try:
        leftovers.drop_files(path)
    finally:
        leftovers.drop_other_sequences(folder, path)


def _cannot(path: Path, reason: object) -> BusyError:
    return BusyError(f"The history {path} cannot be converted: {reason}.", "Nothing was changed.")


def _check_room(path: Path, folder: Path | None) -> None:
    """Raise BusyError unless the new file has room, and the sequences in `folder` written anew."""
    log = path.with_name(path.name + "-wal")
    needed = ROOM * sum(one.stat().st_size for one in (path, log) if one.exists())
    if folder is not None and folder.stat().st_dev == path.parent.stat().st_dev:
        needed += sum(one.size_bytes for one in SequenceStore(folder).list())
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        short = f"{rough_size(needed)} are needed, {rough_size(free)} are free"
        raise _cannot(path, f"{os.strerror(errno.ENOSPC)} ({short})")


def users(path: Path) -> str:
    """Give the program that has the database open, in words; "" if none has.

    For a process that has not: closing a file takes its own locks on it away.
    """
    if sys.platform != "linux":
        return ""  # then the lock itself tells, without a name
    import fcntl  # noqa: PLC0415

    layout = "hhqqi4x"  # struct flock: type, whence, start, length, process
    asked = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, LOCKED_FROM, LOCKED_BYTES, 0)
    with path.open("r+b") as file:
        kind, *_, number = struct.unpack(layout, fcntl.fcntl(file, fcntl.F_GETLK, asked))
    if kind == fcntl.F_UNLCK:
        return ""
    import psutil  # noqa: PLC0415

    with contextlib.suppress(psutil.Error, ValueError):
        words = [Path(word).name for word in psutil.Process(number).cmdline()]
        return f"process {number} ({' '.join(' '.join(words).split())[:60]})"
    return f"process {number}"


def _replace(path: Path, old: Key | None, new: Key | None, folder: Path) -> None:
    """Write the new file and put it in the old one's place, nobody else reading or writing it."""
    fresh = path.with_name(path.name + leftovers.NEW)
    os.close(private.descriptor_of(fresh, os.O_WRONLY | os.O_EXCL))
    with path.open("r+b", buffering=0) as content, _alone(path, old) as connection:
        _write(connection, fresh, new, folder)
        _sync(fresh)
        _sync(folder)
        alone = os.fstat(content.fileno()).st_nlink == 1
        if alone:
            _second_name(path)
        fresh.replace(path)  # from here on it is the new history
        _sync(path.parent)
        # Before the lock goes: who waits for it finds zeros, and never reads or writes this file.
        if alone:
            private.overwrite(content)


@contextlib.contextmanager
def _alone(path: Path, key: Key | None) -> Iterator[sqlite3.Connection]:
    """Hold the database in a block, its log emptied into it, so that no other program can use it.

    Closing any file of it meanwhile would take the lock away.
    """
    connection = cipher.connect(path, key, WAIT_S)
    try:
        log = path.with_name(path.name + "-wal")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # the log is there now
        alone = log.exists() and log.stat().st_nlink == 1
        if alone:
            _second_name(log)
        with contextlib.ExitStack() as stack:
            logged: BinaryIO | None = None
            with contextlib.suppress(FileNotFoundError):
                logged = stack.enter_context(log.open("r+b", buffering=0))
            (mode,) = connection.execute("PRAGMA journal_mode = DELETE").fetchone()
            if mode != "delete":
                raise BusyError(f"The history {path} is in use.", "Try again.")
            if logged is not None and alone:
                private.overwrite(logged)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")  # the lock stays until the connection is closed
        yield connection
    finally:
        connection.close()


def _write(
    connection: sqlite3.Connection, fresh: Path, new: Key | None, folder: Path
) -> None:
    """Write all into the new file, and the sequences that another key belongs to now anew."""
    connection.execute("ATTACH DATABASE ? AS fresh KEY ?", (str(fresh), new.quoted if new else ""))
    connection.execute("SELECT sqlcipher_export('fresh')").fetchall()
    connection.execute(f"PRAGMA fresh.user_version = {len(MIGRATIONS)}")
    row = connection.execute("SELECT value FROM kept_key WHERE name = ?", (SEQUENCES,)).fetchone()
    before = None if row is None else bytes(row[0])
    after = None
    if new is not None:
        after = before or secrets.token_bytes(SEQUENCE_KEY_BYTES)
    if before != after:
        names = SequenceStore(folder, key=before).written_anew(after)
        connection.execute("BEGIN")
        connection.execute("DELETE FROM fresh.kept_key")
        if after is not None:
            connection.execute("INSERT INTO fresh.kept_key VALUES (?, ?)", (SEQUENCES, after))
        for conversation, name in connection.execute("SELECT * FROM sequence").fetchall():
            place = (names.get(name), conversation, name)
            connection.execute("DELETE FROM fresh.sequence WHERE ?1 IS NULL AND conversation = ?2 "
                               "AND name = ?3", place)  # fmt: skip
            connection.execute("UPDATE fresh.sequence SET name = ?1 WHERE ?1 IS NOT NULL AND "
                               "conversation = ?2 AND name = ?3", place)  # fmt: skip
        connection.execute("COMMIT")
    _check(connection)
    connection.execute("DETACH DATABASE fresh")


def _check(connection: sqlite3.Connection) -> None:
    """Raise HistoryError unless the new file is sound and holds as much as the old one."""
    (sound,) = connection.execute("PRAGMA fresh.integrity_check(1)").fetchone()
    counted = [
        connection.execute(f"SELECT count(*), total(length(content)) FROM {one}.message").fetchone()
        for one in ("main", "fresh")
    ]
    if sound != "ok" or counted[0] != counted[1]:
        raise HistoryError("The new history is not what it must be.", "Nothing was changed.")


def _second_name(path: Path) -> None:
    """Give a file another name, by which it is found again once it has lost the first."""
    with contextlib.suppress(OSError):  # not every file system has those
        os.link(path, path.with_name(path.name + leftovers.OLD))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
