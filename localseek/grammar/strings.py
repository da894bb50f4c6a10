"""JSON strings as GBNF: any text, texts of some length, of a format, or that match a pattern.

Takes lengths, formats' names and regular expressions as JSON Schema has them, gives expressions in
GBNF for the string as JSON writes it, with quotes and escapes. Refuses what no grammar can say.
Knows nothing about schemas.
"""

import json
import re

from localseek.errors import UsageError
from localseek.grammar.gbnf import literal

Ranges = list[tuple[int, int]]

HEX = "[0-9a-fA-F]"
# Raw characters, or escapes; \u with half of a pair of surrogates is not a character.
CHAR = (
    r'[^"\\\x00-\x1F\x7F] | "\\" (["\\/bfnrt] | "u" '
    f"([0-9abcefABCEF] {HEX}{{3}} | [dD] [0-7] {HEX}{{2}}))"
)
_TIME = (
    '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,6})? '
    '("Z" | [+-] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9])'
)
_DATE = (
    '[0-9]{4} "-" (("0" [13578] | "1" [02]) "-" ("0" [1-9] | [12] [0-9] | "3" [01]) | '
    '("0" [469] | "11") "-" ("0" [1-9] | [12] [0-9] | "30") | '
    '"02-" ("0" [1-9] | "1" [0-9] | "2" [0-8]))'
)
FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f'{_DATE} "T" {_TIME}',
    "uuid": f'{HEX}{{8}} "-" {HEX}{{4}} "-" {HEX}{{4}} "-" {HEX}{{4}} "-" {HEX}{{12}}',
}

LAST = 0x10FFFF
RAW: Ranges = [(0x20, 0x21), (0x23, 0x5B), (0x5D, 0x7E), (0x80, 0xD7FF), (0xE000, LAST)]
ESCAPED = {0x22: '\\"', 0x5C: "\\\\", 0x08: "\\b", 0x0C: "\\f", 0x0A: "\\n", 0x0D: "\\r",
           0x09: "\\t"}  # fmt: skip
DIGIT: Ranges = [(48, 57)]
WORD: Ranges = [(48, 57), (65, 90), (95, 95), (97, 122)]
BLANK: Ranges = [(9, 13), (32, 32)]
LINE_ENDS: Ranges = [(10, 10), (13, 13), (0x2028, 0x2029)]
CONTROLS = {"n": 10, "r": 13, "t": 9, "f": 12, "v": 11, "0": 0}
SPECIAL = "^$\\.*+?()[]{}|"
BOUNDS = re.compile(r"\{(\d{1,6})(,(\d{1,6})?)?\}")
MAX_NESTING = 20


def _outside(ranges: Ranges) -> Ranges:
    """Give all characters that are not in the ranges."""
    found: Ranges = []
    following = 0
    for low, high in sorted(ranges):
        if low > following:
            found.append((following, low - 1))
        following = max(following, high + 1)
    return [*found, (following, LAST)] if following <= LAST else found


def _class(ranges: Ranges) -> str:
    """Give an expression for one character of the ranges, as it stands in a JSON string."""
    raw = [
        (max(low, bottom), min(high, top))
        for low, high in ranges for bottom, top in RAW if max(low, bottom) <= min(high, top)
    ]  # fmt: skip
    choices = []
    if raw:
        parts = "".join(f"\\U{low:08X}-\\U{high:08X}" for low, high in sorted(raw))
        choices.append(f"[{parts}]")
    for code, escape in ESCAPED.items():
        if any(low <= code <= high for low, high in ranges):
            choices.append(literal(escape))
    if not choices:  # a single control character without a short escape, or none at all
        if not ranges:
            raise ValueError("a class without characters")
        choices.append(literal(f"\\u{ranges[0][0]:04x}"))
    return choices[0] if len(choices) == 1 else f"({' | '.join(choices)})"


def pattern(text: str) -> str:
    """Give an expression for a JSON string in which a regular expression is found.

    Takes the part of ECMAScript's notation that is regular: no look-around, no back references,
    `^` and `$` only at the ends. Raises UsageError otherwise.
    """
    try:
        reader = _Pattern(text)
        found = reader.choices(top=True)
        if reader.at < len(text):
            raise ValueError(f"{text[reader.at]} at {reader.at + 1}")
    except ValueError as error:
        raise UsageError(
            f"The pattern {text!r} has what a grammar cannot say: {error}.", "Make it simpler."
        ) from error
    return f'"\\"" ({found}) "\\""'


