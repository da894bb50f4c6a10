"""What is in a process's memory stays there: no core dump, no look from another process.

Takes nothing and gives nothing. Knows nothing about what is in the memory. Swap is the system's.
"""

import contextlib
import ctypes
import resource
import sys

from localseek.system import environment

PR_SET_DUMPABLE = 4  # linux/prctl.h


def keep_memory_private() -> None:
    """Forbid core dumps of this process, and on Linux that others of the same user read it.

    Processes that it starts may dump no core either. LOCALSEEK_INSPECTABLE lets profilers and
    debuggers in, and changes nothing about core dumps.
    """
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux" and not environment.inspectable():
        # A program that takes core dumps through a pipe is not held by the limit, but by this.
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
