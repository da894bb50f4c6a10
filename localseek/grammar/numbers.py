"""Numbers within bounds as GBNF: which decimal digits may be written.

Takes bounds as decimals, gives expressions in GBNF that match the numbers between them, written
as JSON writes them, without exponents. Knows nothing about schemas.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

DIGITS = 16  # of a number that has no bound on a side, as llama.cpp's own grammars write them
DECIMALS = 6  # behind the point, if the bounds themselves have no more
LARGEST = 1e30  # of a bound


@dataclass(frozen=True)
class Bound:
    """A number that may or may not be reached itself."""

    value: Decimal
    open: bool = False


def integers(low: int | None, high: int | None) -> str:
    """Give an expression for the whole numbers from `low` to `high`; "" if there are none."""
    if low is not None and high is not None and low > high:
        return ""
    choices: list[str] = []
    if low is None or low < 0:
        top = None if low is None else -low
        bottom = 1 if high is None or high >= 0 else -high
        choices.append(f'"-" ({_naturals(bottom, top)})')
    if high is None or high >= 0:
        choices.append(_naturals(max(low or 0, 0), high))
    return " | ".join(choices)


def _naturals(low: int, high: int | None) -> str:
    """Match the whole numbers from `low` (0 or more) to `high`, or to many digits."""
    width = len(str(low)) if high is None else len(str(high))
    last = 10 ** max(DIGITS, width) - 1 if high is None else high
    choices: list[str] = []
    for digits in range(len(str(low)), len(str(last)) + 1):
        first = 0 if digits == 1 else 10 ** (digits - 1)
        bottom, top = max(low, first), min(last, 10**digits - 1)
        choices.append(_fixed(str(bottom), str(top)))
    return " | ".join(_joined(choices))


def _joined(choices: list[str]) -> list[str]:
    """Write neighbours like [1-9] [0-9]{2} and [1-9] [0-9]{3} as one."""
    found: list[str] = []
    run: list[int] = []
    for choice in [*choices, ""]:
        head, _, tail = choice.partition(" ")
        count = tail.removeprefix("[0-9]{").removesuffix("}")
        if head == "[1-9]" and count.isdigit():
            run.append(int(count))
            continue
        if run:
            found.append(f"[1-9] [0-9]{{{run[0]},{run[-1]}}}")
            run = []
        if choice:
            found.append(choice)
    return found


def _digit(low: int, high: int) -> str:
    return f'"{low}"' if low == high else f"[{low}-{high}]"


def _many(count: int) -> str:
    return f" [0-9]{{{count}}}" if count else ""


def _fixed(low: str, high: str) -> str:
    """Match the numbers from `low` to `high`, written with equally many digits."""
    rest = len(low) - 1
    first, last = int(low[0]), int(high[0])
    if not rest:
        return _digit(first, last)
    if low[1:] == "0" * rest and high[1:] == "9" * rest:
        return _digit(first, last) + _many(rest)
    if first == last:
        return f'"{first}" ({_fixed(low[1:], high[1:])})'
    choices = [f'"{first}" ({_fixed(low[1:], "9" * rest)})']
    if last - first > 1:
        choices.append(_digit(first + 1, last - 1) + _many(rest))
    choices.append(f'"{last}" ({_fixed("0" * rest, high[1:])})')
    return " | ".join(choices)


def numbers(low: Bound | None, high: Bound | None) -> str:
    """Give an expression for the decimal numbers between two bounds; "" if there are none."""
    zero = Bound(Decimal(0))
    choices: list[str] = []
    if low is None or low.value < 0:
        below = Bound(Decimal(0), open=True)
        if high is not None and high.value < 0:
            below = Bound(-high.value, high.open)
        size = _sizes(below, None if low is None else Bound(-low.value, low.open))
        choices += [f'"-" ({size})'] if size else []
    if high is None or high.value >= 0:
        size = _sizes(low if low is not None and low.value >= 0 else zero, high)
        choices += [size] if size else []
    return " | ".join(choices)


def _sizes(low: Bound, high: Bound | None) -> str:
    """Match the numbers from `low`, 0 or more, to `high` or to many digits."""
    first, fraction = _parts(low.value)
    choices: list[str] = []
    if high is None:
        choices.append(_at_least(first, fraction, low.open))
        choices.append(_whole_to(first + 1, None))
        return " | ".join(choices)
    last, ending = _parts(high.value)
    if first < last:
        choices.append(_at_least(first, fraction, low.open))
        if last - first > 1:
            choices.append(_whole_to(first + 1, last - 1))
        choices.append(_at_most(last, ending, high.open))
        return " | ".join(choice for choice in choices if choice)
    if low.value == high.value and not (low.open or high.open) and not fraction:
        return f'"{first}"'
    # The whole parts are equal: all decimals are written, with two more than the bounds have.
    width = max(len(fraction), len(ending)) + 2
    bottom = int(fraction.ljust(width, "0") or 0) + low.open
    top = int(ending.ljust(width, "0") or 0) - high.open
    if bottom > top or first > last:
        return ""
    return f'"{first}." ({_fixed(f"{bottom:0{width}}", f"{top:0{width}}")})'


def _parts(value: Decimal) -> tuple[int, str]:
    """Give a number's whole part and its decimals without the zeros at their end."""
    whole, _, decimals = f"{value:f}".partition(".")
    return int(whole), decimals.rstrip("0")


