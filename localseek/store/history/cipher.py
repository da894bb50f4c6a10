"""The history's encryption: SQLCipher 4 with its own key derivation. The only door to sqlcipher3.

Takes a file and a passphrase, gives a `Key` and connections. A file that is encrypted here begins
with its salt, of which 12 bytes are random and 4 say that it is one: so an encrypted file is told
from a damaged one without a passphrase, and any SQLCipher opens it with the passphrase. Knows
nothing about tables.
"""

import hashlib
import os
import sqlite3
import sys
import unicodedata
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from localseek.errors import LocalseekError

SALT_BYTES, RANDOM_BYTES = 16, 12
PLAIN = b"SQLite format 3\0"  # how every plain database begins: sqlite.org/fileformat.html
ITERATIONS = 256_000  # of PBKDF2-HMAC-SHA512: SQLCipher 4's default, about 0.2 s
KEY_BYTES = 32
INSTALL = 'Install it: pip install "localseek[encrypt]".'


@dataclass(frozen=True, slots=True)
class Key:
    """What opens one file, derived from its passphrase and its salt."""

    quoted: str = field(repr=False)  # as SQLCipher takes a key and a salt that are given raw


def is_encrypted(path: Path) -> bool:
    """Tell whether a file is a history that is encrypted; one that is missing is not.

    For a process that has it not open: closing a file takes SQLite's locks on it away.
    """
    return _is_salt(_beginning(path))


def is_plain(path: Path) -> bool:
    """Tell whether a file is a database that is not encrypted; for whom `is_encrypted` is."""
    return _beginning(path) == PLAIN


def new_salt() -> bytes:
    """Give a salt for a new file."""
    chosen = os.urandom(RANDOM_BYTES)
    return chosen + _mark(chosen)


def derive(passphrase: str, salt: bytes) -> Key:
    """Give the key that SQLCipher derives from a passphrase, typed on whatever keyboard."""
    words = unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogateescape")
    key = hashlib.pbkdf2_hmac("sha512", words, salt, ITERATIONS, KEY_BYTES)
    return Key(f"x'{key.hex()}{salt.hex()}'")


def key_of(path: Path, passphrase: str) -> Key:
    """Derive the key of an encrypted file."""
    return derive(passphrase, _beginning(path))


def connect(path: Path, key: Key | None, timeout_s: float) -> sqlite3.Connection:
    """Open a file with SQLCipher; `key` None: it is not encrypted. Raises its errors.

    What it gives has the interface of sqlite3.
    """
    connection: sqlite3.Connection = library().connect(
        str(path), timeout=timeout_s, isolation_level=None
    )
    connection.execute("PRAGMA cipher_log_level = NONE")  # it writes to the terminal
    if key is not None:
        connection.execute(f'PRAGMA key = "{key.quoted}"')  # digits and quotes only
        connection.execute("PRAGMA cipher_compatibility = 4")
    return connection


def library() -> ModuleType:
    """Give the module with SQLCipher; raises LocalseekError if it is not installed."""
    try:
        from sqlcipher3 import dbapi2  # noqa: PLC0415 — most histories need none
    except ImportError as error:
        raise LocalseekError("SQLCipher is not installed.", INSTALL) from error
    if find_spec("cryptography") is None:  # saved sequences need it
        raise LocalseekError("The package cryptography is not installed.", INSTALL)
    module: ModuleType = dbapi2
    return module


def is_installed() -> bool:
    """Tell whether SQLCipher is there."""
    try:
        return bool(library())
    except LocalseekError:
        return False


def database_errors() -> tuple[type[Exception], ...]:
    """Give the errors of sqlite3, and those of SQLCipher where it is in use."""
    loaded = sys.modules.get("sqlcipher3.dbapi2")
    return (sqlite3.DatabaseError,) if loaded is None else (
        sqlite3.DatabaseError, loaded.DatabaseError
    )  # fmt: skip


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(SALT_BYTES)
    except OSError:
        return b""


def _is_salt(beginning: bytes) -> bool:
    return (
        len(beginning) == SALT_BYTES
        and _mark(beginning[:RANDOM_BYTES]) == beginning[RANDOM_BYTES:]
    )  # fmt: skip


def _mark(chosen: bytes) -> bytes:
    size = SALT_BYTES - RANDOM_BYTES
    return hashlib.blake2b(chosen, digest_size=size, person=b"localseek").digest()
