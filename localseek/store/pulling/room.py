"""Does what is missing fit on the disk? Asked before the first byte, and said with what to do.

Takes sizes and a folder. Knows nothing about networks.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from localseek.errors import LocalseekError
from localseek.store.pulling.plan import part_path
from localseek.store.pulling.remote import RemoteFile
from localseek.system.sizes import rough_size

ELSEWHERE = "Make room, give another folder with --to, or set LOCALSEEK_HOME to a larger disk."


def part_bytes(folder: Path, file: RemoteFile) -> int:
    """Give how much of a file was downloaded by earlier runs."""
    try:
        return part_path(folder, file).stat().st_size
    except OSError:
        return 0


def missing_bytes(folder: Path, files: Iterable[RemoteFile]) -> int:
    """Give the bytes that are still to come of files that are not there."""
    return sum(max(0, one.size_bytes - part_bytes(folder, one)) for one in files)


def check_room(folder: Path, needed_bytes: int, what: str, hint: str = ELSEWHERE) -> None:
    """Raise LocalseekError if the disk of a folder has less room than is needed."""
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise LocalseekError(
            f"{what} takes {rough_size(needed_bytes)} more and the disk of {folder} has "
            f"{rough_size(free)} free.",
            hint,
        )
