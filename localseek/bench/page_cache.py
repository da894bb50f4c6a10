"""Files in the system's memory: how much of them is there, and how to get them out.

Takes paths, gives shares. What cannot be told or done is said by None or by the share that stays.
"""

import ctypes
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

WINDOW = 1 << 30  # bytes mapped at once; a multiple of any page size


def drop(paths: Sequence[Path]) -> float | None:
    """Ask the system to forget the files' pages; give the share that is still in memory."""
    advise = getattr(os, "posix_fadvise", None)
    if advise is None:
        return None
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())  # only pages that are on the disk can be dropped
            advise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return resident(paths)


def resident(paths: Sequence[Path]) -> float | None:
    """Give the share of the files' pages that are in memory, None where that cannot be told.

    Linux tells it (mincore) of files that one owns or may write, and says "all" of others.
    """
    mincore = getattr(ctypes.CDLL(None, use_errno=True), "mincore", None)
    if mincore is None:
        return None
    mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    there = pages = 0
    for path in paths:
        size = path.stat().st_size
        with path.open("rb") as file:
            for start in range(0, size, WINDOW):
                length = min(WINDOW, size - start)
                # Copy on write, for ctypes takes the address of memory that can be written only.
                window = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_COPY, offset=start)
                count = -(-length // mmap.PAGESIZE)
                states = ctypes.create_string_buffer(count)
                first = ctypes.c_char.from_buffer(window)
                failed = mincore(ctypes.addressof(first), length, states)
                del first
                window.close()
                if failed:
                    return None
                there += sum(state & 1 for state in states.raw)
                pages += count
    return there / pages if pages else None
