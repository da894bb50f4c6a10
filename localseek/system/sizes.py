"""Sizes and durations as people write them: 24GB, 24GiB, 1.5T → bytes, and back to words.

GB is 10^9 bytes and GiB 2^30; G alone is 10^9, the smaller, so that what must fit does.
"""

import re

from localseek.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_size(option: str, text: str) -> int:
    """Return a size in whole bytes, rounded down; raise UsageError that names the option."""
    try:
        return read_size(text)
    except ValueError as error:
        raise UsageError(f"{option} {error}.") from error


def read_size(text: str) -> int:
    """Return a size in whole bytes, rounded down; raise ValueError that says how to write one."""
    found = _SIZE.fullmatch(text.strip())
    size = 0
    if found:
        base = 1024 if found[3] else 1000
        size = int(float(found[1]) * base ** _POWERS[found[2].upper()])
    if size < 1:
        raise ValueError(f"{text!r} is not a size: write it like 24GB, 24GiB or 1.5T")
    return size


def rough_size(size_bytes: float) -> str:
    """Give a size as people say it: 98.4 MB (10^6 bytes)."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.2f} TB"


def rough_time(seconds: float) -> str:
    """Give a duration as people say it: 4.2 s, 42 s, 3 min 5 s, 2 h 10 min."""
    whole = round(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
