"""Numbers as few spans in order: which tiles are done, and whether one, or a run of them, is.

Takes and gives ranges that neither touch nor overlap, sorted. Does not know what is numbered.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence


def spans_of(numbers: Iterable[int]) -> list[range]:
    """Return numbers as spans."""
    return merged([range(number, number + 1) for number in numbers])


def merged(spans: Sequence[range]) -> list[range]:
    """Return the same numbers as few spans in order."""
    found: list[range] = []
    for span in sorted(spans, key=lambda span: span.start):
        if found and span.start <= found[-1].stop:
            found[-1] = range(found[-1].start, max(found[-1].stop, span.stop))
        else:
            found.append(span)
    return found


def is_in(number: int, spans: Sequence[range]) -> bool:
    """Say whether a number is in one of the spans."""
    return covers(spans, range(number, number + 1))


def covers(spans: Sequence[range], wanted: range) -> bool:
    """Say whether all numbers of a range are in the spans; those of an empty one are."""
    if not wanted:
        return True
    at = bisect_right(spans, wanted.start, key=lambda span: span.start) - 1
    return at >= 0 and wanted.stop <= spans[at].stop
