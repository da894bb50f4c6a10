"""Bars with whiskers as an SVG picture, in colours that show on light and dark pages.

Takes titled groups of bars, gives the text of the file. Each group has a scale of its own. Knows
nothing about what the values are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, MARGIN, LABELS, VALUES = 760, 20, 230, 170  # pixels, as all below
ROW, BAR, TITLE, GAP, HEAD = 26, 14, 30, 14, 54
LETTERS = 1240  # width of the title over half a letter's: a long one gets smaller letters
FONT = "font-family='system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif'"
INK, FAINT, PLAIN, BEST, WHISKER = "#7d848c", "#8a9199", "#5b8fc7", "#3fa37a", "#a5662f"


@dataclass(frozen=True)
class Bar:
    """A value with its spread; `note` stands behind it."""

    label: str
    value: float
    low: float
    high: float
    note: str = ""
    marked: bool = False


@dataclass(frozen=True)
class Group:
    """Bars on one scale."""

    title: str
    bars: tuple[Bar, ...]


def draw(title: str, subtitle: str, groups: Sequence[Group]) -> str:
    """Give the picture; groups without bars are left out."""
    shown = [group for group in groups if group.bars]
    height = HEAD + sum(TITLE + ROW * len(group.bars) + GAP for group in shown) + MARGIN
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' "
        f"width='{WIDTH}' height='{height}' role='img' {FONT} font-size='13'>",
        f"<title>{escape(title)}</title>",
        _text(MARGIN, 26, title, size=max(8, min(16, LETTERS // len(title))), weight=600),
        _text(MARGIN, 45, subtitle, size=12),
    ]
    top = HEAD
    for group in shown:
        parts.append(_text(MARGIN, top + 20, group.title, weight=600))
        parts += _bars(group, top + TITLE)
        top += TITLE + ROW * len(group.bars) + GAP
    return "\n".join([*parts, "</svg>\n"])


def _bars(group: Group, top: int) -> list[str]:
    most = max(bar.high for bar in group.bars) or 1.0
    left, room = MARGIN + LABELS, WIDTH - 2 * MARGIN - LABELS - VALUES
    parts = [_line(left, top, left, top + ROW * len(group.bars), FAINT)]
    for index, bar in enumerate(group.bars):
        middle = top + ROW * index + ROW / 2
        low, value, high = (left + room * x / most for x in (bar.low, bar.value, bar.high))
        colour = BEST if bar.marked else PLAIN
        parts += [
            _text(left - 10, middle + 4.5, bar.label, anchor="end"),
            f"<rect x='{left}' y='{middle - BAR / 2:.1f}' width='{value - left:.1f}' "
            f"height='{BAR}' rx='2' fill='{colour}'/>",
            _line(low, middle, high, middle, WHISKER),
            _line(low, middle - 4, low, middle + 4, WHISKER),
            _line(high, middle - 4, high, middle + 4, WHISKER),
            _text(left + room + 10, middle + 4.5, bar.note),
        ]
    return parts


def _text(
    x: float, y: float, text: str, *, size: int = 13, weight: int = 400, anchor: str = "start"
) -> str:  # fmt: skip
    return (
        f"<text x='{x:g}' y='{y:g}' font-size='{size}' font-weight='{weight}' "
        f"text-anchor='{anchor}' fill='{INK}'>{escape(text)}</text>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return (
        f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{colour}' "
        "stroke-width='1.5'/>"
    )
