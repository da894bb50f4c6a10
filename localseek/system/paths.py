"""Where localseek keeps its state, and where other programs keep their models.

`LOCALSEEK_HOME` moves all of localseek's own; its folders are made when first asked for, readable
by their owner only. Other programs' folders are only named here, whether they are there or not.
"""

import os
import sys
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


def hugging_face_caches() -> list[Path]:
    """Give the Hugging Face cache, which newer llama.cpp uses too (huggingface_hub's order)."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if chosen := os.environ.get(name):
            return [Path(chosen).expanduser()]
    if chosen := os.environ.get("HF_HOME"):
        return [Path(chosen).expanduser() / "hub"]
    return [_caches() / "huggingface" / "hub"]


def lm_studio_homes() -> list[Path]:
    """Give the folders that LM Studio has used for its settings and models, by version."""
    return [Path.home() / ".lmstudio", Path.home() / ".cache" / "lm-studio"]


def lm_studio_pointer() -> Path:
    """Give the file in which LM Studio notes where its folder was moved to."""
    return Path.home() / ".lmstudio-home-pointer"


def ollama_folders() -> list[Path]:
    """Give the folders where Ollama keeps models: the user's, and that of its Linux service."""
    if chosen := os.environ.get("OLLAMA_MODELS"):
        return [Path(chosen).expanduser()]
    return [Path.home() / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")]


def llama_cpp_caches() -> list[Path]:
    """Give the cache of llama.cpp's own downloads (common/common.cpp, fs_get_cache_directory)."""
    if chosen := os.environ.get("LLAMA_CACHE"):
        return [Path(chosen).expanduser()]
    if sys.platform == "darwin":
        return [Path.home() / "Library" / "Caches" / "llama.cpp"]
    return [_caches() / "llama.cpp"]


def _caches() -> Path:
    chosen = os.environ.get("XDG_CACHE_HOME")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache"
