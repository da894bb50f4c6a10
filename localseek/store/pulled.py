"""What a download was: repository, commit, licence and checksums, kept beside its files.

Takes and gives a `Pulled`, in one JSON file of the folder. `pull` writes it, `models` reads it.
Knows nothing about networks.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from localseek.errors import LocalseekError

RECORD = ".localseek-pull.json"


@dataclass(frozen=True, slots=True)
class Pulled:
    """Where a folder's files come from; `files` gives name → SHA-256, "" where none is known."""

    repository: str
    commit: str
    licence: str  # as the repository's card names it, "" if it names none
    files: dict[str, str] = field(default_factory=dict)


def record(folder: Path, pulled: Pulled) -> None:
    """Write the record whole; raises LocalseekError if it cannot be written."""
    unfinished = folder / f"{RECORD}.new"
    try:
        unfinished.unlink(missing_ok=True)
        with unfinished.open("x") as out:  # "x" follows no link
            out.write(json.dumps(asdict(pulled), indent=1) + "\n")
        unfinished.replace(folder / RECORD)
    except OSError as error:
        raise LocalseekError(f"{folder / RECORD} cannot be written: {error.strerror}.") from error


def recorded(folder: Path) -> Pulled | None:
    """Read a folder's record; None where there is none, or none that can be read."""
    try:
        found = json.loads((folder / RECORD).read_bytes())
        files = {str(name): str(digest) for name, digest in found["files"].items()}
        return Pulled(
            str(found["repository"]), str(found["commit"]), str(found["licence"]), files
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
