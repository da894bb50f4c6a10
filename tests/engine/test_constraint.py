"""Answers held to schemas, grammars and biases, by nano, which knows nothing of JSON.

A model that would never write JSON by itself is the hardest test: every character of it is the
grammar's doing.
"""

import json

import pytest
from jsonschema import Draft202012Validator

from localseek import Engine
from localseek.engine.llama import Model
from localseek.events import Failed
from localseek.nano import prompts
from localseek.options import LoadOptions, Sampling
from localseek.text.grammars import check

from .conftest import ask, text_of
from .margins import CLEAR, WatchedAnswer, least_lead

SUM = "What is 348 + 257?"
REASONING = "We need 348+257.\n348+257:\nones: 8+7=15, carry 1 → 5"
SCHEMA = {
    "type": "object",
    "properties": {
        "result": {"type": "integer", "minimum": 0, "maximum": 5000},
        "share": {"type": "number", "exclusiveMinimum": 0.25, "maximum": 0.75},
        "kind": {"enum": ["sum", 'it\'s a "quote"', None, {"a": [1, 2]}]},
        "day": {"type": "string", "format": "date"},
        "code": {"type": "string", "pattern": "^[A-Zé]{2}-\\d{1,3}$"},
        "words": {"type": "array", "items": {"$ref": "#/$defs/word"}, "minItems": 1, "maxItems": 3},
        "inner": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/inner"}]},
    },
    "required": ["result", "kind", "words"],
    "additionalProperties": False,
    "$defs": {
        "word": {"type": "string", "minLength": 1, "maxLength": 9},
        "inner": {
            "type": "object",
            "properties": {"yes": {"type": "boolean"}, "ye": {"type": "integer"}},
            "additionalProperties": {"enum": [0, 1]},
        },
    },
}
SMALL = {
    "type": "object",
    "properties": {
        "result": {"type": "integer", "minimum": -5, "maximum": 5000},
        "kind": {"enum": ["sum", 'it\'s a "quote"', None]},
        "words": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 2},
        "share": {"type": "number", "exclusiveMinimum": 0.25, "maximum": 0.75},
    },
    "required": ["result", "kind"],
    "additionalProperties": False,
}
DEPTHS = ("off", 2, "auto")


def shaped(form: str | dict, **sampling: object) -> Sampling:
    asked = {"grammar": form} if isinstance(form, str) else {"schema": json.dumps(form)}
    check(**asked)
    return Sampling(**{"temperature": 0.0, **sampling, **asked})


def fits(value: object, schema: dict) -> bool:
    return Draft202012Validator(schema).is_valid(value)


def answers(path: object, mtp: object, requests: list) -> list[tuple[str, str, str]]:
    found = []
    with Engine.of(LoadOptions(str(path), threads=1, mtp=mtp, ctx=1024)) as engine:
        engine.load()
        for request in requests:
            events = list(engine.generate(request))
            assert not isinstance(events[-1], Failed), events[-1]
            found.append((*text_of(events), events[-1].reason))
    return found


def test_fifty_seeds_give_fifty_answers_that_fit_the_schema(nano_gguf, home):
    requests = [
        ask(SUM, sampling=shaped(SMALL, temperature=1.0, top_p=1.0, seed=seed), max_tokens=400,
            think=None if seed % 20 == 0 else False)
        for seed in range(50)
    ]  # fmt: skip
    found = answers(nano_gguf, "off", requests)
    assert len({answer for _, answer, _ in found}) > 20
    for _, answer, reason in found:
        assert reason == "stop"
        assert fits(json.loads(answer), SMALL), answer
    # The same seeds begin alike, however many tokens are drafted: 14 characters hold numbers that
    # were drawn. Nano likes many tokens equally here, so rounding parts a few answers in the end.
    begun = [answer.split()[:3] for _, answer, _ in found[1:11]]
    for mtp in DEPTHS[1:]:
        drafted = answers(nano_gguf, mtp, requests[1:11])
        same = [answer.split()[:3] for _, answer, _ in drafted]
        assert sum(a == b for a, b in zip(begun, same, strict=True)) >= 8
        assert all(fits(json.loads(answer), SMALL) for _, answer, _ in drafted)


