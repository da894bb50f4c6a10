"""Huge pages for processes that hold weights: glibc asks the kernel for them there.

llama.cpp's weights outside of mapped files, its caches and buffers are then looked up in pages of
2 MB instead of 4 KB, where Linux lends these on request (its default). No effect where there is no
glibc 2.35 or later.
"""

import os
import platform
from pathlib import Path

SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")
TUNABLES, TUNABLE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
OLDEST_GLIBC = (2, 35)


def with_huge_pages() -> dict[str, str]:
    """Give this process's environment with the wish added; what the user has set stays."""
    given = os.environ.get(TUNABLES, "")
    if TUNABLE in given:
        return dict(os.environ)
    return {**os.environ, TUNABLES: f"{given}:{TUNABLE}=1".lstrip(":")}


def are_lent(switch: Path = SWITCH) -> bool:
    """Tell whether large blocks that this process allots come to lie in huge pages."""
    try:
        kernel = switch.read_text()
    except OSError:  # not Linux, or a kernel without them
        return False
    if "[always]" in kernel:
        return True
    return "[madvise]" in kernel and _glibc_asks()


def _glibc_asks() -> bool:
    library, version = platform.libc_ver()
    numbers = tuple(int(part) for part in version.split(".") if part.isdigit())
    asked = f"{TUNABLE}=1" in os.environ.get(TUNABLES, "")
    return library == "glibc" and numbers >= OLDEST_GLIBC and asked
