"""Which turns are mounted: a short run of them, because every mounted widget costs each frame.

Takes the number of turns and what the reader does, gives `Window(first, end)`. The state keeps
every turn; only this run of them exists as widgets. Knows nothing about Textual.
"""

from dataclasses import dataclass

# Every mounted reply costs each frame: on Textual 8.2, streaming took 2.5 times as long beside 30
# as beside 5, and 1.5 times beside 12 (tests/bench/app.py).
MOUNTED = 8
PAGE = 4
LEAST_ROWS = 4  # of a turn: prompt, answer, a margin each


@dataclass(frozen=True, slots=True)
class Window:
    """Turns `first` (included) to `end` (not included) are mounted."""

    first: int = 0
    end: int = 0

    @property
    def size(self) -> int:
        """Give the number of mounted turns."""
        return self.end - self.first


def filling(rows: int) -> int:
    """Give how many turns to mount so that a screen of so many rows is full in any case."""
    return max(MOUNTED, rows // LEAST_ROWS + 2)


def tail(count: int, mounted: int = MOUNTED) -> Window:
    """Mount the newest turns only."""
    return Window(max(0, count - mounted), count)


def around(place: int, count: int, mounted: int = MOUNTED) -> Window:
    """Mount a run of turns with one near its middle."""
    first = max(0, min(place - mounted // 2, count - mounted))
    return Window(first, min(count, first + mounted))


def grown(window: Window, count: int, mounted: int = MOUNTED, *, following: bool) -> Window:
    """Take in turns that were added or removed at the end.

    A reader who follows the end sees the newest; one who has paged away from it stays there.
    """
    if count == 0 or window.first >= count:
        return tail(count, mounted)
    if not following:
        return Window(window.first, min(window.end, count))
    fits = count - window.first <= mounted + PAGE
    return Window(window.first if fits else count - mounted, count)


def earlier(window: Window, mounted: int = MOUNTED) -> Window:
    """Mount a page before the window; what is then too much goes from its end."""
    first = max(0, window.first - PAGE)
    fits = window.end - first <= mounted + PAGE
    return Window(first, window.end if fits else first + mounted)


def later(window: Window, count: int, mounted: int = MOUNTED) -> Window:
    """Mount a page after the window; what is then too much goes from its start."""
    end = min(count, window.end + PAGE)
    fits = end - window.first <= mounted + PAGE
    return Window(window.first if fits else end - mounted, end)