@pytest.mark.parametrize("seed", range(5))
def test_every_kind_of_part_fits_its_schema(engine, seed):
    sampling = shaped(SCHEMA, temperature=1.0, top_p=1.0, seed=seed)
    events = list(engine.generate(ask(SUM, sampling=sampling, think=False, max_tokens=900)))
    reasoning, answer = text_of(events)
    assert reasoning == ""
    assert events[-1].reason == "length" or fits(json.loads(answer), SCHEMA), answer


def test_the_likeliest_answer_is_the_same_with_drafts_of_any_depth(nano_gguf, home):
    # Where the grammar leaves a choice, nano is sure: 'is' stands for the '=' that it would write.
    grammar = 'root ::= [0-9]+ " + " [0-9]+ " is " [0-9]+'
    model = Model(str(nano_gguf), load_mtp=False)
    sampler = WatchedAnswer(model, grammar)
    assert least_lead(model, model.tokenize(prompts.prompt(SUM)), sampler=sampler) > CLEAR
    model.close()
    requests = [ask(SUM, sampling=shaped(grammar)), ask(SUM, sampling=shaped(SCHEMA))]
    found = [answers(nano_gguf, mtp, requests) for mtp in DEPTHS]
    sure = [(reasoning, answer, reason) for (reasoning, answer, reason), _ in found]
    assert sure == sure[:1] * 3
    assert sure[0][1].startswith("348 + 257 is ") and sure[0][2] == "stop"
    for _, (_, answer, reason) in found:  # nano likes many answers equally here
        assert reason == "stop" and fits(json.loads(answer), SCHEMA)


def test_the_reasoning_is_what_it_is_without_a_grammar(engine, clear):
    free = text_of(list(engine.generate(ask(clear(SUM)))))
    bound = text_of(list(engine.generate(ask(SUM, sampling=shaped('root ::= "no"')))))
    assert free[0].startswith(REASONING) and bound == (free[0], "no")


def test_a_grammar_that_the_model_keeps_anyway_changes_nothing(nano_gguf, home, clear):
    grammar = 'root ::= [0-9]+ " + " [0-9]+ " = " [0-9]+'
    with Engine.of(LoadOptions(str(nano_gguf), threads=1, mtp=1, ctx=1024)) as engine:
        engine.load()
        free = list(engine.generate(ask(clear(SUM))))
        bound = list(engine.generate(ask(SUM, sampling=shaped(grammar))))
    assert text_of(bound) == text_of(free)
    assert bound[-1].stats.draft == free[-1].stats.draft  # drafts that fit are accepted as ever


@pytest.mark.parametrize("budget", [0, 10])
def test_an_answer_after_reasoning_that_was_closed_fits(engine, budget):
    request = ask("981 * 87", sampling=shaped(SCHEMA), think_budget=budget, max_tokens=700)
    reasoning, answer = text_of(list(engine.generate(request)))
    assert "enough thinking" in reasoning
    assert fits(json.loads(answer), SCHEMA)


def test_a_model_that_ends_within_its_reasoning_is_made_to_answer(nano_gguf, home):
    # So hot that nano ends or wanders off in its reasoning; the budget ends the wandering.
    sampling = [shaped('root ::= "fine"', temperature=3.0, top_p=1.0, seed=seed)
                for seed in range(8)]  # fmt: skip
    requests = [ask(SUM, sampling=one, think_budget=600) for one in sampling]
    free = [ask(SUM, sampling=Sampling(temperature=3.0, top_p=1.0, seed=seed), max_tokens=600)
            for seed in range(8)]  # fmt: skip
    assert any(answer == "" and reason == "stop" for _, answer, reason in
               answers(nano_gguf, "off", free))  # fmt: skip
    for _, answer, reason in answers(nano_gguf, "off", requests):
        assert (answer, reason) == ("fine", "stop")


