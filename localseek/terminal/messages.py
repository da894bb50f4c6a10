"""Everything that a verb writes to the terminal goes through here.

Takes text and events' facts, gives bytes on stdout and stderr: the answer on stdout, all else on
stderr. Text that comes from a model or a file is stripped of what could drive a terminal, when a
terminal is what it goes to. Knows nothing about engines or verbs.
"""

import contextlib
import errno
import io
import os
import re
import sys
import threading
import time
from typing import IO, TextIO

from localseek.events import Stats
from localseek.system import environment

DIM, PLAIN, CLEAR_LINE = "\x1b[2m", "\x1b[0m", "\r\x1b[2K"
STATUS_AFTER_S = 0.5  # what is over sooner needs no word
# C0 but newline and tab, DEL, C1, and the characters that turn the direction of text.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """Give text in which nothing drives a terminal: each such character becomes visible."""

    def visible(match: re.Match[str]) -> str:
        code = ord(match.group())
        return chr(0x2400 + code) if code < 0x20 else "\ufffd"  # U+2400…: pictures of controls

    return UNSAFE.sub(visible, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Give text on one line, safe for a terminal."""
    return clean(" ".join(text.split()))


def is_terminal(stream: TextIO) -> bool:
    """Tell whether a stream is a terminal."""
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def has_colours(stream: TextIO) -> bool:
    """Tell whether a stream may be sent colours: a terminal, not dumb, NO_COLOR unset."""
    return environment.colours_wanted() and is_terminal(stream)


class _Closed(io.TextIOBase):
    """Standard output that was closed before the program began."""

    def __init__(self, place: IO[str]) -> None:
        self._place = place

    def write(self, _text: str) -> int:
        """Raise OSError."""
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), "standard output")


def prepare_streams() -> None:
    """Let text that the terminal's encoding lacks be replaced and not end the program.

    A stream that was closed, as by `<&-`, becomes one that holds nothing. Writing to standard
    output is an error then: what a verb was asked for would be lost.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # Open to the end, so that no other file gets this stream's number.
            empty = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, _Closed(empty) if name == "stdout" else empty)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def note(text: str) -> None:
    """Write a notice on stderr, as a line of its own."""
    say = clean(text) if is_terminal(sys.stderr) else text
    print(f"{DIM}{say}{PLAIN}" if has_colours(sys.stderr) else say, file=sys.stderr, flush=True)


