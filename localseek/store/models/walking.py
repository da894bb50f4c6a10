"""Files under a folder, found without ever failing or taking long.

Takes a folder, gives the paths of its files, sorted. Folders that cannot be read are passed over,
links that lead in circles are followed once, and after so many entries the search ends: these are
other programs' folders, and whatever lies in them is no error of ours.
"""

import os
from collections.abc import Iterator
from pathlib import Path

MOST_ENTRIES = 100_000  # looked at in one search; half a second on a warm cache
MOST_DEPTH = 8  # folders below each other; the deepest layout known has five


def files_below(root: Path, suffix: str = "", follow: bool = True) -> list[Path]:
    """Give the files under `root` whose name ends in `suffix`, hidden ones left out.

    Links to files are files, as long as they lead somewhere; links to folders are followed if
    `follow` says so.
    """
    return sorted(_walk(root, suffix, follow))


def _walk(root: Path, suffix: str, follow: bool) -> Iterator[Path]:
    waiting, seen, entries = [(str(root), 0)], set[tuple[int, int]](), 0
    while waiting:
        folder, depth = waiting.pop()
        for entry in _entries(folder, seen):
            entries += 1
            if entries > MOST_ENTRIES:
                return
            if entry.name.startswith("."):
                continue
            if _is_folder(entry, follow):
                if depth < MOST_DEPTH:
                    # Links come last: a folder that is in here itself goes by its own name.
                    turn = 0 if entry.is_symlink() else len(waiting)
                    waiting.insert(turn, (entry.path, depth + 1))
            elif entry.name.endswith(suffix) and _is_file(entry):
                yield Path(entry.path)


def _entries(folder: str, seen: set[tuple[int, int]]) -> list[os.DirEntry[str]]:
    """Give what a folder holds; nothing if it was seen before or cannot be read."""
    try:
        facts = os.stat(folder)
        here = (facts.st_dev, facts.st_ino)
        if here in seen:
            return []
        seen.add(here)
        with os.scandir(folder) as found:
            return list(found)
    except OSError:  # not there, or not ours to read
        return []


def _is_folder(entry: os.DirEntry[str], follow: bool) -> bool:
    try:
        return entry.is_dir(follow_symlinks=follow)
    except OSError:  # a link in a circle
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False
