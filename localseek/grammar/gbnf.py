"""GBNF, llama.cpp's notation for grammars: written safely, and checked before llama.cpp reads it.

llama.cpp's own reader and matcher run without end, or out of stack or memory, on some grammars:
hidden left recursion, deep nesting, rules that fan out. `check` refuses those, and everything that
llama.cpp would refuse without a reason, with one line that names the place. Knows nothing about
JSON or models.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from localseek.errors import UsageError

MAX_BYTES = 1_000_000
MAX_RULES = 20_000
MAX_NESTING = 64  # parentheses within parentheses; llama.cpp's reader recurses
MAX_REPEATS = 2_000  # llama.cpp's; it takes more for "without end", silently
MAX_PATHS = 100_000  # ways to a rule's first character; llama.cpp walks each of them
MAX_ELEMENTS = 1_000_000  # after repetitions were written out

SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
NAME = re.compile(r"[a-zA-Z0-9-]+")
ESCAPE = r"\\(?:[trn\"\\\[\]-]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})"
LITERAL = re.compile(rf'"(?:[^"\\]|{ESCAPE})*"')
CLASS = re.compile(rf"\[\^?(?:[^\]\\]|{ESCAPE})*\]")
TOKEN = re.compile(r"!?<(?:\[[0-9]{1,9}\]|[^>\r\n]+)>")
REPEAT = re.compile(r"\{[ \t\r\n]*([0-9]{1,18})[ \t\r\n]*(,[ \t\r\n]*([0-9]{1,18})?[ \t\r\n]*)?\}")
ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def literal(text: str) -> str:
    """Write a text as a GBNF literal."""
    return f'"{text.translate(ESCAPES)}"'


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a sequence: text, a rule's name, a group, or a repeated one of these."""

    kind: Literal["text", "rule", "group"]
    empty: bool = False  # a literal without characters
    name: str = ""
    choices: "Choices" = ()
    low: int = 1
    high: int | None = 1  # None: without end
    elements: int = 1  # that llama.cpp makes of it


Choices = tuple[tuple[Part, ...], ...]  # alternatives, each a sequence


@dataclass
class _Reader:
    """A recursive descent over the text, as llama.cpp's: the same language, but with limits."""

    text: str
    at: int = 0
    symbols: int = 0  # rules that llama.cpp makes for groups and repetitions
    elements: int = 0
    used: dict[str, int] = field(default_factory=dict)  # rule → where it is first used

    def fail(self, what: str, at: int | None = None) -> UsageError:
        line = self.text.count("\n", 0, self.at if at is None else at) + 1
        return UsageError(f"The grammar is wrong in line {line}: {what}.")

    def skip(self, lines: bool) -> None:
        found = (SPACE_AND_LINES if lines else SPACE).match(self.text, self.at)
        self.at = found.end() if found else self.at

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return found

    def rules(self) -> dict[str, Choices]:
        rules: dict[str, Choices] = {}
        self.skip(True)
        while self.at < len(self.text):
            name = self.take(NAME)
            if name is None:
                raise self.fail("a rule's name (letters, digits, -) is missing")
            self.skip(False)
            if not self.text.startswith("::=", self.at):
                raise self.fail(f"::= is missing after {name[0]}")
            self.at += 3
            self.skip(True)
            if name[0] in rules:
                raise self.fail(f"{name[0]} is defined twice", name.start())
            rules[name[0]] = self.choices(0)
            if self.at < len(self.text) and self.text[self.at] not in "\r\n":
                raise self.fail(f"{self.text[self.at]!r} is not understood")
            self.skip(True)
            if len(rules) + self.symbols > MAX_RULES:
                raise self.fail(f"it makes more than {MAX_RULES:,} rules")
        return rules

    def choices(self, depth: int) -> Choices:
        found = [self.sequence(depth)]
        while self.at < len(self.text) and self.text[self.at] == "|":
            self.at += 1
            self.skip(True)
            found.append(self.sequence(depth))
        return tuple(found)

    def sequence(self, depth: int) -> tuple[Part, ...]:
        parts: list[Part] = []
        weight = 1  # rules behind the last part, as llama.cpp counts them
        while self.at < len(self.text):
            before = self.symbols
            part = self.part(depth)
            if part is not None:
                parts.append(part)
                weight = max(1, self.symbols - before)
                self.elements += part.elements
            elif bounds := self.bounds():
                if not parts:
                    raise self.fail("there is nothing to repeat")
                weight = self.repeat(parts, bounds, weight)
            else:
                break
            if self.elements > MAX_ELEMENTS:
                raise self.fail("its repetitions multiply to too much")
            self.skip(depth > 0)
        return tuple(parts)

    def part(self, depth: int) -> Part | None:
        start = self.at
        if found := self.take(LITERAL):
            return Part("text", empty=found[0] == '""', elements=len(found[0]))
        if found := self.take(CLASS):
            if found[0] in ("[]", "[^]"):
                raise self.fail(f"{found[0]} names no characters", start)
            return Part("text", elements=len(found[0]))
        if self.take(TOKEN):
            return Part("text")
        if found := self.take(NAME):
            self.used.setdefault(found[0], start)
            return Part("rule", name=found[0])
        if self.text[start] == ".":
            self.at += 1
            return Part("text")
        if self.text[start] in '"[<':
            raise self.fail(f"{self.text[start]} is not closed, or holds an unknown escape")
        if self.text[start] != "(":
            return None
        if depth == MAX_NESTING:
            raise self.fail(f"parentheses are nested deeper than {MAX_NESTING}")
        self.at += 1
        self.skip(True)
        self.symbols += 1
        choices = self.choices(depth + 1)
        if self.at >= len(self.text) or self.text[self.at] != ")":
            raise self.fail("( is not closed", start)
        self.at += 1
        return Part("group", choices=choices)

    def bounds(self) -> tuple[int, int | None] | None:
        sign = self.text[self.at]
        if sign in "*+?":
            self.at += 1
            return int(sign == "+"), 1 if sign == "?" else None
        if sign != "{":
            return None
        found = self.take(REPEAT)
        if found is None:
            raise self.fail("{ is not followed by a number, or two, and }")
        low = int(found[1])
        high = low if found[2] is None else int(found[3]) if found[3] else None
        if max(low, high or 0) > MAX_REPEATS:
            raise self.fail(f"llama.cpp repeats up to {MAX_REPEATS:,} times")
        if high is not None and high < low:
            raise self.fail(f"{found[0]} ends before it begins")
        return low, high

    def repeat(self, parts: list[Part], bounds: tuple[int, int | None], weight: int) -> int:
        """Put the repeated part in place of the last; give the rules that are behind it now."""
        low, high = bounds
        total = high or low or 1
        if weight * total > MAX_REPEATS:
            raise self.fail("its repetitions multiply to too much")
        last = parts[-1]
        optional = 1 if high is None else high - low
        self.symbols += optional
        elements = last.elements * (max(low, 1) + optional)
        self.elements += elements
        # A repetition of a repetition is one of a group.
        inner = last if (last.low, last.high) == (1, 1) else Part("group", choices=((last,),))
        parts[-1] = Part(
            inner.kind, inner.empty, inner.name, inner.choices, low, high, elements
        )  # fmt: skip
        return weight * total