def says_yes(question: str) -> bool:
    """Ask on the terminal; no answer is a no."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline().strip()
    return answer.casefold() in ("y", "yes")


def complain(text: str) -> None:
    """Write an error on stderr, as one line that names the program."""
    print(f"localseek: {one_line(text)}", file=sys.stderr, flush=True)


def stats_line(stats: Stats, full: bool = False) -> str:
    """Give the statistics of an answer on one line; `full` adds the prompt and the context."""
    unit = "token" if stats.generated_tokens == 1 else "tokens"
    parts = [f"{stats.generated_tokens:,} {unit}", f"{stats.decode_tps:.1f} tok/s"]
    if stats.reasoning_tokens:
        parts[0] += f" ({stats.reasoning_tokens:,} reasoning)"
    if stats.draft is not None and stats.draft.drafted:
        parts.append(f"{stats.draft.accepted / stats.draft.drafted:.0%} of drafts accepted")
    if full:
        parts.append(f"prompt {stats.prompt_tokens:,} at {stats.prompt_tps:.1f} tok/s")
        parts.append(f"{stats.cached_tokens:,} cached")
        parts.append(f"context {stats.context_used:,} of {stats.context_size:,}")
    return " · ".join([*parts, f"{stats.seconds:.1f} s"])


class Status:
    """One line on stderr that says what is being waited for; gone when the wait is over.

    Shows nothing in the first half second, and nothing at all unless stderr is a terminal.
    """

    def __init__(self, text: str, shown: bool = True) -> None:
        self.text = text
        self._shown = shown and has_colours(sys.stderr)
        self._over = threading.Event()
        self._drawn = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        if self._shown:
            self._thread.start()

    def _run(self) -> None:
        started = time.monotonic()
        wait = STATUS_AFTER_S
        while not self._over.wait(wait):
            wait = 0.2
            seconds = time.monotonic() - started
            suffix = f" · {seconds:.0f} s" if seconds >= 2 else ""
            width = max(20, _status_width())
            with self._lock:
                if self._over.is_set():
                    return
                line = f"{self.text}{suffix}"[:width]
                sys.stderr.write(f"{CLEAR_LINE}{DIM}{line}{PLAIN}")
                sys.stderr.flush()
                self._drawn = True

    def stop(self) -> None:
        """Take the line away; may be called again."""
        with self._lock:
            self._over.set()
            if self._drawn:
                self._drawn = False
                with contextlib.suppress(OSError):
                    sys.stderr.write(CLEAR_LINE)
                    sys.stderr.flush()

    def __enter__(self) -> "Status":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Line:
    """One line on stderr that is drawn over itself; `live` only on a terminal with colours.

    Elsewhere each text is a line of its own, so callers show it less often.
    """

    def __init__(self) -> None:
        self.live = has_colours(sys.stderr)
        self._drawn = False

    def show(self, text: str) -> None:
        """Put the text in the line's place, cut to the width of the terminal."""
        if self.live:
            sys.stderr.write(CLEAR_LINE + clean(text)[: _status_width()])
        else:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()
        self._drawn = self.live

    def end(self) -> None:
        """Take the line away."""
        if self._drawn:
            self._drawn = False
            sys.stderr.write(CLEAR_LINE)
            sys.stderr.flush()


def width_of(stream: TextIO) -> int | None:
    """Give the columns of the terminal that a stream goes to; None if it is none that says so."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


def _status_width() -> int:
    return (width_of(sys.stderr) or 80) - 1


class ReplyPrinter:
    """Writes a reply as it streams: reasoning dim on stderr, the answer on stdout."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._out_terminal, self._err_terminal = is_terminal(sys.stdout), is_terminal(sys.stderr)
        self._dim = has_colours(sys.stderr)
        self._part = ""  # reasoning or answer: what was written last
        self._at_line_start = True

    def reasoning(self, text: str) -> None:
        """Write more of the reasoning."""
        if self._quiet:
            return
        if self._part != "reasoning":
            text = text.lstrip("\n")
            if not text:
                return
            self._begin("reasoning")
        shown = clean(text) if self._err_terminal else text
        sys.stderr.write(f"{DIM}{shown}{PLAIN}" if self._dim else shown)
        sys.stderr.flush()
        self._at_line_start = text.endswith("\n")

    def answer(self, text: str) -> None:
        """Write more of the answer, as it is."""
        if not text:
            return
        if self._part != "answer":
            self._begin("answer")
        sys.stdout.write(clean(text) if self._out_terminal else text)
        sys.stdout.flush()
        self._at_line_start = text.endswith("\n")

    def withdrawn(self) -> None:
        """Say that what was written as the answer was reasoning."""
        self.finish()
        note("(All of this was reasoning. The answer:)")
        self._part = ""

    def finish(self) -> None:
        """End the last line, so that what comes next starts on its own."""
        if self._part and not self._at_line_start:
            stream = sys.stdout if self._part == "answer" else sys.stderr
            stream.write("\n")
            stream.flush()
        self._at_line_start = True

    def _begin(self, part: str) -> None:
        was = self._part
        self.finish()
        if was == "reasoning" and self._err_terminal and self._out_terminal:
            sys.stderr.write("\n")
        if self._err_terminal and not self._dim and (was or part == "reasoning"):
            sys.stderr.write(f"[{part}]\n")  # without colours, words tell the two apart
        sys.stderr.flush()
        self._part = part
