"""Cells in columns; what is wider than the terminal is written one value a line.

Takes rows of text whose first is the heading, gives lines. Knows nothing about what they mean.
"""

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len, set_cell_size

GAP = "  "


def table(rows: Sequence[Sequence[str]], width: int | None = None, left: int = 1) -> list[str]:
    """Lay cells out in columns, the first `left` of them to the left, the others to the right.

    `width`: columns of the terminal; None: any number. Rows that would break are written below
    each other, each value with the heading of its column, empty ones left out.
    """
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = [
        GAP.join(
            _padded(cell, wide, column < left)
            for column, (cell, wide) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    if width is None or all(cell_len(line) <= width for line in lines):
        return lines
    heading, *entries = rows
    names = max(len(name) for name in heading[1:])
    lines = []
    for first, *values in entries:
        lines.append(f"{heading[0]}: {first}" if heading[0] else first)
        lines += [
            f"{GAP}{name.ljust(names)}{GAP}{value}"
            for name, value in zip(heading[1:], values, strict=True)
            if value
        ]
    return lines


def _padded(cell: str, wide: int, left: bool) -> str:
    """Fill a cell up to so many columns; Chinese characters take two each."""
    room = " " * (wide - cell_len(cell))
    return cell + room if left else room + cell


def shortened(text: str, width: int) -> str:
    """Give text of at most `width` columns, with … in the middle if it has more."""
    if cell_len(text) <= width:
        return text
    end = text[len(text) // 2 :]
    while cell_len(end) > (width - 1) // 2:
        end = end[1:]
    return f"{set_cell_size(text, width - 1 - cell_len(end)).rstrip()}…{end}"


def folded(lines: Iterable[str], width: int | None) -> Iterator[str]:
    """Break lines that are wider than the terminal between words."""
    for line in lines:
        if width is None or len(line) <= width:
            yield line
        else:
            yield from textwrap.wrap(
                line, width, subsequent_indent=GAP, break_long_words=False, break_on_hyphens=False
            )
