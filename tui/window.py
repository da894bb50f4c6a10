"""Which turns are mounted: a run of at most 45, because every mounted widget costs each frame.

Takes the number of turns and what the reader does, gives `Window(first, end)`. The state keeps
every turn; only this run of them exists as widgets. Knows nothing about Textual.
"""

from dataclasses import dataclass

# Measured on Textual 8.2: at 100 mounted replies a focus change takes seconds, at 30 it is smooth.
MOUNTED = 30
PAGE = 10
PRUNE_ABOVE = 45


@dataclass(frozen=True, slots=True)
class Window:
    """Turns `first` (included) to `end` (not included) are mounted."""

    first: int = 0
    end: int = 0

    @property
    def size(self) -> int:
        """Give the number of mounted turns."""
        return self.end - self.first


def tail(count: int) -> Window:
    """Mount the newest turns only."""
    return Window(max(0, count - MOUNTED), count)


def grown(window: Window, count: int, *, following: bool) -> Window:
    """Take in turns that were added or removed at the end.

    A reader who follows the end sees the newest; one who has paged away from it stays there.
    """
    if count == 0 or window.first >= count:
        return tail(count)
    if following:
        end = count
        first = window.first if end - window.first <= PRUNE_ABOVE else end - MOUNTED
        return Window(first, end)
    return Window(window.first, min(window.end, count))


def earlier(window: Window) -> Window:
    """Mount a page before the window; what is then too much goes from its end."""
    first = max(0, window.first - PAGE)
    end = window.end if window.end - first <= PRUNE_ABOVE else first + MOUNTED
    return Window(first, end)


def later(window: Window, count: int) -> Window:
    """Mount a page after the window; what is then too much goes from its start."""
    end = min(count, window.end + PAGE)
    first = window.first if end - window.first <= PRUNE_ABOVE else end - MOUNTED
    return Window(first, end)


def around(place: int, count: int) -> Window:
    """Mount a run of turns with one near its middle."""
    first = max(0, min(place - MOUNTED // 2, count - MOUNTED))
    return Window(first, min(count, first + MOUNTED))