def _whole_to(low: int, high: int | None) -> str:
    return f'({_naturals(low, high)}) ("." [0-9]{{1,{DECIMALS}}})?'


def _at_least(whole: int, decimals: str, is_open: bool) -> str:
    """Match `whole` with decimals that are at least these, or more if the bound is open."""
    if not decimals and not is_open:
        return f'"{whole}" ("." [0-9]{{1,{DECIMALS}}})?'
    return f'"{whole}." ({_more(decimals, is_open, max(DECIMALS, len(decimals) + 1))})'


def _more(decimals: str, is_open: bool, room: int) -> str:
    if not decimals:
        return f'"0"{{0,{room - 1}}} [1-9]' if is_open else f"[0-9]{{0,{room}}}"
    first = int(decimals[0])
    choices = [f'"{first}" ({_more(decimals[1:], is_open, room - 1)})']
    if first < 9:
        choices.append(f"{_digit(first + 1, 9)} [0-9]{{0,{room - 1}}}")
    return " | ".join(choices)


def _at_most(whole: int, decimals: str, is_open: bool) -> str:
    """Match `whole` with decimals that are at most these, or less if the bound is open."""
    if not decimals:
        return "" if is_open else f'"{whole}"'
    return f'"{whole}" ("." ({_less(decimals, is_open, max(DECIMALS, len(decimals)))}))?'


def _less(decimals: str, is_open: bool, room: int) -> str:
    """Match decimals, at least one; a beginning of the bound's own is always less than it."""
    first, rest = int(decimals[0]), decimals[1:]
    choices: list[str] = []
    if first:
        choices.append(f"{_digit(0, first - 1)} [0-9]{{0,{room - 1}}}")
    if rest:
        choices.append(f'"{first}" ({_less(rest, is_open, room - 1)})?')
    elif not is_open:
        choices.append(f'"{first}"')
    return " | ".join(choices)


def bounds_of(schema: Mapping[str, Any]) -> tuple[Bound | None, Bound | None]:
    """Give the bounds that a schema sets; raises ValueError that names a wrong one."""
    low = _bound(schema, "minimum", "exclusiveMinimum", max)
    return low, _bound(schema, "maximum", "exclusiveMaximum", min)


def _bound(
    schema: Mapping[str, Any], closed: str, opened: str, tighter: Callable[..., Decimal]
) -> Bound | None:
    at, beyond = schema.get(closed), schema.get(opened)
    if beyond is True:  # as it was before draft 6: the other keyword's bound is open
        at, beyond = None, at
    values = {}
    for word, value in ((closed, at), (opened, beyond)):
        if value is None or value is False:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST:
            raise ValueError(f"{value!r} as {word}")
        values[word] = Decimal(str(value))
    if not values:
        return None
    value = tighter(next(iter(values.values())), list(values.values())[-1])
    return Bound(value, open=values.get(opened) == value)
