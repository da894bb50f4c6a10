"""How far a batch is: counts, and what people or programs see of them while it runs.

A bar on a terminal, JSON lines for a program, nothing where stderr goes elsewhere.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from localseek.commands.parts.replies import to_json
from localseek.system.sizes import rough_time
from localseek.terminal.messages import has_colours

DRAWN_S = 0.25  # between two pictures of the bar
TOLD_S = 1.0  # between two JSON lines


class Counts:
    """What became of the rows so far; times in seconds."""

    def __init__(self) -> None:
        self.rows = self.before = 0  # of all rows, those answered by earlier runs
        self.answered = self.failed = self.tokens = 0
        self.parallel = 1  # until the engine has said
        self._started = time.monotonic()
        self._began = 0.0  # when the engine was ready

    def begin(self, parallel: int) -> None:
        """Note that the engine is ready."""
        self.parallel, self._began = parallel, time.monotonic()

    @property
    def done(self) -> int:
        """Give the rows that are over in this run."""
        return self.answered + self.failed

    def tokens_per_second(self) -> float:
        """Give the rate since the engine was ready."""
        seconds = time.monotonic() - self._began if self._began else 0.0
        return round(self.tokens / max(seconds, 1e-9), 1)

    def left_s(self) -> float | None:
        """Give the seconds that the rest takes at this rate; None if nothing is known yet."""
        if not self.done or not self._began:
            return None
        each = (time.monotonic() - self._began) / self.done
        return each * (self.rows - self.before - self.done)

    def progress(self) -> dict[str, Any]:
        """Give the state as a program reads it."""
        left = self.left_s()
        return {
            "done": self.before + self.done, "rows": self.rows, "failed": self.failed,
            "tokens_per_second": self.tokens_per_second(),
            "seconds_left": None if left is None else round(left, 1),
        }  # fmt: skip

    def summary(self, interrupted: bool) -> dict[str, Any]:
        """Give what the run came to."""
        return {
            "rows": self.rows, "skipped": self.before, "answered": self.answered,
            "failed": self.failed, "interrupted": interrupted,
            "seconds": round(time.monotonic() - self._started, 1), "parallel": self.parallel,
            "generated_tokens": self.tokens, "tokens_per_second": self.tokens_per_second(),
        }  # fmt: skip


@contextlib.contextmanager
def shown(counts: Counts, quiet: bool, as_json: bool) -> Iterator[None]:
    """Show the counts while the block runs."""
    if as_json:
        with repeated(TOLD_S, lambda: print(to_json(counts.progress()), file=sys.stderr)):
            yield
    elif not quiet and has_colours(sys.stderr):
        with _bar(counts):
            yield
    else:
        yield


@contextlib.contextmanager
def _bar(counts: Counts) -> Iterator[None]:
    from rich.console import Console  # takes a while
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(bar_width=24), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(_words(counts), total=counts.rows)

        def draw() -> None:
            done = counts.before + counts.done
            progress.update(task, completed=done, description=_words(counts))

        with repeated(DRAWN_S, draw):
            yield


def _words(counts: Counts) -> str:
    parts = [f"{counts.before + counts.done} of {counts.rows} rows"]
    if counts.parallel > 1:
        parts.append(f"{counts.parallel} at once")
    if counts.tokens:
        parts.append(f"{counts.tokens_per_second():,.0f} tok/s")
    if (left := counts.left_s()) is not None:
        parts.append(f"{rough_time(left)} left")
    if counts.failed:
        parts.append(f"{counts.failed} failed")
    return ", ".join(parts)


@contextlib.contextmanager
def repeated(seconds: float, work: Callable[[], None]) -> Iterator[None]:
    """Do some work every so often, on a thread, until the block ends; and once then."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            work()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        work()