def check(text: str, root: str = "root") -> None:
    """Raise UsageError unless llama.cpp can read the grammar and match it in sane time."""
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise UsageError(f"The grammar is longer than {MAX_BYTES:,} bytes.")
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise UsageError("The grammar holds characters that are not valid text.")
    reader = _Reader(text)
    rules = reader.rules()
    for name, at in reader.used.items():
        if name not in rules:
            raise reader.fail(f"{name} is defined nowhere", at)
    if root not in rules:
        raise UsageError(f"The grammar has no rule {root!r}.", f"Begin with: {root} ::= …")
    _refuse_left_recursion(rules)


def _refuse_left_recursion(rules: dict[str, Choices]) -> None:
    """Raise UsageError if a rule can begin with itself, or with too many others to walk."""
    empty = _may_be_empty(rules)
    for name, choices in rules.items():
        _refuse_endless(name, choices, empty)
    first = {name: list(_first_rules(choices, empty)) for name, choices in rules.items()}
    paths: dict[str, int] = {}
    for start in rules:
        walk: list[tuple[str, Iterator[str]]] = []
        if start not in paths:
            walk.append((start, iter(first[start])))
        on_walk = {start}
        while walk:
            name, rest = walk[-1]
            following = next((one for one in rest if one not in paths), None)
            if following is None:
                paths[name] = 1 + sum(paths[one] for one in first[name])
                if paths[name] > MAX_PATHS:
                    raise UsageError(f"The grammar's rule {name} fans out too far.")
                walk.pop()
                on_walk.discard(name)
            elif following in on_walk:
                raise UsageError(
                    f"The grammar's rule {following} begins with itself (left recursion).",
                    "Let something come before it, or use * or +.",
                )
            else:
                walk.append((following, iter(first[following])))
                on_walk.add(following)


def _may_be_empty(rules: dict[str, Choices]) -> set[str]:
    """Give the rules that can match nothing."""
    users: dict[str, list[str]] = {}
    for name, choices in rules.items():
        for used in _names(choices):
            users.setdefault(used, []).append(name)
    empty: set[str] = set()
    waiting = list(rules)
    while waiting:
        name = waiting.pop()
        if name not in empty and any(
            all(_is_empty(part, empty) for part in choice) for choice in rules[name]
        ):
            empty.add(name)
            waiting += users.get(name, [])
    return empty


def _names(choices: Choices) -> Iterator[str]:
    """Yield the rules that are named in alternatives."""
    for part in (part for choice in choices for part in choice):
        if part.kind == "rule":
            yield part.name
        yield from _names(part.choices)


def _is_empty(part: Part, empty: set[str]) -> bool:
    """Tell whether a part can match nothing."""
    if part.low == 0 or part.empty:
        return True
    if part.kind == "rule":
        return part.name in empty
    return any(all(_is_empty(one, empty) for one in choice) for choice in part.choices)


def _refuse_endless(name: str, choices: Choices, empty: set[str]) -> None:
    """Raise UsageError for a repetition without end of what can match nothing."""
    for part in (part for choice in choices for part in choice):
        once = Part(part.kind, part.empty, part.name, part.choices)
        if part.high is None and _is_empty(once, empty):
            raise UsageError(
                f"The grammar's rule {name} repeats something that can be empty, without end."
            )
        _refuse_endless(name, part.choices, empty)


def _first_rules(choices: Choices, empty: set[str]) -> Iterator[str]:
    """Yield the rules with which a match can begin, each as often as there are ways to it."""
    for choice in choices:
        for part in choice:
            if part.kind == "rule":
                yield part.name
            else:
                yield from _first_rules(part.choices, empty)
            if not _is_empty(part, empty):
                break
