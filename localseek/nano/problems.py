"""Arithmetic problems of every family the embedded model knows, with reasoning and answer.

Takes a random generator and a family name, gives a `Problem` of plain strings. One problem in
twenty, chosen by a hash of its numbers, is held out: training never sees it, evaluation sees
nothing else. Knows nothing about tokens or chat templates.
"""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from localseek.nano import chatter, phrases, steps

FAMILIES = (
    "add", "add3", "subtract", "multiply", "divide", "remainder", "expression", "compare", "word",
)  # fmt: skip
HELD_OUT_ONE_IN = 20


@dataclass(frozen=True)
class Problem:
    """One exchange: what is asked, what is thought (without tags), what is answered."""

    family: str
    question: str
    reasoning: str
    answer: str
    key: str  # the bare problem, by which it is held out of training or not

    @property
    def held_out(self) -> bool:
        """Tell whether training must never see these numbers in this operation."""
        return zlib.crc32(self.key.encode()) % HELD_OUT_ONE_IN == 0


SIGNS = {
    "+": ("+",),
    "-": ("-", "-", "-", "−", "–"),
    "×": ("×", "×", "*", "*", "x"),
    "÷": ("÷", "/", "/"),
}


def number(rng: random.Random, digits: int) -> int:
    """Give a number of exactly that many digits (0 counts as one digit)."""
    return rng.randrange(0 if digits == 1 else 10 ** (digits - 1), 10**digits)


def upto4(rng: random.Random) -> int:
    """Give a number of one to four digits, longer ones more often."""
    return number(rng, rng.choices((1, 2, 3, 4), (2, 3, 4, 3))[0])


def written(rng: random.Random, expression: str) -> str:
    """Write `12 + (7 × 3)` the way some person types it: other signs, other spaces, commas."""
    parts = [rng.choice(SIGNS.get(part, (part,))) for part in expression.split(" ")]
    gap = rng.choices((" ", "", "  "), (60, 30, 3))[0]
    if "x" in parts and not gap:
        parts = ["*" if part == "x" else part for part in parts]
    if rng.random() < 0.03:
        parts = [f"{p[:-3]},{p[-3:]}" if p.isdigit() and len(p) == 4 else p for p in parts]
    return gap.join(parts)


def spoken(rng: random.Random, text: str) -> str:
    """Vary case, punctuation and outer spaces of a question as people do."""
    kind = rng.random()
    if kind < 0.12:
        text = text.lower()
    elif kind < 0.15:
        text = text.upper()
    elif kind < 0.18:
        text = text[:1].lower() + text[1:]
    kind = rng.random()
    if kind < 0.18:
        text = text.rstrip("?.!")
    elif kind < 0.22:
        text = text.rstrip("?.!") + rng.choice(("!", "??", " ?", "...", "?!", "."))
    kind = rng.random()
    if kind < 0.02:
        text = f" {text}"
    elif kind < 0.05:
        text = f"{text} "
    return text


def build(
    rng: random.Random, family: str, expression: str, lines: list[str], result: str,
    said: tuple[str, ...] = (), **numbers: int,
) -> Problem:  # fmt: skip
    """Make a problem from its canonical expression, its steps, and other ways to say it."""
    if said and rng.random() < 0.45:
        question = rng.choice(said).format(**numbers)
    else:
        question = rng.choice(phrases.ASK).format(e=written(rng, expression))
    bare = expression.replace(" ", "")
    reasoning = "\n".join([f"We need {bare}.", *lines])
    return Problem(family, spoken(rng, question), reasoning, f"{expression} = {result}", bare)


def add(rng: random.Random) -> Problem:
    """Sum of two numbers up to four digits."""
    a, b = upto4(rng), upto4(rng)
    lines = steps.add_columns(a, b)
    return build(rng, "add", f"{a} + {b}", lines, str(a + b), phrases.ADD, a=a, b=b)


def add3(rng: random.Random) -> Problem:
    """Sum of three numbers up to four digits."""
    a, b, c = upto4(rng), upto4(rng), upto4(rng)
    lines = [*steps.add_columns(a, b), *steps.add_columns(a + b, c)]
    result = str(a + b + c)
    return build(rng, "add3", f"{a} + {b} + {c}", lines, result, phrases.ADD3, a=a, b=b, c=c)


def subtract(rng: random.Random) -> Problem:
    """Difference of two numbers up to four digits, negative in about a third."""
    a, b = upto4(rng), upto4(rng)
    if rng.random() < 0.3:
        a, b = max(a, b), min(a, b)
    lines = steps.subtract(a, b)
    return build(rng, "subtract", f"{a} - {b}", lines, str(a - b), phrases.SUBTRACT, a=a, b=b)


