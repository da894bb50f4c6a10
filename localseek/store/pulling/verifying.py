"""Is a file what the hub says it is? SHA-256 for large files, Git's own SHA-1 for small ones.

Takes bytes as they come, or a file on disk. Knows nothing about networks.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

from localseek.errors import LocalseekError
from localseek.store.pulling.plan import Ledger
from localseek.store.pulling.remote import RemoteFile

PIECE = 1 << 20  # bytes read at once


class Digest:
    """The checksums of a file whose bytes are seen one after the other."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        # Git hashes a header before the content; it is no protection, only an identity here.
        self._blob = hashlib.sha1(b"blob %d\0" % file.size_bytes, usedforsecurity=False)
        self._spoilt = False
        self._use_blob = bool(file.blob_id) and not file.sha256

    def update(self, data: bytes) -> None:
        """See more of the file."""
        self._sha256.update(data)
        if self._use_blob:
            self._blob.update(data)

    def spoil(self) -> None:
        """Note that the file holds something else than what was seen."""
        self._spoilt = True

    @property
    def sha256(self) -> str:
        """Give the SHA-256 of what was seen."""
        return self._sha256.hexdigest()

    def matches(self) -> bool:
        """Tell whether this is the file that the hub names; true where it says nothing."""
        if self._spoilt:
            return False
        if self._file.sha256:
            return self.sha256 == self._file.sha256
        return not self._use_blob or self._blob.hexdigest() == self._file.blob_id


def digest_of(
    path: Path, file: RemoteFile, read: Callable[[int], None] = lambda _count: None
) -> Digest:
    """Read a file, or the beginning of one, into a digest; `read` hears of every piece."""
    digest = Digest(file)
    with path.open("rb") as source:
        while piece := source.read(PIECE):
            digest.update(piece)
            read(len(piece))
    return digest


def is_there(folder: Path, file: RemoteFile, ledger: Ledger) -> bool:
    """Tell whether a file of the folder is the one that is wanted, read through if it must be.

    Raises LocalseekError for another file of that name which no pull has put there: it is the
    user's. An older version that a pull has brought may be replaced.
    """
    path = folder / file.name
    if not path.exists():
        return False
    known = ledger.sha256(file.name)
    if known and file.sha256:
        if known == file.sha256:
            return True
    elif path.is_file() and path.stat().st_size == file.size_bytes:
        digest = digest_of(path, file)
        if digest.matches():
            ledger.enter(file.name, digest.sha256)
            return True
    if path.is_file() and (known or _was_pulled(path, ledger.known(file.name))):
        return False
    raise LocalseekError(
        f"{path} is there with another content, and no pull has put it there.",
        "Move it away, or pull into another folder with --to.",
    )


def _was_pulled(path: Path, sha256: str) -> bool:
    """Tell whether a file with a new date is still what a pull once wrote."""
    if not sha256:
        return False
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest() == sha256
