"""GBNF, llama.cpp's notation for grammars, rewritten as Lark, llguidance's.

llguidance reads a terminal as far as it goes, so that `("a" | "ab") "bc"` would refuse "abc". Here
every character becomes a terminal of its own: what llama.cpp allows is allowed. Takes the text,
gives a text; raises UsageError that names the line. Knows nothing about models.
"""

import re
from dataclasses import dataclass, field

from localseek.errors import UsageError

MAX_NESTING = 64  # parentheses within parentheses
MAX_REPEATS = 1_000_000

SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
NAME = re.compile(r"[a-zA-Z0-9_-]+")
ESCAPE = r"\\(?:[trn\"\\\[\]-]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})"
LITERAL = re.compile(rf'"((?:[^"\\\n]|{ESCAPE})*)"')
CLASS = re.compile(rf"\[(\^?)((?:[^\]\\]|{ESCAPE})*)\]")
CHARACTER = re.compile(rf"{ESCAPE}|.", re.DOTALL)
REPEAT = re.compile(r"\{\s*([0-9]{1,18})\s*(?:(,)\s*([0-9]{1,18})?\s*)?\}")
CONTROLS = {"\\t": "\t", "\\r": "\r", "\\n": "\n"}
ANY = r"/[\x{0}-\x{10FFFF}]/"


def lark_of(text: str) -> str:
    """Rewrite a GBNF grammar as Lark; raises UsageError that says where it is wrong."""
    reader = _Reader(text)
    rules = reader.rules()
    for name, at in reader.used.items():
        if name not in rules:
            raise reader.wrong(f"{name} is defined nowhere", at)
    if "root" not in rules:
        raise UsageError("The grammar has no rule 'root'.", "Begin with: root ::= …")
    return "\n".join(f"{reader.rename(name)}: {body}" for name, body in rules.items()) + "\n"


@dataclass
class _Reader:
    """A recursive descent over the text that gives Lark as it goes."""

    text: str
    at: int = 0
    used: dict[str, int] = field(default_factory=dict)  # rule → where it is first used
    names: dict[str, str] = field(default_factory=lambda: {"root": "start"})

    def wrong(self, what: str, at: int | None = None) -> UsageError:
        line = self.text.count("\n", 0, self.at if at is None else at) + 1
        return UsageError(f"The grammar is wrong in line {line}: {what}.")

    def rename(self, name: str) -> str:
        """Give a rule's name in Lark, where case tells terminals from rules."""
        return self.names.setdefault(name, f"rule_{len(self.names)}")

    def skip(self, lines: bool) -> None:
        found = (SPACE_AND_LINES if lines else SPACE).match(self.text, self.at)
        self.at = found.end() if found else self.at

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return found

    def sees(self, signs: str) -> bool:
        return self.at < len(self.text) and self.text[self.at] in signs

    def rules(self) -> dict[str, str]:
        rules: dict[str, str] = {}
        self.skip(True)
        while self.at < len(self.text):
            name = self.take(NAME)
            if name is None:
                raise self.wrong("a rule's name (letters, digits, -) is missing")
            self.skip(False)
            if not self.text.startswith("::=", self.at):
                raise self.wrong(f"::= is missing after {name[0]}")
            self.at += 3
            self.skip(True)
            if name[0] in rules:
                raise self.wrong(f"{name[0]} is defined twice", name.start())
            rules[name[0]] = self.choices(0)
            if self.at < len(self.text) and not self.sees("\r\n"):
                raise self.wrong(f"{self.text[self.at]!r} is not understood")
            self.skip(True)
        return rules

    def choices(self, depth: int) -> str:
        found = [self.sequence(depth)]
        while self.sees("|"):
            self.at += 1
            self.skip(True)
            found.append(self.sequence(depth))
        return " | ".join(found)

    def sequence(self, depth: int) -> str:
        parts: list[str] = []
        while self.at < len(self.text):
            part = self.part(depth)
            if part is not None:
                parts.append(part)
            elif self.sees("*+?{"):
                if not parts:
                    raise self.wrong("there is nothing to repeat")
                parts[-1] = f"({parts[-1]}){self.times()}"
            else:
                break
            self.skip(depth > 0)
        return " ".join(parts) or '""'

    def part(self, depth: int) -> str | None:
        """Give a literal, a class, a rule or a group; None for anything else."""
        start = self.at
        if found := self.take(LITERAL):
            characters = [self.code(one[0], start) for one in CHARACTER.finditer(found[1])]
            return f"({' '.join(f'/{code}/' for code in characters)})" if characters else '""'
        if found := self.take(CLASS):
            return f"/[{found[1]}{self.ranges(found[2], start)}]/"
        if found := self.take(NAME):
            self.used.setdefault(found[0], start)
            return self.rename(found[0])
        if self.sees("."):
            self.at += 1
            return ANY
        if self.sees('"['):
            raise self.wrong(f"{self.text[start]} is not closed, or holds an unknown escape")
        if self.sees("<!"):
            raise self.wrong("tokens by name or number are not taken: write their text")
        return self.group(depth) if self.sees("(") else None

    def group(self, depth: int) -> str:
        start = self.at
        if depth == MAX_NESTING:
            raise self.wrong(f"parentheses are nested deeper than {MAX_NESTING}")
        self.at += 1
        self.skip(True)
        choices = self.choices(depth + 1)
        if not self.sees(")"):
            raise self.wrong("( is not closed", start)
        self.at += 1
        return f"({choices})"

    def times(self) -> str:
        if self.sees("*+?"):
            self.at += 1
            return self.text[self.at - 1]
        found = self.take(REPEAT)
        if found is None:
            raise self.wrong("{ is not followed by a number, or two, and }")
        low, comma, high = found.groups()
        if max(int(low), int(high or 0)) > MAX_REPEATS:
            raise self.wrong(f"{found[0]} is more than {MAX_REPEATS:,} times")
        if high is not None and int(high) < int(low):
            raise self.wrong(f"{found[0]} ends before it begins")
        return f"{{{low},{high or ''}}}" if comma else f"{{{low},{low}}}"

    def code(self, character: str, at: int) -> str:
        """Give a character or an escape as a regular expression's code."""
        if len(character) == 1:
            number = ord(character)
        elif character[1] in "xuU":
            number = int(character[2:], 16)
        else:
            number = ord(CONTROLS.get(character, character[1]))
        if number > 0x10FFFF or 0xD800 <= number < 0xE000:
            raise self.wrong(f"{number:#x} is not a character", at)
        return f"\\x{{{number:X}}}"

    def ranges(self, inside: str, at: int) -> str:
        """Give what is in a class of characters, each character by its code."""
        characters = [one[0] for one in CHARACTER.finditer(inside)]
        if not characters:
            raise self.wrong("[] names no characters", at)
        found = ""
        while characters:
            low = characters.pop(0)
            found += self.code(low, at)
            if len(characters) > 1 and characters[0] == "-":
                high = characters[1]
                del characters[:2]
                found += f"-{self.code(high, at)}"
        return found
