"""The child's standard streams, taken for the protocol before anything can print into it."""

import os
from typing import BinaryIO


def private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Take the standard streams for the protocol, so that nothing else can write into it."""
    source, sink = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    return os.fdopen(source, "rb"), os.fdopen(sink, "wb")
