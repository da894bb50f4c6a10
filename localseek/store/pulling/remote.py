"""What a repository holds, as plain values, and the two ways in which reading from it fails.

Takes nothing, gives types that the network's side fills and the rest of a download reads.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import PurePosixPath

from localseek.errors import LocalseekError

MOST_SHOWN = 120  # characters of a name in a message
MOST_PART_BYTES, MOST_NAME = 255, 1024  # what Linux takes of a name; of a path, less our folder


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository at one commit."""

    name: str  # with its folders, divided by /
    size_bytes: int
    sha256: str = ""  # of the content; "" where the hub does not say
    blob_id: str = ""  # Git's name of it: the SHA-1 of a small file's content with its length


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit."""

    name: str  # owner/name
    commit: str
    licence: str  # as its card names it, "" if it names none
    licence_link: str  # where a licence of its own can be read, "" for the usual ones
    gated: bool  # its owner lets people in, one by one or at once
    files: tuple[RemoteFile, ...]

    def file(self, name: str) -> RemoteFile | None:
        """Find a file by name."""
        return next((one for one in self.files if one.name == name), None)


class TransientError(Exception):
    """A request failed in a way that may pass; `wait_s` is what the server asked for, if it did."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.wait_s = reason, wait_s


# (file, first byte wanted, the byte after the last) → the first byte that comes, and the bytes from
# there on: at least those that are wanted, if the connection holds.
OpenStream = Callable[[RemoteFile, int, int], AbstractContextManager[tuple[int, Iterator[bytes]]]]


def brief(name: str) -> str:
    """Give a name for a message: all of it, or the beginning and the end of an absurd one."""
    return name if len(name) <= MOST_SHOWN else f"{name[: MOST_SHOWN - 20]}…{name[-19:]}"


def check_name(name: str) -> None:
    """Raise LocalseekError for a name that leaves the folder, or is one of ours, or unprintable."""
    path = PurePosixPath(name)
    odd = "\\" in name or ":" in name or not name.isprintable()
    odd = odd or any(part.startswith(".localseek") for part in path.parts)
    if not name or odd or path.is_absolute() or ".." in path.parts or str(path) != name:
        raise LocalseekError(
            f"The repository has a file named {brief(name)!r}, which is not safe to write.",
            "Choose others with --file.",
        )
    longest = max(len(part.encode(errors="replace")) for part in path.parts)
    if longest > MOST_PART_BYTES or len(name) > MOST_NAME:
        raise LocalseekError(
            f"The repository has a file named {brief(name)!r}, which is too long for a disk.",
            "Choose others with --file.",
        )
