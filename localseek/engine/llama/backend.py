"""llama.cpp started, its log and last complaints, and what this build can do."""

import re
import sys
from collections import deque
from typing import Any

import llama_cpp.llama_cpp as lib
from llama_cpp import llama_cpp_ext as ext

from localseek.engine.llama.devices import device_handles, device_text, leave_out

DEBUG, ERROR, CONTINUED = 1, 4, 5  # enum ggml_log_level in ggml.h
_complaints: deque[str] = deque(maxlen=8)  # llama.cpp's last errors, to say why it refused
# Intel's tiles. ggml's kernels for them take no transposed input, as latent attention gives it:
# every DeepSeek model would abort at GGML_ASSERT(*cur_backend_id != -1); others end in SIGILL.
AMX = b"AMX"
WHERE = re.compile(r"^\w+: ")  # the function that complains


@lib.llama_log_callback  # type: ignore[untyped-decorator]  # ctypes has no types for it
def _log(level: int, text: bytes, _: Any) -> None:
    """Write llama.cpp's log to standard error, but for its debugging, and remember errors."""
    if level == ERROR:
        _complaints.append(text.decode(errors="replace").strip())
    if level not in (DEBUG, CONTINUED):
        sys.stderr.buffer.write(text)
        sys.stderr.buffer.flush()


def start_backend() -> None:
    """Start llama.cpp, with a log that survives any bytes it prints; may be called again."""
    lib.llama_log_set(_log, None)
    lib.llama_backend_init()
    leave_out(AMX)
    forget_complaints()


def forget_complaints() -> None:
    """Forget llama.cpp's complaints: what comes next is something new."""
    _complaints.clear()


def because() -> str:
    """Give llama.cpp's reason as the end of a sentence, or nothing.

    The first of its last complaints has the reason, those that follow what came of it.
    """
    if not _complaints:
        return ""
    words = WHERE.sub("", _complaints[0]).removeprefix("error loading model: ").rstrip(".")
    return f": {' '.join(words.split())}"


def backend_facts() -> dict[str, str]:
    """Give what this build of llama.cpp can do, for `doctor`."""
    start_backend()
    return {
        "system": lib.llama_print_system_info().decode(errors="replace").strip(),
        "rpc": "yes" if lib.llama_supports_rpc() else "no",
        "mtp": "yes" if hasattr(ext, "llama_set_embeddings_nextn") else "no",
        "devices": ", ".join(devices()) or "CPU",
    }


def devices() -> list[str]:
    """Give name and description of each ggml device."""
    texts = [device_text(handle) for handle in device_handles()]
    return [f"{name} ({description})" for name, description in texts]
