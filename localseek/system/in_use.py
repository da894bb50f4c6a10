"""Which processes have a file in their memory, as far as this system tells.

Takes files, gives process numbers; only Linux tells, and only of processes that are ours to see. A
file that was read instead of mapped is not in use, and can go. Knows nothing about models.
"""

import os
from collections.abc import Iterable
from pathlib import Path

PROCESSES = Path("/proc")


def mapping_processes(files: Iterable[Path]) -> list[int]:
    """Give the processes that have one of the files mapped into their memory."""
    wanted = {os.path.realpath(file) for file in files}
    found = []
    for folder in _numbered(PROCESSES):
        try:
            lines = (folder / "maps").read_text(errors="surrogateescape").splitlines()
        except OSError:  # another user's, or it has ended
            continue
        if any(line[line.find("/") :] in wanted for line in lines if "/" in line):
            found.append(int(folder.name))
    return sorted(found)


def _numbered(folder: Path) -> list[Path]:
    try:
        return [one for one in folder.iterdir() if one.name.isdigit()]
    except OSError:  # not Linux
        return []
