"""Which download a model file belongs to, and what keeps that record right.

Takes paths in the library, gives the `Pulled` of the nearest folder above that names the file; its
entries follow when files are renamed or removed. Knows nothing about models.
"""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from localseek.store import pulled
from localseek.store.pulled import Pulled
from localseek.system import paths


@dataclass(frozen=True, slots=True)
class Origin:
    """A file's entry in the record of a download: `key` is its name there."""

    folder: Path
    pulled: Pulled
    key: str

    @property
    def sha256(self) -> str:
        """Give the checksum that was published with the file, "" if none was."""
        return self.pulled.files.get(self.key, "")


def origin_of(file: Path) -> Origin | None:
    """Find the download that a file came with, None if it came otherwise."""
    for folder in file.parents:
        found = pulled.recorded(folder)
        if found is not None:
            key = file.relative_to(folder).as_posix()
            return Origin(folder, found, key) if key in found.files else None
        if folder == paths.models():
            break
    return None


def follow_renamed(files: Mapping[Path, Path]) -> None:
    """Rename entries as their files were; raises LocalseekError if a record cannot be written."""
    for old, new in files.items():
        origin = origin_of(old)
        if origin is not None:
            key = new.relative_to(origin.folder).as_posix()
            entries = {key if name == origin.key else name: digest
                       for name, digest in origin.pulled.files.items()}  # fmt: skip
            pulled.record(origin.folder, replace(origin.pulled, files=entries))


def follow_removed(files: Iterable[Path]) -> None:
    """Drop the entries of files that are gone, and a record whose last one went."""
    for file in files:
        origin = origin_of(file)
        if origin is None:
            continue
        entries = {
            name: digest for name, digest in origin.pulled.files.items() if name != origin.key
        }
        if entries:
            pulled.record(origin.folder, replace(origin.pulled, files=entries))
        else:
            with contextlib.suppress(FileNotFoundError):
                (origin.folder / pulled.RECORD).unlink()
