"""What drafting has learnt, on disk: a small file for each model, placement and build.

It spares the first answers the tries that a controller without knowledge makes, and holds none of
the user's words. Every problem with a file costs only those tries: what cannot be read or written
is left out. Knows nothing about what the numbers mean (learnt.py does).
"""

import contextlib
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from localseek.engine.drafting.learnt import Learnt, from_plain, to_plain
from localseek.engine.llama import BUILD
from localseek.errors import LocalseekError
from localseek.placing.placement import Placement
from localseek.system import hardware, paths, private

SUFFIX = ".json"
MOST_FILES = 64
MOST_BYTES = 1 << 20  # of a file that is read
STALE_SECONDS = 60.0  # after which a file that is not finished was left behind


class LearntStore:
    """The file of one model as it is placed."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._swept = False

    def read(self) -> dict[int, Learnt]:
        """Give what was learnt, by the number of sequences; nothing if it cannot be used."""
        with contextlib.suppress(LocalseekError, OSError, ValueError, RecursionError):
            path = paths.home() / "drafting" / (self._key + SUFFIX)
            with path.open("rb") as file:
                return from_plain(json.loads(file.read(MOST_BYTES)))
        return {}

    def write(self, found: Mapping[int, Learnt]) -> None:
        """Keep what was learnt, if it can be written, beside what the file has of other counts.

        The models longest unused make room.
        """
        with contextlib.suppress(LocalseekError, OSError):
            folder = paths.folder("drafting")
            data = json.dumps(to_plain({**self.read(), **found}))  # others know of other counts
            partial = folder / f"{self._key}.{secrets.token_hex(8)}.partial"
            descriptor = private.descriptor_of(partial, os.O_WRONLY | os.O_EXCL)
            try:
                with open(descriptor, "w", encoding="utf-8") as file:
                    file.write(data)
                partial.replace(folder / (self._key + SUFFIX))
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
            if not self._swept:
                _sweep(folder)
                self._swept = True


def learnt_key(files: Iterable[Path], placement: Placement, remotes: Sequence[str]) -> str:
    """Give what learnt times are bound to: files, build, processor, and what is computed where.

    Not to the length of the context, which moves all times alike.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        facts = path.stat()  # its number instead of its name: a model that is renamed is the same
        numbers = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
        digest.update(repr(numbers).encode())
    here = (
        BUILD, hardware.cpu_name(), placement.threads, placement.devices, placement.layers,
        placement.experts, placement.output, placement.overrides, placement.cache_type,
        placement.repack, tuple(remotes),
    )  # fmt: skip
    digest.update(repr(here).encode())
    return digest.hexdigest()


def _sweep(folder: Path) -> None:
    """Remove what was longest unused beyond the limit, and what a killed process left."""
    kept = sorted(folder.glob("*" + SUFFIX), key=lambda path: path.lstat().st_mtime)
    for path in kept[:-MOST_FILES]:
        path.unlink(missing_ok=True)
    for path in folder.glob("*.partial"):
        if time.time() - path.lstat().st_mtime > STALE_SECONDS:
            path.unlink(missing_ok=True)
