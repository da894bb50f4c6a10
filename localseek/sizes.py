"""Sizes as people write them: 24GB, 24GiB, 1.5T → bytes.

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
        raise ValueError(f"{text!r} is no size: write it like 24GB, 24GiB or 1.5T")
    return size
