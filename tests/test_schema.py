import json
import time

import pytest

from localseek.errors import UsageError
from localseek.text.grammars import check
from localseek.text.schema import held_part, misfit


def refusal(**form: str) -> str:
    with pytest.raises(UsageError) as caught:
        check(**form)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is an object, true or false"),
        ("false", "No answer fits"),
        ({"type": "strin"}, "wrong at $.type"),
        ({"type": "string", "pattern": "[a-"}, "wrong at $.pattern"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "string", "format": "hue"}, "Unknown format: hue"),
        ({"$ref": "https://example.org/a"}, "Nothing is fetched"),
        ({"not": {"$ref": "other.json"}}, "Nothing is fetched"),
        ({"$ref": "#/$defs/a"}, "does not exist"),
        ({"$dynamicRef": "#a"}, "$dynamicRef"),
        ({"type": "string", "const": 1}, "Unsatisfiable"),
        ({"$schema": "https://example.org/draft"}, "draft is not known"),
        ({"x-guidance": {"lenient": True}, "$dynamicRef": "#a"}, "$dynamicRef"),
    ],
)
def test_a_schema_that_cannot_be_kept_is_refused_by_name(schema, words):
    assert words in refusal(schema=schema if isinstance(schema, str) else json.dumps(schema))


@pytest.mark.parametrize(
    ("grammar", "words"),
    [
        ('root ::= "a"\nx ::= "b\n', 'wrong in line 2: " is not closed'),
        ("root ::= (", "( is not closed"),
        ('root ::= "a" x', "x is defined nowhere"),
        ('other ::= "a"', "no rule 'root'"),
        ('root ::= <think> "a"', "write their text"),
        ('root ::= "a"{1000000000}', "more than 1,000,000 times"),
        ("root ::= " + "(" * 100, "nested deeper than 64"),
        ('root ::= "\\ud800"', "not a character"),
        ("start: foo\n", 'unknown name: "foo"'),
        ("start: /[b-/\n", "unclosed character class"),
        ("start: <think>\n", "write their text"),
        ("start: <[5]>\n", "write their text"),
        ('start: %json {"x-guidance": {"lenient": true}, "not": {}}\n', "not"),
    ],
)
def test_a_grammar_that_is_wrong_is_refused_with_its_place(grammar, words):
    assert words in refusal(grammar=grammar)


def test_only_keywords_are_taken_out_not_properties_or_values_of_their_names():
    schema = {
        "properties": {"not": {"not": {}}, "if": True}, "required": ["not", "if"],
        "items": [{"uniqueItems": True}], "const": {"not": 1}, "minProperties": 1,
    }  # fmt: skip
    assert held_part(schema) == {
        "properties": {"not": {}, "if": True}, "required": ["not", "if"], "items": [{}],
        "const": {"not": 1}, "minProperties": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "answer", "words"),
    [
        ({"type": "integer"}, "1.5", "at $: 1.5 is not of type 'integer'"),
        ({"properties": {"a": {"type": "null"}}}, '{"a": 1}', "at $.a: 1 is not of type"),
        ({}, '{"a"', "it is not whole JSON"),
        ({"format": "date"}, '"2023-02-29"', "is not a 'date'"),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1,
          "exclusiveMinimum": True}, "1", "1 is less than or equal to the minimum of 1"),
        ({"not": {"$ref": "#/$defs/gone"}}, "1", "which it does not hold"),
    ],
)  # fmt: skip
def test_an_answer_that_does_not_fit_is_told_where(schema, answer, words):
    assert words in misfit(answer, json.dumps(schema))


def test_a_check_that_would_take_for_ever_is_ended():
    started = time.process_time()
    schema = {"type": "string", "pattern": "^(a|aa)+$"}
    assert "more than 2 s" in misfit(json.dumps("a" * 100 + "b"), json.dumps(schema))
    assert time.process_time() - started < 4
