"""Why an engine child is gone: how it ended, and what its log says of that.

Takes an exit status and a log file, gives a message and a hint in the user's words. Knows nothing
about running processes.
"""

import re
import signal
from pathlib import Path

from localseek.engine.process.bridge import LOST

LAST_LINES, LAST_BYTES = 12, 1 << 16  # of a dead engine's log
FRAME = re.compile(r"\(\S*\) ?\[0x[0-9a-f]+\]$")  # of a backtrace, which follows the last words
TELLING = re.compile(r"GGML_ASSERT|Error\b|error:|out of memory|bad_alloc", re.I)
NO_MEMORY = re.compile(  # ggml's assertion on its own buffer, C++, Python, devices
    r"mem_buffer != NULL|bad_alloc|MemoryError|out of memory|insufficient memory"
    r"|failed to allocate|cannot allocate",
    re.I,
)


def last_lines(log: Path, start: int) -> list[str]:
    """Give the last lines that were written to a log after `start` bytes."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(start, end - LAST_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not FRAME.search(line)][-LAST_LINES:]


def lost_worker(log: Path, start: int) -> str:
    """Give what the bridge wrote of a worker that is lost, "" if it wrote nothing."""
    try:
        with log.open("rb") as file:
            file.seek(start)
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return next(
        (line.removeprefix(LOST) for line in text.splitlines() if line.startswith(LOST)), ""
    )


def death_message(status: int | None, log: Path, lines: list[str]) -> tuple[str, str]:
    """Say how the child ended, its last words if they tell why, and where the others are."""
    how = "stopped" if status is None else f"died of signal {-status}" if status < 0 else (
        f"exited with status {status}"
    )  # fmt: skip
    if status != 0 and any(NO_MEMORY.search(line) for line in lines):
        return (
            f"The engine ran out of memory and {how}.",
            f"A smaller --ctx or model needs less, or close other programs. Its log is {log}.",
        )
    if status == -signal.SIGKILL:
        mend = "Systems do so when memory runs out: a smaller --ctx or model needs less"
        return f"The engine {how}.", f"{mend}, or close other programs. Its log is {log}."
    if status == -signal.SIGBUS:  # a page of a mapped file that the disk does not give
        return (
            f"The engine {how}: a file that it reads, the model's most likely, was shortened "
            "or its disk failed.",
            f"`localseek models verify` tells whether a model is whole. Its log is {log}.",
        )
    words = next((line for line in reversed(lines) if TELLING.search(line)), "")
    quoted = f" Its last words: {words[:200]}" if words else ""
    return f"The engine {how}.{quoted}", f"Its log is {log}."
