"""Files that hold a user's words: written whole or not at all, readable by their owner only."""

import os
from pathlib import Path

from localseek.errors import LocalseekError
from localseek.system import private


def write_new(path: Path, text: str) -> Path:
    """Write a new file, never over another; raises LocalseekError, and leaves nothing behind."""
    try:
        path = path.expanduser()
        descriptor = private.descriptor_of(path, os.O_WRONLY | os.O_EXCL)
    except FileExistsError as error:
        raise LocalseekError(f"{path} exists already.", "Choose another name.") from error
    except (OSError, ValueError, RuntimeError) as error:  # such as the home of nobody
        reason = getattr(error, "strerror", None) or error
        raise LocalseekError(f"{path} cannot be written: {reason}.") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise LocalseekError(f"{path} cannot be written: {error.strerror}.") from error
    return path