class _Pattern:
    """A recursive descent over a regular expression; raises ValueError with what is wrong."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0

    def ahead(self, sign: str) -> bool:
        """Tell whether `sign` comes next, and go over it."""
        if not self.text.startswith(sign, self.at):
            return False
        self.at += len(sign)
        return True

    def choices(self, top: bool = False) -> str:
        found = [self.sequence(top)]
        while self.ahead("|"):
            found.append(self.sequence(top))
        return " | ".join(found)

    def sequence(self, top: bool) -> str:
        """Read up to the next | or ); at the top, what is not tied to an end may begin later."""
        parts = [] if top and self.ahead("^") else [f"({CHAR})*"] if top else []
        closed = not top
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            if top and self.ahead("$"):
                closed = True
                if self.at < len(self.text) and self.text[self.at] != "|":
                    raise ValueError("$ before the end")
                break
            parts.append(self.repeated(self.atom()))
        if not closed:
            parts.append(f"({CHAR})*")
        return " ".join(parts) or '""'

    def repeated(self, atom: str) -> str:
        bounds = BOUNDS.match(self.text, self.at)
        if bounds:
            self.at = bounds.end()
            low = int(bounds[1])
            high = low if bounds[2] is None else int(bounds[3]) if bounds[3] else None
            if high is not None and high < low:
                raise ValueError(f"{bounds[0]}, which ends before it begins")
            atom = repeat(atom, low, high)
        elif sign := next((one for one in "*+?" if self.ahead(one)), ""):
            atom += sign
        else:
            return atom
        self.ahead("?")  # greedy or not: the same texts match
        if self.at < len(self.text) and self.text[self.at] in "*+?{":
            raise ValueError(f"{self.text[self.at]} after a repetition")
        return atom

    def atom(self) -> str:
        if self.ahead("("):
            if self.text.startswith("?", self.at) and not self.ahead("?:"):
                raise ValueError(f"({self.text[self.at : self.at + 2]}")
            self.depth += 1
            if self.depth > MAX_NESTING:
                raise ValueError(f"parentheses nested deeper than {MAX_NESTING}")
            inner = self.choices()
            self.depth -= 1
            if not self.ahead(")"):
                raise ValueError("( without )")
            return f"({inner})"
        if self.ahead("["):
            return _class(self.members())
        if self.ahead("."):
            return _class(_outside(LINE_ENDS))
        if self.ahead("\\"):
            return _class(self.escape())
        char = self.text[self.at]
        if char in SPECIAL:
            raise ValueError(f"{char} at {self.at + 1}")
        self.at += 1
        return literal(json.dumps(char, ensure_ascii=False)[1:-1])

    def escape(self) -> Ranges:
        """Read what follows a backslash."""
        sign = self.text[self.at : self.at + 1]
        self.at += 1
        for kind, ranges in (("d", DIGIT), ("w", WORD), ("s", BLANK)):
            if sign.lower() == kind:
                return ranges if sign == kind else _outside(ranges)
        code = CONTROLS.get(sign)
        if sign in ("x", "u"):
            length = 2 if sign == "x" else 4
            digits = self.text[self.at : self.at + length]
            self.at += length
            if not re.fullmatch(f"{HEX}{{{length}}}", digits):
                raise ValueError(f"\\{sign}{digits}")
            code = int(digits, 16)
        if code is None and (not sign or sign.isalnum()):
            raise ValueError(f"\\{sign}")
        code = ord(sign) if code is None else code
        return [(code, code)]

    def members(self) -> Ranges:
        """Read a class after its opening bracket."""
        inverse = self.ahead("^")
        ranges: Ranges = []
        while not self.ahead("]"):
            first = self.member()
            following = self.text[self.at + 1 : self.at + 2]
            if len(first) > 1 or first[0][0] != first[0][1] or following in ("", "]"):
                ranges += first
            elif self.ahead("-"):
                last = self.member()
                if len(last) > 1 or last[0][0] != last[0][1] or last[0][0] < first[0][0]:
                    raise ValueError("a class with a range that ends before it begins")
                ranges.append((first[0][0], last[0][0]))
            else:
                ranges += first
        return _outside(ranges) if inverse else ranges

    def member(self) -> Ranges:
        if self.at >= len(self.text):
            raise ValueError("[ without ]")
        if self.ahead("\\"):
            if self.ahead("b"):
                return [(8, 8)]
            return self.escape()
        code = ord(self.text[self.at])
        self.at += 1
        return [(code, code)]


BLOCK = 100  # long repetitions are made of blocks: a rule for each time would be too many
MAX_TIMES = 100_000


def repeat(item: str, low: int, high: int | None) -> str:
    """Repeat an expression that is one symbol or in parentheses; raises ValueError over 100,000."""
    if max(low, high or 0) > MAX_TIMES:
        raise ValueError(f"more than {MAX_TIMES:,} repetitions")
    least = [_times(item, low)] if low else []
    if high is None:
        more = f"{item}*"
    elif high - low <= 10 * BLOCK:
        more = f"{item}{{0,{high - low}}}"
    else:
        blocks, rest = divmod(high - low, BLOCK)
        more = f"({item}{{{BLOCK}}}){{0,{blocks - 1}}} {item}{{0,{BLOCK + rest}}}"
    return f"({' '.join([*least, more])})"


def _times(item: str, count: int) -> str:
    if count <= 10 * BLOCK:
        return f"{item}{{{count}}}"
    blocks, rest = divmod(count, BLOCK)
    return f"({item}{{{BLOCK}}}){{{blocks}}} {item}{{{rest}}}"
