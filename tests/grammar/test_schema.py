"""Schemas to grammars: what is refused and how, and that numbers and patterns mean the same."""

import random
import re
from decimal import Decimal
from typing import Any

import pytest

from localseek.errors import UsageError
from localseek.grammar import grammar_of, grammar_of_value
from localseek.grammar.numbers import Bound, integers, numbers
from localseek.grammar.strings import pattern, repeat

from .matching import as_pattern

BAD: list[tuple[str, str]] = [
    ("{", "is not valid JSON"),
    ("", "is not valid JSON"),
    ("[" * 100_000, "is not valid JSON"),
    ("3", "nothing can fit"),
    ("false", "nothing can fit"),
    ('{"type": "strin"}', 'the type "strin"'),
    ('{"type": []}', "no type"),
    ('{"$ref": "https://example.org/x.json"}', "Nothing is fetched"),
    ('{"$ref": "other.json#/a"}', "Nothing is fetched"),
    ('{"$ref": "file:///etc/passwd"}', "Nothing is fetched"),
    ('{"$ref": "#/$defs/x"}', "not there"),
    ('{"$ref": 5}', "refers to 5"),
    ('{"$ref": "#"}', "begins with itself"),
    ('{"anyOf": [{"$ref": "#"}, {"type": "null"}]}', "begins with itself"),
    ('{"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}], "type": "null"}}}',
     "refers to itself without end"),
    ('{"anyOf": []}', "empty"),
    ('{"not": {}}', "'not'"),
    ('{"allOf": [{"not": {}}]}', "'not'"),
    ('{"type": "array", "uniqueItems": true}', "'uniqueItems'"),
    ('{"type": "integer", "multipleOf": 5}', "'multipleOf'"),
    ('{"type": "string", "pattern": "("}', "( without )"),
    ('{"type": "string", "pattern": "(?=a)"}', "(?="),
    ('{"type": "string", "pattern": "(a*)*"}', "can be empty"),
    ('{"type": "string", "pattern": 3}', "not a string"),
    ('{"type": "string", "pattern": "a", "maxLength": 3}', "together"),
    ('{"allOf": [{"pattern": "a"}, {"pattern": "b"}]}', "two values of 'pattern'"),
    ('{"type": "integer", "minimum": 5, "maximum": 4}', "no number"),
    ('{"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 1}', "no number"),
    ('{"type": "number", "minimum": NaN}', "is not valid JSON"),
    ('{"type": "number", "minimum": 1e400}', "as minimum"),
    ('{"type": "array", "minItems": 1e400}', "as minItems"),
    ('{"type": "array", "minItems": 3, "maxItems": 2}', "maxItems 2"),
    ('{"type": "string", "maxLength": 1000000000}', "more than 100,000"),
    ('{"enum": []}', "empty"),
    ('{"type": "string", "enum": [1]}', "nothing fits its type"),
    ('{"type": "object", "properties": []}', "not an object"),
    ('{"type": "object", "properties": {"a": 5}}', "/properties/a is 5"),
    ('{"type": "object", "required": "a"}', "required"),
    ('{"items": ' * 100 + "{}" + "}" * 100, "deeper than 64"),
    ('{"type": "string", "description": "' + "x" * 1_000_000 + '"}', "longer than"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), BAD, ids=lambda text: text[:40])
def test_a_schema_that_no_grammar_can_keep_is_one_line(text, words):
    with pytest.raises(UsageError) as raised:
        grammar_of(text)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


def test_no_schema_is_read_from_a_network(monkeypatch):
    import socket

    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(UsageError):
        grammar_of_value({"allOf": [{"$ref": "http://localhost:1/x"}, {"type": "object"}]})


def test_remarks_and_unknown_words_change_nothing():
    plain = grammar_of_value({"type": "string"})
    assert grammar_of_value({"type": "string", "title": "T", "x-mine": {"not": 1}}) == plain


