"""The environment variables that localseek heeds, each read when it is asked for.

Where state is kept (LOCALSEEK_HOME) is in `paths`. Knows nothing about what the values are for.
"""

import os

from localseek.errors import UsageError
from localseek.system.sizes import parse_size

LAYERS = ("namespace", "seccomp", "landlock", "audit hook")  # of the engine, see airgap
LAYERS_OFF = "LOCALSEEK_LAYERS_OFF"
SEQUENCE_LIMIT = "4GB"  # of saved sequences together


def sequence_limit() -> int:
    """Give how many bytes saved sequences may take; raises UsageError for no size."""
    name = "LOCALSEEK_SEQUENCE_LIMIT"
    return parse_size(name, os.environ.get(name) or SEQUENCE_LIMIT)


def terminal_kind() -> str:
    """Give what TERM calls the terminal; dumb when it says nothing."""
    return os.environ.get("TERM") or "dumb"


def colours_wanted() -> bool:
    """Tell whether colours may be shown at all (no-color.org, dumb terminals)."""
    return not os.environ.get("NO_COLOR") and terminal_kind() != "dumb"


def true_colour() -> bool:
    """Tell whether the terminal says that it shows 16 million colours."""
    return os.environ.get("COLORTERM") in ("truecolor", "24bit")


def editor() -> str:
    """Give the command of the editor that the user likes, "" if none is named."""
    return os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""


def serve_token() -> str:
    """Give the token that LOCALSEEK_TOKEN sets for `localseek serve`, "" if none."""
    return os.environ.get("LOCALSEEK_TOKEN") or ""


def hidden_devices() -> list[str]:
    """Give what says which devices a driver shows, as NAME=VALUE."""
    names = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
             "GGML_VK_VISIBLE_DEVICES", "ONEAPI_DEVICE_SELECTOR")  # fmt: skip
    return [f"{name}={os.environ[name]}" for name in names if name in os.environ]


def inspectable() -> bool:
    """Tell whether LOCALSEEK_INSPECTABLE lets profilers and debuggers read this process."""
    return bool(os.environ.get("LOCALSEEK_INSPECTABLE"))


def runtime_folder() -> str:
    """Give the folder in memory that XDG_RUNTIME_DIR names, "" if none."""
    return os.environ.get("XDG_RUNTIME_DIR") or ""


def passphrase_file() -> str:
    """Give the file that LOCALSEEK_PASSPHRASE_FILE names, "" if none."""
    return os.environ.get("LOCALSEEK_PASSPHRASE_FILE") or ""


def chosen_compiler() -> str:
    """Give the C++ compiler that CXX names, "" if none."""
    return os.environ.get("CXX", "")


def layers_off() -> frozenset[str]:
    """Give the engine's layers that are switched off; raises UsageError for one that is none."""
    words = os.environ.get(LAYERS_OFF, "").lower().replace("-", " ").split(",")
    found = frozenset(word.strip() for word in words if word.strip())
    for name in sorted(found - set(LAYERS)):
        known = ", ".join(LAYERS).replace(" hook", "-hook")
        raise UsageError(f"{LAYERS_OFF} names {name!r}.", f"The layers are: {known}.")
    return found


def library_folders() -> list[str]:
    """Give the folders that LD_LIBRARY_PATH, CUDA's and ROCm's variables name."""
    listed = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    named = [os.environ.get(name, "") for name in ("CUDA_HOME", "CUDA_PATH", "ROCM_PATH")]
    return [one for one in (*listed, *named) if one]


def cuda_cache() -> str:
    """Give the folder where CUDA keeps what it has compiled, "" if none is named."""
    return os.environ.get("CUDA_CACHE_PATH") or ""


def mps_pipe() -> str:
    """Give where the server that shares NVIDIA's devices is asked, "" if none is named."""
    return os.environ.get("CUDA_MPS_PIPE_DIRECTORY") or ""
