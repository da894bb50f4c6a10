"""Encrypted files of any size: AES-256-GCM in pieces, so that memory stays bounded.

Takes a key of 32 bytes and plain bytes, gives a file that tells nothing but its length; a change, a
missing end or another order of pieces is found. Each file has a key of its own, made from the key
and 32 random bytes; each piece is numbered, and the last one says that it is. Knows nothing about
what the bytes mean. The only door to cryptography.
"""

import contextlib
import hmac
import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"localseek sealed 1\n"
SALT_BYTES, TAG_BYTES = 32, 16
PIECE_BYTES = 1 << 16
START = len(MAGIC) + SALT_BYTES


class SealError(ValueError):
    """A file was not sealed with this key, or it is damaged."""


def is_sealed(path: Path) -> bool:
    """Tell whether a file is one of these; raises OSError."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def seal(file: BinaryIO, key: bytes, parts: Iterable[memoryview]) -> None:
    """Write parts as one sealed file; raises OSError."""
    salt = os.urandom(SALT_BYTES)
    file.write(MAGIC + salt)
    cipher = _cipher(key, salt)
    for number, (piece, last) in enumerate(_pieces(parts)):
        file.write(cipher.encrypt(_nonce(number, last), piece, None))


class Sealed:
    """An open sealed file, read from its beginning; raises SealError where it is not sound."""

    def __init__(self, file: BinaryIO, key: bytes) -> None:
        self._file, whole = file, os.fstat(file.fileno()).st_size
        start = file.read(START)
        if len(start) < START or not start.startswith(MAGIC):
            raise SealError("it is not sealed")
        self._cipher = _cipher(key, start[len(MAGIC) :])
        self._count = -(-(whole - START) // (PIECE_BYTES + TAG_BYTES))
        self.size = whole - START - self._count * TAG_BYTES  # of the plain bytes
        if self._count < 1 or self.size < 0:
            raise SealError("it is truncated")

    def first(self, length: int) -> memoryview:
        """Give the first `length` bytes, or all if there are fewer."""
        length = min(length, self.size)
        if length == 0:
            return memoryview(b"")
        found = _memory(length)
        place = number = 0
        self._file.seek(START)
        while place < length:
            piece = self._piece(number)
            wanted = min(len(piece), length - place)
            found[place : place + wanted] = piece[:wanted]
            place, number = place + wanted, number + 1
        return found

    def pieces(self) -> Iterator[memoryview]:
        """Give all bytes, a piece at a time."""
        self._file.seek(START)
        for number in range(self._count):
            yield memoryview(self._piece(number))

    def _piece(self, number: int) -> bytes:
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415

        sealed = self._file.read(PIECE_BYTES + TAG_BYTES)
        try:
            nonce = _nonce(number, number + 1 == self._count)
            return bytes(self._cipher.decrypt(nonce, sealed, None))
        except InvalidTag as error:
            raise SealError("it is damaged, or was sealed with another key") from error


def _memory(length: int) -> memoryview:
    """Give memory for so many bytes, in huge pages where there are any: twice as fast to fill."""
    memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if length > 1 << 21 and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)


def _cipher(key: bytes, salt: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    return AESGCM(hmac.digest(key, MAGIC + salt, "sha256"))


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _pieces(parts: Iterable[memoryview]) -> Iterator[tuple[bytes | memoryview, bool]]:
    """Cut parts, as if they were one, into pieces of one length; with each, whether it is the last.

    A last piece may be empty only if all is.
    """
    begun = bytearray()
    ready: bytes | memoryview | None = None
    for part in parts:
        if not part.nbytes:  # which cannot be cast
            continue
        whole, place = part.cast("B"), 0
        while place < len(whole):
            wanted = PIECE_BYTES - len(begun)
            taken = whole[place : place + wanted]
            place += len(taken)
            if not begun and len(taken) == PIECE_BYTES:
                full: bytes | memoryview = taken
            else:
                begun += taken
                if len(begun) < PIECE_BYTES:
                    continue
                full = bytes(begun)
                begun.clear()
            if ready is not None:
                yield ready, False
            ready = full
    if begun or ready is None:
        if ready is not None:
            yield ready, False
        ready = bytes(begun)
    yield ready, True