def test_schemas_that_refer_to_themselves_become_rules_that_do():
    text = grammar_of_value({"type": "object", "properties": {"next": {"$ref": "#"}}})
    rules = dict(line.split(" ::= ", 1) for line in text.splitlines())
    seen, waiting = set(), [rules["root"]]
    while waiting:
        for name in re.findall(r"\br\d+\b", waiting.pop()):
            if name not in seen:
                seen.add(name)
                waiting.append(rules[name])
    [member] = [name for name in seen if rules[name].startswith('"\\"next\\":"')]
    target = rules[member].split()[-1]
    assert member in rules[target]


BOUNDS = [None, *(Decimal(text) for text in (
    "-120", "-12.5", "-3", "-1", "-0.75", "-0.1", "0", "0.05", "0.1", "0.25", "1", "1.5", "9.99",
    "10", "99", "123.456"))]  # fmt: skip


def test_bounded_numbers_match_nothing_outside_of_their_bounds():
    chosen = random.Random(1)
    tried = [Decimal(chosen.randint(-20_000, 20_000)) / 10 ** chosen.randint(0, 4)
             for _ in range(60)] + [one for one in BOUNDS if one is not None]  # fmt: skip
    inside = matched = 0
    for low in BOUNDS:
        for high in BOUNDS:
            is_open = chosen.random() < 0.5
            bounds = [None if one is None else Bound(one, is_open) for one in (low, high)]
            text = numbers(*bounds)
            found = as_pattern(text) if text else None
            for value in tried:
                written = f"{value:f}"
                written = written.rstrip("0").rstrip(".") if "." in written else written
                above = low is None or value > low or (value == low and not is_open)
                below = high is None or value < high or (value == high and not is_open)
                matches = bool(found and found.fullmatch(written))
                assert above and below or not matches, (low, high, is_open, written)
                inside, matched = inside + (above and below), matched + matches
    assert matched > inside * 0.7  # the rest would have to be written with more decimals


@pytest.mark.parametrize("low", [None, -1234, -10, -1, 0, 1, 7, 99, 100, 1250])
@pytest.mark.parametrize("high", [None, -1000, -9, 0, 3, 10, 99, 101, 1999])
def test_bounded_integers_match_exactly_what_is_between(low, high):
    text = integers(low, high)
    found = as_pattern(text) if text else None
    for value in [*range(-1300, 2100, 13), *range(-12, 13), -1234, -1000, 1999, 1250, 100, 101]:
        inside = (low is None or value >= low) and (high is None or value <= high)
        assert bool(found and found.fullmatch(str(value))) == inside, value
    assert not (found and found.fullmatch("007"))


PATTERNS = [
    r"^[A-Z]{2}-\d{4}$", r"^(a|b)+c?$", "abc", r"^\S+@\S+\.\w{2,3}$", "^$", r'^"\\[^"]*$',
    r"^.{3,5}$", r"^[\w.-]+$", "é[à-ü]", "^a{0,2500}$", "a|^b$", r"^\x41\u00e9$", "[^a-z]$",
]  # fmt: skip
WORDS = ["AB-1234", "ab-1234", "abac", "aba", "xabcx", "a@b.cd", "a b@c.de", "", '"\\x', '"\\"',
         "abc", "abcdef", "ab.c-d", "éà", "aéüb", "a" * 300, "a" * 2500, "a" * 2501, "b", "Aé",
         "aB", "x y"]  # fmt: skip


@pytest.mark.parametrize("given", PATTERNS)
def test_a_pattern_matches_the_texts_that_its_own_engine_matches(given):
    import json

    found = as_pattern(pattern(given))
    agreed = 0
    for word in WORDS:
        expected = re.search(given, word, re.ASCII) is not None
        assert bool(found.fullmatch(json.dumps(word, ensure_ascii=False))) == expected, word
        agreed += expected
    assert 0 < agreed < len(WORDS)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 0), (0, 1), (3, 3), (2, None), (0, 1000), (5, 1234), (1500, 3333)]
)
def test_long_repetitions_in_blocks_are_as_long_as_told(low, high):
    found = as_pattern(repeat("[x]", low, high))
    for count in (0, 1, 2, 3, 99, 1000, 1001, 1234, 1235, 1500, 3333, 3334):
        inside = low <= count and (high is None or count <= high)
        assert bool(found.fullmatch("x" * count)) == inside
