"""The system's clipboard, where a program for it is installed; beside OSC 52, which the app sends.

Takes text, gives whether a program took it. Knows nothing about Textual.
"""

import shutil
import subprocess

PROGRAMS = (
    ("pbcopy",),
    ("wl-copy",),
    ("xclip", "-selection", "clipboard"),
    ("xsel", "--clipboard", "--input"),
    ("clip.exe",),
)
PATIENCE_S = 2.0  # xclip waits for a display that may not answer


def copy(text: str) -> bool:
    """Hand text to the first program that takes it."""
    for program in PROGRAMS:
        if shutil.which(program[0]) is None:
            continue
        try:
            subprocess.run(
                program, input=text.encode("utf-8", "replace"), check=True, timeout=PATIENCE_S,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            continue
        return True
    return False
