"""The only module that opens the history's database, encrypted or not.

Takes a path, and a key if it is encrypted; gives a `sqlite3.Connection` (or SQLCipher's, which has
the same interface) whose tables are those of the newest version. A file that is damaged, locked, of
a newer localseek, or of another passphrase is never written to. Knows nothing about conversations.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from localseek.errors import LocalseekError
from localseek.store.history import cipher
from localseek.store.history.migrations import MIGRATIONS
from localseek.system import private

UNREADABLE = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
WAIT_S = 3.0  # for another window's write; each of them takes milliseconds


class HistoryError(LocalseekError):
    """The history cannot be read or written; conversations go on without it."""

    lasting = True  # trying again would not help


class BusyError(HistoryError):
    """It could not be written just now: locked, or no room on the disk."""

    lasting = False


class LockedError(HistoryError):
    """It is encrypted, and what opens it was not given."""


class WrongPassphraseError(LockedError):
    """It is encrypted, and the passphrase is another one."""


class GoneError(LocalseekError):
    """What was to be written to is not there any more: deleted by another program."""


def open_database(path: Path, key: cipher.Key | None = None) -> sqlite3.Connection:
    """Open the database, made or brought up to date if need be; raises HistoryError.

    LockedError if it is encrypted and there is no `key`, WrongPassphraseError if it is another's.
    """
    with explained(path):
        if not path.exists():
            os.close(private.descriptor_of(path, os.O_WRONLY))
        before = path.stat().st_ino
        connection = _connected(path, key)
        try:
            _check_key(connection, path, key)
            _prepare(connection, path)
        except BaseException as error:
            connection.close()
            if _primary(error) in UNREADABLE and path.stat().st_ino != before:
                raise converted(path) from error  # what was opened is the file before
            raise
        return connection


def converted(path: Path) -> BusyError:
    """Give the error for a history that is another file than it was a moment ago."""
    what = f"Another process is converting the history {path}, or has just done so."
    return BusyError(what, "Try again.")


def _connected(path: Path, key: cipher.Key | None) -> sqlite3.Connection:
    if key is None:
        connection = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)
    else:
        try:
            connection = cipher.connect(path, key, WAIT_S)
        except LocalseekError as error:
            what = f"The history {path} is encrypted, and {error.message}"
            raise LockedError(what, error.hint) from error
    # A damaged byte is one sign of a text, and what sqlite3 would say quotes all of it.
    connection.text_factory = lambda stored: stored.decode("utf-8", "replace")
    return connection


def _check_key(connection: sqlite3.Connection, path: Path, key: cipher.Key | None) -> None:
    """Read from the file; raise LockedError where that needs another key."""
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except cipher.database_errors() as error:
        # Only now: this process has no connection to it that a second look could take locks from.
        if _primary(error) != sqlite3.SQLITE_NOTADB:
            raise
        if key is not None and cipher.is_plain(path):
            raise converted(path) from error
        if not cipher.is_encrypted(path):
            raise
        if key is None:
            what = f"The history {path} is encrypted."
            raise LockedError(what, "Its passphrase opens it.") from error
        raise WrongPassphraseError(
            f"The passphrase is wrong: it does not open the history {path}.",
            "Nothing was changed.",
        ) from error


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Write all of a block or nothing of it; raises HistoryError."""
    with explained(path):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            # A full disk has rolled it back already.
            with contextlib.suppress(*cipher.database_errors()):
                connection.execute("ROLLBACK")
            raise


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system say into a HistoryError that says what to do."""
    try:
        yield
    except cipher.database_errors() as error:
        if _primary(error) == sqlite3.SQLITE_CONSTRAINT:
            raise GoneError("This conversation was deleted by another program.") from error
        kind, words = _words(path, error)
        raise kind(*words) from error
    except UnicodeDecodeError as error:  # SQLite's own words name a table whose name is damaged
        raise HistoryError(*_damaged(path)) from error
    except OSError as error:
        raise HistoryError(
            f"The history {path} cannot be opened: {error.strerror}.",
            "Check who owns it, or set LOCALSEEK_HOME to a folder that you can write to.",
        ) from error


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    version = _version(connection)
    if version > len(MIGRATIONS):
        raise HistoryError(
            f"The history {path} was written by a newer localseek (version {version}; this one "
            f"knows {len(MIGRATIONS)}).",
            "Update localseek.",
        )
    connection.execute("PRAGMA journal_mode = WAL")  # readers never wait for a writer
    connection.execute("PRAGMA synchronous = NORMAL")  # a killed process loses nothing
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
    connection.execute("PRAGMA temp_store = MEMORY")  # nothing of it in the folder for such files
    if version < len(MIGRATIONS):
        _migrate(connection, path)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Go through the steps that are missing, each whole or not at all, in one process only."""
    for number, step in enumerate(MIGRATIONS, 1):
        with transaction(connection, path):
            if _version(connection) < number:
                for statement in step:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def is_full(error: BaseException) -> bool:
    """Tell whether an error says that the disk is full; that of SQLCipher's export has no code."""
    if not isinstance(error, cipher.database_errors()):
        return False
    return _primary(error) == sqlite3.SQLITE_FULL or "disk is full" in str(error)


def _primary(error: BaseException) -> int | None:
    """Give SQLite's code of an error, without its detail."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF


def _words(
    path: Path, error: Exception
) -> tuple[type[HistoryError], tuple[str, str]]:
    """Give what happened and what to do about it."""
    primary = _primary(error)
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        what = f"The history {path} is locked by another program."
        return BusyError, (what, "Try again when it has ended.")
    if is_full(error) or (primary == sqlite3.SQLITE_IOERR and _is_full(path)):
        return BusyError, (f"The disk of the history {path} is full.", "Make room, then ask again.")
    if primary in UNREADABLE:
        return HistoryError, _damaged(path)
    if primary == sqlite3.SQLITE_IOERR:
        what = f"The disk of the history {path} fails: {error}."
        return BusyError, (what, "Check the disk; the file may be whole.")
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        what = f"The history {path} cannot be written: {error}."
        return HistoryError, (what, "Check who owns it.")
    if primary == sqlite3.SQLITE_IOERR:
        what = f"The history {path} cannot be used: {error}."
        return HistoryError, (what, "Check the disk, and whether it has room.")
    return HistoryError, (
        f"The history {path} cannot be used: {error}.", "Move it elsewhere to begin a new one."
    )  # fmt: skip


def _damaged(path: Path) -> tuple[str, str]:
    return (
        f"The history {path} is damaged, and nothing in it was changed.",
        "Move it elsewhere to begin a new one; `sqlite3 FILE .recover` may save its text.",
    )


def _is_full(path: Path) -> bool:
    """Tell whether the disk has no room: the memory that readers share may find none either."""
    with contextlib.suppress(OSError):
        return os.statvfs(path.parent).f_bavail == 0
    return False