def test_a_limit_on_tokens_cuts_and_says_length(engine):
    request = ask(SUM, sampling=shaped('root ::= "0123456789" [a-z]+'), max_tokens=90)
    events = list(engine.generate(request))
    assert events[-1].reason == "length"
    assert 3 < len(text_of(events)[1]) < 20


def test_a_bias_forbids_and_forces_tokens_of_the_answer_only(engine):
    free = text_of(list(engine.generate(ask(SUM))))
    assert free[1] == "348 + 257 = 605" and "3" in free[0]
    never = Sampling(temperature=0.0, logit_bias=(("3", None),))
    reasoning, answer = text_of(list(engine.generate(ask(SUM, sampling=never))))
    assert reasoning == free[0] and "3" not in answer
    forced = Sampling(temperature=1.0, seed=1, logit_bias=((" borrow", 1000.0),))
    request = ask(SUM, sampling=forced, max_tokens=120, think=False)
    assert set(text_of(list(engine.generate(request)))[1].split()) == {"borrow"}


def test_a_bias_acts_within_a_grammar_and_with_drafts(nano_gguf, home):
    biases = (("7", None), ("5", 50.0))
    sampling = shaped('root ::= [0-9]{6} "!"?', logit_bias=biases)
    found = [answers(nano_gguf, mtp, [ask(SUM, sampling=sampling)]) for mtp in DEPTHS]
    assert [one[0][1] for one in found] == ["555555"] * 3


def test_the_end_comes_even_where_it_is_forbidden_and_nothing_else_fits(engine):
    sampling = shaped('root ::= "yes"', logit_bias=((1, None),))
    events = list(engine.generate(ask(SUM, sampling=sampling)))
    assert (text_of(events)[1], events[-1].reason) == ("yes", "stop")


@pytest.mark.parametrize(
    ("bias", "words"),
    [
        ("348 + 257", "is 8 tokens of this model"),
        (99_999, "There is no token 99999"),
    ],
)
def test_a_bias_for_what_is_no_token_is_wrong_use(engine, bias, words):
    sampling = Sampling(logit_bias=((bias, 1.0),))
    [failed] = [e for e in engine.generate(ask(SUM, sampling=sampling)) if isinstance(e, Failed)]
    assert words in failed.message and failed.wrong_use and not failed.fatal
    assert text_of(list(engine.generate(ask(SUM))))[1] == "348 + 257 = 605"


def test_answers_at_once_are_those_of_one_after_another(nano_gguf, home):
    # Without `inner`, whose names may be of any length: no answer is longer than a few hundred.
    properties = {name: one for name, one in SCHEMA["properties"].items() if name != "inner"}
    short = {**SCHEMA, "properties": properties}
    requests = [
        ask(SUM, sampling=shaped(short, temperature=1.0, seed=3), max_tokens=700),
        ask(SUM, sampling=shaped('root ::= "a" [b]', logit_bias=(("b", None),))),
        ask(SUM, sampling=Sampling(temperature=0.0, logit_bias=(("3", None),))),
        ask("981 * 87", sampling=shaped('root ::= "fine"'), think_budget=20),
        ask(SUM),
    ]
    with Engine.of(LoadOptions(str(nano_gguf), threads=1, ctx=4096, parallel=4)) as engine:
        engine.load()
        together = [list(one) for one in [engine.generate(request) for request in requests]]
    assert "No token" in together[1][-1].message  # and the others go on
    assert fits(json.loads(text_of(together[0])[1]), short)
    assert "3" not in text_of(together[2])[1] and text_of(together[3])[1] == "fine"
    assert text_of(together[4])[1] == "348 + 257 = 605"


def test_a_grammar_that_no_token_fits_fails_and_the_engine_stays(engine):
    sampling = shaped('root ::= "a" [b]', logit_bias=(("b", None),))
    events = list(engine.generate(ask(SUM, sampling=sampling)))
    assert isinstance(events[-1], Failed) and not events[-1].fatal
    assert "No token" in events[-1].message
    assert text_of(list(engine.generate(ask(SUM))))[1] == "348 + 257 = 605"
