"""Where localseek keeps its state. `LOCALSEEK_HOME` moves all of it.

Folders are made when first asked for, readable by their owner only.
"""

import os
from pathlib import Path

import platformdirs

from localseek.errors import LocalseekError
from localseek.system import environment, private


def home() -> Path:
    """Give the folder of all state."""
    chosen = os.environ.get("LOCALSEEK_HOME")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("localseek"))


def folder(name: str) -> Path:
    """Give a folder of the state, made if it is missing; raises LocalseekError if it can't be."""
    path = home() / name
    try:
        private.make_folder(path)
    except OSError as error:
        raise LocalseekError(
            f"{path} cannot be made: {error.strerror}.",
            "Set LOCALSEEK_HOME to a folder that you can write to.",
        ) from error
    return path


def models() -> Path:
    """Give the folder of the library's GGUF files."""
    return folder("models")


def in_memory() -> Path | None:
    """Give a folder whose files lie in memory, for what lives for minutes; None if there is none.

    Others may write to it too: what is made there must be private itself.
    """
    for name in (environment.runtime_folder(), "/dev/shm"):
        if name and Path(name).is_dir() and os.access(name, os.W_OK | os.X_OK):
            return Path(name)
    return None


def short(path: Path) -> str:
    """Give a path as people write it, with ~ for their home."""
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)


def log_file(name: str) -> Path:
    """Give the path of a log; it starts over when it has grown beyond 1 MB."""
    path = folder("logs") / f"{name}.log"
    if path.exists() and path.stat().st_size > 1_000_000:
        path.replace(path.with_suffix(".log.old"))
    return path
