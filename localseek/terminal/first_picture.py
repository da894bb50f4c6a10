"""The app's first picture, drawn before its library is there: half a second earlier.

Draws the prompt's box, the welcome and the model's name where the app will have them, and keeps
what is typed meanwhile for the app, unechoed. Takes a terminal; knows nothing about Textual.
"""

import contextlib
import os
import sys
import termios
from collections.abc import Iterator
from shutil import get_terminal_size
from textwrap import wrap

ENTER, LEAVE = "\x1b[?1049h\x1b[2J\x1b[?25l", "\x1b[?25h\x1b[?1049l"
WELCOME = "Ask something. Nothing you write leaves this machine."
WIDEST = 100  # cells, as app.tcss has it
MARGIN, NARROW = 2, 60  # cells beside the prompt, and below which width there are none


def lines(model: str, welcome: str, columns: int, rows: int) -> list[str]:
    """Give the picture's lines from its first row on, none wider than the terminal."""
    margin = MARGIN if columns >= NARROW else 0
    width = min(WIDEST, columns - 2 * margin)
    left = " " * ((columns - width) // 2)
    shown = [
        *(f"{left} {part}" for part in wrap(welcome, max(1, width - 2))),
        f"{left}╭{'─' * (width - 2)}╮",
        f"{left}│{' ' * (width - 2)}│",
        f"{left}╰{'─' * (width - 2)}╯",
        f"{left} {model} · starting…",
        "",
    ]
    return [""] * max(0, rows - len(shown)) + [line[:columns] for line in shown[-rows:]]


@contextlib.contextmanager
def first_picture(model: str, welcome: str) -> Iterator[None]:
    """Show the picture while the block gets the app ready; the block ends before the app starts.

    Where the terminal cannot be asked, nothing is drawn. After an error it is as it was before.
    """
    try:
        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (OSError, ValueError, termios.error):
        yield
        return
    # As the app will have it: no echo, no waiting for a line's end, Enter as it is.
    quiet = [before[0] & ~termios.ICRNL, *before[1:]]
    quiet[3] &= ~termios.ECHO & ~termios.ICANON
    size = get_terminal_size()
    picture = ENTER
    for row, line in enumerate(lines(model, welcome, size.columns, size.lines), 1):
        picture += f"\x1b[{row};1H{line}" if line else ""
    termios.tcsetattr(descriptor, termios.TCSANOW, quiet)
    try:
        with contextlib.suppress(OSError):
            os.write(sys.stdout.fileno(), picture.encode(errors="replace"))
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            os.write(sys.stdout.fileno(), LEAVE.encode())
        raise
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)
