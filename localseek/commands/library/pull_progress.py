"""How far a download is, as people see it: a bar on a terminal, else a line now and then.

Takes the tally that the download's threads keep. Knows nothing about networks.
"""

import contextlib
import sys
import time
from collections import deque
from collections.abc import Iterator

from localseek.commands.parts.batch_progress import DRAWN_S, repeated
from localseek.store.pulling.downloading import Tally
from localseek.system.sizes import rough_size, rough_time
from localseek.terminal.messages import has_colours

SECONDS_BETWEEN_LINES = 10.0  # as convert does where no terminal shows a bar
WINDOW_S = 15.0  # the speed is that of so many seconds


class Speed:
    """Bytes a second, of the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def of(self, done_bytes: int) -> float:
        """Give the speed now; 0 while too little was seen."""
        now = time.monotonic()
        self._seen.append((now, done_bytes))
        while now - self._seen[0][0] > WINDOW_S:
            self._seen.popleft()
        began, first = self._seen[0]
        return max(0.0, (done_bytes - first) / (now - began)) if now - began >= 1 else 0.0


@contextlib.contextmanager
def shown(tally: Tally, quiet: bool) -> Iterator[None]:
    """Show a download while the block runs."""
    if has_colours(sys.stderr):
        with _bar(tally):
            yield
    elif not quiet:
        with _lines(tally):
            yield
    else:
        yield


@contextlib.contextmanager
def _bar(tally: Tally) -> Iterator[None]:
    from rich.console import Console  # takes a while
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(bar_width=24), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        speed = Speed()
        task = progress.add_task("", total=max(1, tally.total_bytes))

        def draw() -> None:
            text = words(tally, speed.of(tally.done_bytes))
            progress.update(task, completed=tally.done_bytes, description=text)

        draw()
        with repeated(DRAWN_S, draw):
            yield


@contextlib.contextmanager
def _lines(tally: Tally) -> Iterator[None]:
    speed = Speed()
    told = [time.monotonic()]

    def tell() -> None:
        rate = speed.of(tally.done_bytes)
        if time.monotonic() - told[0] >= SECONDS_BETWEEN_LINES:
            told[0] = time.monotonic()
            share = tally.done_bytes / max(1, tally.total_bytes)
            print(f"{share:4.0%} {words(tally, rate)}", file=sys.stderr, flush=True)

    with repeated(DRAWN_S, tell):
        yield


def words(tally: Tally, rate: float) -> str:
    """Say how far a download is."""
    parts = [f"{rough_size(tally.done_bytes)} of {rough_size(tally.total_bytes)}"]
    if tally.files > 1:
        parts.insert(0, f"{tally.done_files} of {tally.files} files")
    if tally.waiting:
        return ", ".join([*parts, tally.waiting])
    if rate:
        left = (tally.total_bytes - tally.done_bytes) / rate
        parts += [f"{rate / 1e6:.1f} MB/s", f"{rough_time(left)} left"]
    return ", ".join(parts)
