"""--schema, --grammar and --logit-bias on the command line, with the fake engine."""

import json
from pathlib import Path

import pytest

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.fixture
def schema(tmp_path: Path) -> str:
    path = tmp_path / "n.json"
    path.write_text(json.dumps(SCHEMA))
    return str(path)


def sampling(outcome) -> dict:
    return json.loads(outcome.out)["request"]["sampling"]


def test_a_schema_reaches_the_engine_as_it_is(run_cli, schema):
    sent = sampling(run_cli("ask", "-q", "echo", "--schema", schema))
    assert (json.loads(sent["schema"]), sent["grammar"]) == (SCHEMA, "")


def test_a_grammar_reaches_the_engine_as_it_is(run_cli, tmp_path):
    file = tmp_path / "g.gbnf"
    file.write_text('root ::= "a" | "b"\n')
    sent = sampling(run_cli("ask", "echo", "--grammar", str(file)))
    assert sent["grammar"] == 'root ::= "a" | "b"\n'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "is not valid JSON"),
        (b'{"$ref": "https://example.org"}', "Nothing is fetched"),
        (b'{"$dynamicRef": "#a"}', "$dynamicRef"),
        (b'{"type": "strin"}', "wrong at $.type"),
        (b" ", "it is empty"),
        (b"\xff", "is not valid UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_a_bad_schema_is_one_line_and_no_engine_starts(run_cli, tmp_path, home, content, words):
    file = tmp_path / "s.json"
    if content is not None:
        file.write_bytes(content)
    outcome = run_cli("ask", "hi", "--schema", str(file))
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert str(file) in outcome.err and words in outcome.err
    assert not (home / "logs" / "engine.log").exists()


def test_a_bad_grammar_is_one_line_with_its_place(run_cli, tmp_path):
    file = tmp_path / "g.gbnf"
    file.write_text('root ::= "a"\nx ::= "b\n')
    outcome = run_cli("ask", "hi", "--grammar", str(file))
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert 'wrong in line 2: " is not closed' in outcome.err


def test_schema_and_grammar_exclude_each_other(run_cli, schema, tmp_path):
    file = tmp_path / "g.gbnf"
    file.write_text('root ::= "a"')
    outcome = run_cli("ask", "hi", "--schema", schema, "--grammar", str(file))
    assert outcome.status == 2 and "not allowed with" in outcome.err


@pytest.mark.parametrize(
    ("given", "sent"),
    [("12=-5", [12, -5.0]), ("Sure=false", ["Sure", None]), ('"12"=2.5', ["12", 2.5]),
     ("a=b=1", ["a=b", 1.0]), ('" x"=1', [" x", 1.0]), ('"=1', ['"', 1.0])],
)  # fmt: skip
def test_a_bias_is_for_a_token_by_number_or_text(run_cli, given, sent):
    assert sampling(run_cli("ask", "echo", "--logit-bias", given))["logit_bias"] == [sent]


@pytest.mark.parametrize("given", ["12", "=5", "12=", "12=much", "12=nan", "12=inf", "12=true"])
def test_a_bias_that_makes_no_sense_is_wrong_use(run_cli, given):
    outcome = run_cli("ask", "hi", "--logit-bias", given)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)


def test_json_that_was_cut_off_is_printed_and_fails(run_cli, schema):
    outcome = run_cli("ask", "-q", "length", "--schema", schema)
    assert (outcome.status, outcome.out) == (1, "The answer is 605.\n")
    assert outcome.err == (
        "The answer was cut off at the token limit: it is not whole JSON; --max-tokens can "
        "raise it.\n"
    )


def test_an_answer_that_fits_is_an_answer(run_cli, schema):
    outcome = run_cli("ask", "-q", 'say {"n": 5}', "--schema", schema)
    assert (outcome.status, outcome.out, outcome.err) == (0, '{"n": 5}\n', "")


def test_an_answer_that_does_not_fit_its_schema_is_printed_and_fails(run_cli, schema):
    outcome = run_cli("ask", "-q", 'say {"n": "5"}', "--schema", schema)
    assert (outcome.status, outcome.out) == (1, '{"n": "5"}\n')
    told = "The answer does not fit the schema: at $.n: '5' is not of type 'integer'."
    assert outcome.err == told + "\n"
    outcome = run_cli("ask", "-q", "--json", 'say {"n": "5"}', "--schema", schema)
    assert (outcome.status, json.loads(outcome.out)["error"]) == (1, told)


def test_chat_says_which_answer_does_not_fit_and_fails_in_the_end(run_cli, schema):
    prompts = b'say {"n": "5"}\nsay {"n": 5}\n'
    outcome = run_cli("chat", "-q", "--no-save", "--schema", schema, stdin=prompts)
    assert (outcome.status, outcome.out) == (1, '{"n": "5"}\n{"n": 5}\n')
    assert outcome.err.count("does not fit the schema") == 1


def test_a_row_whose_answer_is_cut_off_or_does_not_fit_is_an_error(run_cli, tmp_path, schema):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [
        {"prompt": 'say {"n": 5}'}, {"prompt": 'say {"n": "5"}'}, {"prompt": "length"},
        {"prompt": "say 7", "schema": {"not": {"const": 7}}},
        {"prompt": "say 8", "schema": {"not": {"const": 7}}},
        {"prompt": "length", "grammar": 'root ::= "a"'},
    ]  # fmt: skip
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run_cli("batch", str(source), str(target), "-q", "--schema", schema).status == 3
    found = {one["index"]: one for one in map(json.loads, target.read_text().splitlines())}
    errors = [found[index].get("error", "") for index in range(6)]
    assert errors[0] == errors[4] == ""
    assert "at $.n" in errors[1] and found[1]["answer"] == '{"n": "5"}'
    assert errors[2].startswith("The answer was cut off at the token limit: it is not whole JSON")
    assert "at $: 7 should not be valid under" in errors[3]
    assert errors[5] == "The answer was cut off at the token limit; --max-tokens can raise it."


def test_rows_of_a_batch_have_schemas_grammars_and_biases_of_their_own(run_cli, tmp_path):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [
        {"prompt": "echo", "schema": SCHEMA, "logit_bias": {"7": -1, "Sure": False}},
        {"prompt": "echo", "grammar": 'root ::= "a"'},
        {"prompt": "echo", "schema": {"$dynamicRef": "#a"}},
        {"prompt": "echo", "grammar": "root ::= ("},
        {"prompt": "echo", "grammar": 5},
        {"prompt": "echo", "schema": True, "grammar": 'root ::= "a"'},
        {"prompt": "echo", "logit_bias": {"7": "much"}},
        {"prompt": "echo", "logit_bias": [7]},
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run_cli("batch", str(source), str(target), "-q").status == 3
    found = {one["index"]: one for one in map(json.loads, target.read_text().splitlines())}
    first = json.loads(found[0]["answer"])["request"]["sampling"]
    assert (json.loads(first["schema"]), first["grammar"]) == (SCHEMA, "")
    assert first["logit_bias"] == [[7, -1.0], ["Sure", None]]
    second = json.loads(found[1]["answer"])["request"]["sampling"]
    assert (second["grammar"], second["logit_bias"]) == ('root ::= "a"', [])
    for index, words in enumerate(
        [
            "$dynamicRef", "( is not closed", "not a string", "not both", "neither a number",
            "not an object",
        ], 2
    ):
        assert words in found[index]["error"]
