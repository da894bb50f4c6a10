"""Files compared with the SHA-256 that their publisher gave for them, with a bar.

Takes files of the library, gives what was found of each one that came with a checksum, and how to
mend it. Knows nothing about models.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localseek.errors import ModelError
from localseek.store.belonging import Origin, origin_of
from localseek.terminal.messages import one_line

PIECE = 8 << 20  # bytes read at once
Show = Callable[[int, int, str, float], None]  # bytes done, of how many, the file, seconds


@dataclass(frozen=True, slots=True)
class Compared:
    """A file with the checksum that it should have and the one that it has."""

    file: Path
    expected: str
    found: str
    repository: str

    @property
    def problem(self) -> str:
        """Say what is wrong and how to mend it, "" if nothing is."""
        if self.found == self.expected:
            return ""
        return (
            f"{self.file} is not what was published: its SHA-256 is {self.found}, not "
            f"{self.expected}. Delete it and run: localseek pull {self.repository}"
        )


def compared(files: Sequence[Path], show: Show) -> list[Compared]:
    """Compare each file that came with a checksum; raises ModelError for one that can't be read."""
    origins = {file: origin for file in files if (origin := origin_of(file)) and origin.sha256}
    if not origins:
        return []
    meter = _Reading(sum(_size(file) for file in origins), show)
    return [_compare(file, origin, meter) for file, origin in origins.items()]


class _Reading:
    """How much was read of how much, told while it is read."""

    def __init__(self, total: int, show: Show) -> None:
        self._total, self._show, self._done = total, show, 0
        self._started = time.monotonic()

    def told(self, count: int, name: str) -> None:
        """Count bytes and tell."""
        self._done += count
        self._show(self._done, self._total, name, time.monotonic() - self._started)


def _compare(file: Path, origin: Origin, meter: _Reading) -> Compared:
    digest = hashlib.sha256()
    try:
        with file.open("rb") as opened:
            while piece := opened.read(PIECE):
                digest.update(piece)
                meter.told(len(piece), file.name)
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}.") from error
    return Compared(file, origin.sha256.lower(), digest.hexdigest(), origin.pulled.repository)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # what cannot be read is said when it is read
        return 0


def lines(found: Sequence[Compared]) -> list[str]:
    """Give what is wrong, or that nothing is."""
    problems = [f"problem: {one_line(one.problem)}" for one in found if one.problem]
    if problems or not found:
        return problems
    count = f"{len(found)} files are" if len(found) > 1 else "the file is"
    return [f"SHA-256: {count} what {one_line(found[0].repository)} published"]


def as_json(found: Sequence[Compared]) -> list[dict[str, Any]]:
    """Give it for machines."""
    return [
        {"file": str(one.file), "expected": one.expected, "found": one.found,
         "same": not one.problem}
        for one in found
    ]  # fmt: skip