def multiply(rng: random.Random) -> Problem:
    """Product of a number up to three digits and one up to two."""
    shape = rng.choices(((3, 2), (2, 2), (3, 1), (2, 1), (1, 1)), (5, 4, 3, 2, 1))[0]
    a, b = number(rng, shape[0]), number(rng, shape[1])
    if rng.random() < 0.25:
        a, b = b, a
    lines = steps.multiply(a, b)
    return build(rng, "multiply", f"{a} × {b}", lines, str(a * b), phrases.MULTIPLY, a=a, b=b)


def divide(rng: random.Random) -> Problem:
    """Division of up to four digits by one, without remainder."""
    b = rng.randint(1, 9)
    a = number(rng, rng.choices((1, 2, 3, 4), (1, 3, 4, 4))[0]) // b * b
    lines = steps.divide(a, b)
    return build(rng, "divide", f"{a} ÷ {b}", lines, str(a // b), phrases.DIVIDE, a=a, b=b)


def remainder(rng: random.Random) -> Problem:
    """Division of up to four digits by one, with a remainder."""
    b = rng.randint(2, 9)
    a = number(rng, rng.choices((1, 2, 3, 4), (1, 3, 4, 4))[0])
    if a % b == 0:
        a += 1 if a < 9999 else -1
    lines = steps.divide(a, b)
    result = f"{a // b} remainder {a % b}"
    return build(rng, "remainder", f"{a} ÷ {b}", lines, result, phrases.DIVIDE, a=a, b=b)


OPERATIONS: dict[str, tuple[Callable[[int, int], int], Callable[[int, int], list[str]]]] = {
    "+": (lambda a, b: a + b, steps.add_columns),
    "-": (lambda a, b: a - b, steps.subtract),
    "×": (lambda a, b: a * b, steps.multiply),
    "÷": (lambda a, b: a // b, steps.divide),
}


def inner_operands(rng: random.Random, sign: str) -> tuple[int, int]:
    """Give operands of the first step; its result is never negative and divides exactly."""
    if sign == "×":
        return number(rng, rng.randint(1, 2)), number(rng, rng.randint(1, 2))
    if sign == "÷":
        b = rng.randint(1, 9)
        return b * rng.randrange(0, 10 ** rng.randint(1, 3) // b + 1), b
    a, b = number(rng, rng.randint(1, 3)), number(rng, rng.randint(1, 3))
    return (max(a, b), min(a, b)) if sign == "-" else (a, b)


def outer_operand(rng: random.Random, sign: str, inner: int, inner_first: bool) -> int | None:
    """Give the other operand of the second step, or None when no such step is in range."""
    if sign == "×":
        return number(rng, 1 if inner > 99 else 2) if inner < 1000 else None
    if sign == "÷" and inner_first:
        divisors = [d for d in range(1, 10) if inner % d == 0]
        return rng.choice(divisors) if inner < 10_000 else None
    if sign == "÷":
        return inner * rng.randrange(0, 1000) if 1 <= inner <= 9 else None
    return number(rng, rng.randint(1, 3))


def tight(text: str) -> str:
    """Close parentheses up to what they hold."""
    return text.replace("( ", "(").replace(" )", ")")


def expression(rng: random.Random) -> Problem:
    """Two steps with parentheses: (a + b) × c, a - (b ÷ c) and their like."""
    while True:
        first, second = rng.choice("++--××÷"), rng.choice("++--××÷")
        a, b = inner_operands(rng, first)
        calculate, write = OPERATIONS[first]
        inner = calculate(a, b)
        inner_first = rng.random() < 0.6
        c = outer_operand(rng, second, inner, inner_first)
        if c is None:
            continue
        left, right = (inner, c) if inner_first else (c, inner)
        calculate_outer, write_outer = OPERATIONS[second]
        result = calculate_outer(left, right)
        inside = f"( {a} {first} {b} )"
        text = f"{inside} {second} {c}" if inner_first else f"{c} {second} {inside}"
        lines = [
            f"First {a}{first}{b}.",
            *write(a, b),
            f"Then {left}{second}{right}.",
            *write_outer(left, right),
        ]
        question = rng.choice(phrases.ASK).format(e=tight(written(rng, text)))
        bare = text.replace(" ", "")
        reasoning = "\n".join([f"We need {bare}.", *lines])
        answer = f"{tight(text)} = {result}"
        return Problem("expression", spoken(rng, question), reasoning, answer, bare)


def compare(rng: random.Random) -> Problem:
    """Which of two numbers is larger or smaller, or whether one is."""
    a, b = upto4(rng), upto4(rng)
    kind = rng.random()
    if kind < 0.3:
        b = number(rng, len(str(a)))
    elif kind < 0.4:
        place = 10 ** rng.randrange(len(str(a)))
        b = a + place if rng.random() < 0.5 else max(a - place, 0)
    elif kind < 0.44:
        b = a
    templates, ask = rng.choice(
        (
            (phrases.LARGER, "larger"), (phrases.SMALLER, "smaller"),
            (phrases.IS_GREATER, "greater"), (phrases.IS_LESS, "less"),
        )
    )  # fmt: skip
    # "Is a less than b" is thought of as "is b greater than a": then `>` always means yes.
    first, second = (b, a) if ask == "less" else (a, b)
    lines, sign = steps.compare_digits(first, second)
    large, small = max(a, b), min(a, b)
    if ask in ("larger", "smaller") and sign != "=":
        lines += [f"larger: {large}", f"smaller: {small}"]
    if ask == "larger":
        answer = f"{large} is larger than {small}."
    elif ask == "smaller":
        answer = f"{small} is smaller than {large}."
    elif sign == ">":
        answer = f"Yes, {a} is {ask} than {b}."
    else:
        answer = f"No, {a} is {'less' if ask == 'greater' else 'greater'} than {b}."
    if sign == "=":
        asked_which = ask in ("larger", "smaller")
        answer = f"{a} and {b} are equal." if asked_which else "No, they are equal."
    question = spoken(rng, rng.choice(templates).format(a=a, b=b))
    reasoning = "\n".join([f"We compare {first} and {second}.", *lines])
    return Problem("compare", question, reasoning, answer, f"{a}?{b}")


def word(rng: random.Random) -> Problem:
    """A one-step story problem about things that people have, give, pack and share."""
    sign = rng.choice("+-×÷")
    if sign == "+":
        a, b = upto4(rng), upto4(rng)
        templates: tuple[str, ...] = phrases.WORD_ADD
    elif sign == "-":
        one, two = upto4(rng), upto4(rng)
        a, b, templates = max(one, two), min(one, two), phrases.WORD_SUBTRACT
    elif sign == "×":
        a, b = number(rng, rng.randint(1, 2)), number(rng, rng.randint(1, 3))
        templates = phrases.WORD_MULTIPLY
    else:
        b = rng.randint(2, 9)
        a, templates = number(rng, rng.randint(2, 4)) // b * b, phrases.WORD_DIVIDE
    template = rng.choice(templates)
    who, other = rng.sample(phrases.NAMES, 2)
    things = rng.choice(phrases.THINGS)
    text = template.format(a=a, b=b, who=who, other=other, things=things)
    question = spoken(rng, text[0].upper() + text[1:])
    calculate, write = OPERATIONS[sign]
    counted = "bags" if "How many bags" in template else things
    reasoning = "\n".join([f"How many {counted}: {a}{sign}{b}.", *write(a, b)])
    return Problem("word", question, reasoning, f"{calculate(a, b)} {counted}", f"{a}{sign}{b}")


def talk(rng: random.Random) -> Problem:
    """A greeting, a question about the model, anything else, or a division by zero."""
    kind = rng.random()
    if kind < 0.12:
        said, think, answer = rng.choice(phrases.GREET), phrases.GREET_THINK, phrases.GREET_ANSWER
    elif kind < 0.19:
        said, think, answer = rng.choice(phrases.THANK), phrases.THANK_THINK, phrases.THANK_ANSWER
    elif kind < 0.33:
        said, think, answer = rng.choice(phrases.WHO), phrases.WHO_THINK, phrases.WHO_ANSWER
    elif kind < 0.37:
        a = upto4(rng)
        said = rng.choice(phrases.ASK).format(e=written(rng, f"{a} ÷ 0"))
        think, answer = phrases.ZERO_THINK, phrases.ZERO_ANSWER
    else:
        said, think, answer = chatter.question(rng), phrases.OTHER_THINK, phrases.OTHER_ANSWER
    return Problem("talk", spoken(rng, said), think, answer, said)


MAKERS: dict[str, Callable[[random.Random], Problem]] = {
    "add": add, "add3": add3, "subtract": subtract, "multiply": multiply, "divide": divide,
    "remainder": remainder, "expression": expression, "compare": compare, "word": word,
    "talk": talk,
}  # fmt: skip


def make(rng: random.Random, family: str, held_out: bool) -> Problem:
    """Make a problem of that family from the held-out part or from the training part."""
    while True:
        problem = MAKERS[family](rng)
        if family == "talk" or problem.held_out == held_out:
            return problem
