"""What llguidance lets a model write, token by token: schemas of many kinds, grammars, bounds."""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from localseek.engine.decoding.guide import Guide, Guides
from localseek.engine.llama import Model
from localseek.errors import UsageError
from localseek.options import Sampling
from localseek.text.grammars import check
from localseek.text.schema import misfit

PEOPLE = {f"p{number}": {"type": "integer"} for number in range(2000)}
NAMES = [f"name {number}" for number in range(10_000)]
LIST = {
    "$ref": "#/$defs/list",
    "$defs": {
        "list": {
            "type": ["object", "null"],
            "properties": {"value": {"type": "integer"}, "next": {"$ref": "#/$defs/list"}},
            "required": ["value", "next"], "additionalProperties": False,
        }
    },
}  # fmt: skip
# Name → a schema, an answer that fits, and one that does not, which is refused at some token.
HELD = {
    "patternProperties": (
        {"type": "object", "patternProperties": {"^n_": {"type": "integer"}},
         "additionalProperties": False},
        {"n_a": 1, "n_b": 2}, {"n_a": "1"},
    ),
    "other names": (
        {"type": "object", "patternProperties": {"^n_": {"type": "integer"}},
         "additionalProperties": False},
        {}, {"m": 1},
    ),
    "pattern and lengths": (
        {"type": "string", "pattern": "^[a-c]+$", "minLength": 2, "maxLength": 4}, "abca", "abcab",
    ),
    "pattern and too short": (
        {"type": "string", "pattern": "^[a-c]+$", "minLength": 2, "maxLength": 4}, "ab", "a",
    ),
    "minProperties": (
        {"type": "object", "minProperties": 2, "additionalProperties": {"type": "integer"}},
        {"a": 1, "b": 2}, {"a": 1},
    ),
    "nullable recursion": (
        LIST, {"value": 1, "next": {"value": 2, "next": None}}, {"value": 1, "next": {}},
    ),
    "2,000 properties": (
        {"type": "object", "properties": PEOPLE, "required": list(PEOPLE),
         "additionalProperties": False},
        dict.fromkeys(PEOPLE, 7), {"p0": 7, "p2": 7},
    ),
    "2,000 optional properties": (
        {"type": "object", "properties": PEOPLE, "additionalProperties": False},
        {"p3": 1, "p1999": 2}, {"p3": 1, "q": 2},
    ),
    "enum of 10,000": ({"enum": NAMES}, "name 9876", "name 98765"),
    "anyOf": ({"anyOf": [{"type": "null"}, {"const": {"a": [1]}}]}, {"a": [1]}, {"a": [2]}),
    "prefixItems": (
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}],
         "items": False, "minItems": 2},
        [1, "a"], [1, "a", 2],
    ),
}  # fmt: skip
# What is only checked in the whole answer: the misfit is written, and then refused.
CHECKED = {
    "dependentRequired": ({"type": "object", "dependentRequired": {"a": ["b"]}}, {"a": 1, "b": 2},
                          {"a": 1}),
    "dependencies": ({"type": "object", "dependencies": {"a": ["b"]},
                      "$schema": "http://json-schema.org/draft-07/schema#"}, {"b": 1}, {"a": 1}),
    "uniqueItems": ({"type": "array", "uniqueItems": True}, [1, 2], [1, 1]),
    "not": ({"type": "integer", "not": {"const": 3}}, 4, 3),
    "if": ({"type": "integer", "if": {"minimum": 5}, "then": {"multipleOf": 2}}, 6, 7),
    "contains": ({"type": "array", "contains": {"const": 1}}, [2, 1], [2]),
    "propertyNames": ({"type": "object", "propertyNames": {"maxLength": 1}}, {"a": 1}, {"ab": 1}),
    "oneOf": ({"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 5}]}, 3, 6),
    "optional minProperties": ({"type": "object", "properties": {"a": {}}, "minProperties": 1},
                               {"a": 1}, {}),
}  # fmt: skip


@pytest.fixture(scope="module")
def model(nano_gguf: Path) -> Iterator[Model]:
    model = Model(str(nano_gguf), load_mtp=False)
    yield model
    model.close()


@pytest.fixture(scope="module")
def guides(model: Model) -> Guides:
    return Guides(model)


def ends_after(guide: Guide, model: Model, text: str) -> bool:
    """Walk a text token by token; tell whether all of it is allowed and the text may end there."""
    for token in model.tokenize(text, parse_special=False):
        if not guide.allows(token):
            return False
        guide.accept(token)
    return all(guide.allows(end) for end in model.ends)


def takes(guides: Guides, model: Model, schema: object, value: object) -> bool:
    guide = guides.guide(Sampling(schema=json.dumps(schema)))
    return ends_after(guide, model, json.dumps(value))


@pytest.mark.parametrize("name", HELD)
def test_an_answer_that_does_not_fit_is_refused_at_some_token(guides, model, name):
    schema, fitting, misfitting = HELD[name]
    check(schema=json.dumps(schema))
    assert takes(guides, model, schema, fitting)
    assert not takes(guides, model, schema, misfitting)
    assert misfit(json.dumps(fitting), json.dumps(schema)) == ""
    assert misfit(json.dumps(misfitting), json.dumps(schema)) != ""


@pytest.mark.parametrize("name", CHECKED)
def test_what_cannot_be_held_is_found_in_the_whole_answer(guides, model, name):
    schema, fitting, misfitting = CHECKED[name]
    check(schema=json.dumps(schema))
    assert takes(guides, model, schema, fitting) and takes(guides, model, schema, misfitting)
    assert misfit(json.dumps(fitting), json.dumps(schema)) == ""
    assert misfit(json.dumps(misfitting), json.dumps(schema)) != ""


@pytest.mark.parametrize(
    ("grammar", "fitting", "misfitting"),
    [
        ('root ::= ("a" | "ab") "bc"', ["abc", "abbc"], ["ab", "abbbc"]),
        ('root ::= word "x"\nword ::= [a-z]+', ["abx", "xxx"], ["ab", "abX"]),
        ('root ::= "\\u0041\\x42" [^"\\]\\n]{2,3} .', ["ABéé\n", "ABabcd"], ["ABa", 'AB""x']),
        ('root ::= [+-] [+--a-] # "\n', ["+-", "-,", "-a"], ["-b"]),
        ('root ::= FooBar foo-bar\nFooBar ::= "1"\nfoo-bar ::= "2" | ', ["12", "1"], ["2"]),
        ('root ::= ("(" root ")")?', ["", "(())"], ["(()"]),
        ('root ::= (\n  "a" |\n  "b"\n)*', ["abba", ""], ["c"]),
        ('root ::= [[:a&&b]+', ["[:a&b"], ["c"]),
        ('start: WORD ("," WORD)*\nWORD: /[a-z]+/\n', ["ab,c"], ["ab,"]),
        ('%llguidance {}\nstart: "n=" %json {"type": "integer"}\n', ["n=5"], ["n=x"]),
    ],
)  # fmt: skip
def test_a_grammar_allows_what_it_says_and_nothing_else(
    guides, model, grammar, fitting, misfitting
):
    check(grammar=grammar)
    for text in fitting:
        assert ends_after(guides.guide(Sampling(grammar=grammar)), model, text), text
    for text in misfitting:
        assert not ends_after(guides.guide(Sampling(grammar=grammar)), model, text), text


def test_eight_characters_of_white_space_may_come_first_and_no_more(guides, model):
    for form in (Sampling(schema='{"type": "object"}'), Sampling(grammar='root ::= "{}"')):
        assert ends_after(guides.guide(form), model, "\n\n  \t   {}")
        assert not ends_after(guides.guide(form), model, "\n\n  \t    {}")


def test_the_mask_has_what_is_allowed_and_special_tokens_never_are(guides, model):
    guide = guides.guide(Sampling(grammar="root ::= .*"))
    for text in ("", "<", "a"):
        guide.reset()
        assert ends_after(guide, model, text)
        allowed = [token for token in range(model.n_vocab) if guide.allows(token)]
        assert guide.mask().nonzero()[0].tolist() == allowed
        seen = {token for token in range(model.n_vocab) if model.piece(token)}
        assert set(allowed) <= seen | model.ends and model.ends <= set(allowed)
        assert len(allowed) > len(seen) - 200  # bytes that begin no character are left out


def test_what_must_follow_may_be_written_with_any_tokens(guides, model):
    guide = guides.guide(Sampling(grammar='root ::= "thousands"'))
    guide.accept(model.tokenize("t")[0])
    pieces = {model.piece(token) for token in guide.mask().nonzero()[0].tolist()}
    assert b"h" in pieces and pieces == {b"housands"[:n] for n in range(1, 9)} & {
        model.piece(token) for token in range(model.n_vocab)
    }  # fmt: skip


def test_a_random_walk_through_the_masks_ends_in_what_fits(guides, model):
    schema = {"type": "object", "properties": {"a": {"enum": ["x", 1.5, None, [{}]]},
              "b": {"type": "integer", "minimum": -20, "maximum": 400}}, "required": ["b"],
              "additionalProperties": False}  # fmt: skip
    guide = guides.guide(Sampling(schema=json.dumps(schema)))
    chance = random.Random(1)
    for _ in range(20):
        guide.reset()
        answer, token = b"", -1
        while token not in model.ends:
            token = int(chance.choice(guide.mask().nonzero()[0]))
            if token not in model.ends:
                guide.accept(token)
                answer += model.piece(token)
        assert misfit(answer.decode(), json.dumps(schema)) == ""


def doubled(levels: int, word: str) -> dict:
    """Give definitions that each refer twice to the next: 2^levels ways through them."""
    defs = {f"d{n}": {word: [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    defs[f"d{levels}"] = {"type": "string"}
    return {"$ref": "#/$defs/d0", "$defs": defs}


def nested(levels: int) -> dict:
    schema: dict = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


HOSTILE = {
    "anyOf": doubled(40, "anyOf"), "oneOf": doubled(25, "oneOf"), "allOf": doubled(25, "allOf"),
    "crossed": {"allOf": [{"anyOf": [{"minLength": n}, {"maxLength": n + 50}]} for n in range(16)]},
    "enum": {"enum": NAMES}, "properties": {"type": "object", "properties": PEOPLE},
    "quantifiers": {"type": "string", "pattern": "(a|aa)+{1,1000}"},
    "nested quantifiers": {"type": "string", "pattern": "^((a|aa)+){1,1000}b$"},
    "repeats": {"type": "string", "pattern": "^a{1000000000}$"},
    "products": {"type": "string", "pattern": "^((a{1000}){1000}){1000}$"},
    "backwards": {"type": "string", "pattern": "^.*a.{300}$"},
    "length": {"type": "string", "minLength": 10**9},
    "items": {"type": "array", "minItems": 10**9, "items": {"type": "object"}},
    "deep": nested(100), "too deep": '{"items":' * 5000 + "{}" + "}" * 5000,
    "grammar repeats": 'root ::= "a"{1000000}', "too many": 'root ::= "a"{1000000000}',
    "grammar products": 'root ::= (((("a"?){1000}){1000}){1000}){1000}',
    "itself": "root ::= root", "loops": 'root ::= (x | x)*\nx ::= (root | "a"*)*',
    "lark": "start: /a{1000000000}/\n", "lark rules": 'start: a{9999}\na: b{9999}\nb: "a"*\n',
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_form_is_bounded_in_time_and_memory(guides, model, name):
    form = HOSTILE[name]
    started, before = time.process_time(), psutil.Process().memory_info().rss
    try:
        text = form if isinstance(form, str) else json.dumps(form)
        asked = {"schema" if text.startswith("{") else "grammar": text}
        check(**asked)
        guide = guides.guide(Sampling(**asked))
        for _ in range(20):
            likely = guide.mask().nonzero()[0]
            seen = [int(token) for token in likely if token not in model.ends]
            if not seen:
                break
            guide.accept(seen[0])
    except UsageError as error:
        assert "\n" not in str(error)
    assert time.process_time() - started < 5.0
    assert psutil.Process().memory_info().rss - before < 200e6


@pytest.mark.parametrize(
    ("what", "asked"),
    [
        ("grammar", {"grammar": "root ::= root"}),
        ("grammar", {"grammar": 'root ::= x "a"\nx ::= root'}),
        ("schema", {"schema": '{"$ref": "#"}'}),
    ],
)
def test_what_refers_to_itself_without_an_end_is_refused_in_plain_words(what, asked):
    with pytest.raises(UsageError) as caught:
        check(**asked)
    assert str(caught.value) == (
        f"No answer fits the {what}: it refers to itself without an end. Give it a way that ends."
    )
