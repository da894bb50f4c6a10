"""The clipboard: through the terminal (OSC 52), and with a program where one is installed.

Takes text, gives whether a program took it, or what to write to the terminal.
"""

import base64
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


def sequence(text: str) -> str:
    """Give what tells a terminal to put text on the clipboard (xterm's OSC 52)."""
    return f"\x1b]52;c;{base64.b64encode(text.encode('utf-8', 'replace')).decode()}\x07"
