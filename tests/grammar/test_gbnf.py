"""Grammars are checked before llama.cpp sees them; what is passed, llama.cpp takes."""

import pytest

from localseek.engine.llama import Grammar, Model
from localseek.errors import UsageError
from localseek.grammar import check, grammar_of_value

CHAIN = "".join(f'a{i} ::= a{i + 1} | a{i + 1} "x"\n' for i in range(40)) + 'a40 ::= "z"'
BAD = [
    ("", "no rule 'root'"),
    ('other ::= "a"', "no rule 'root'"),
    ("root ::= x", "x is defined nowhere"),
    ('root ::= "a"\n\nroot ::= "b"', "line 3: root is defined twice"),
    ('root ::= "a', "line 1: \" is not closed"),
    ("root ::= [a-", "[ is not closed"),
    ("root ::= [^]", "names no characters"),
    ('root ::= "\\q"', "unknown escape"),
    ('a_b ::= "x"', "::= is missing after a"),
    ('root = "x"', "::= is missing"),
    ('root ::= "a" ]', "']' is not understood"),
    ("root ::= *", "nothing to repeat"),
    ('root ::= "a"{3,1}', "ends before it begins"),
    ('root ::= "a"{x}', "{ is not followed"),
    ('root ::= "a"{0,100000}', "up to 2,000"),
    ('root ::= "a"{99999999999999999999}', "{ is not followed"),
    ('root ::= ("a"{0,100}){0,100}', "multiply"),
    ('root ::= "a"{1000}{1000}', "multiply"),
    ("root ::= " + "(" * 100_000, "nested deeper"),
    ('root ::= root "a" | "b"', "left recursion"),
    ('root ::= a "x"\na ::= b\nb ::= root', "left recursion"),
    ('root ::= a root "x" | "y"\na ::= b\nb ::= ""', "left recursion"),
    ('root ::= ("a"?)*', "can be empty"),
    ('root ::= "x" ("a" | b)+\nb ::= "c"*', "can be empty"),
    ("root ::= a0\n" + CHAIN, "fans out"),
    ('root ::= "a\0"', "not valid text"),
    ('root ::= "\ud800"', "not valid text"),
    ('root ::= "' + "a" * 1_000_001 + '"', "longer than"),
    ("root ::= a0\n" + "".join(f'a{i} ::= "x"\n' for i in range(20_001)), "more than 20,000"),
]  # fmt: skip
GOOD = [
    'root ::= "a" | "b"  # or\n  # nothing more\n',
    'root ::= (\n  "a" |\n  [^x-z\\]\\\\]\n)+ x-1?\nx-1 ::= .{2,} | "\\x41\\u00e9\\U0001F600"{3}',
    "root ::= <[5]> !<[6]>",
    'root ::= "a"{2000}',
    'root ::= "["\nother ::= "unused"',
    "root ::= a0\n" + "".join(f"a{i} ::= a{i + 1}\n" for i in range(9_000)) + 'a9000 ::= "z"',
    'root ::= ("a" ("b" ("c"{0,9}){0,9}){0,9})',
]


@pytest.mark.parametrize(("text", "words"), BAD, ids=lambda text: repr(text[:40]))
def test_a_grammar_that_llama_cpp_cannot_take_is_one_line(text, words):
    with pytest.raises(UsageError) as raised:
        check(text)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


@pytest.fixture(scope="module")
def model(nano_gguf):
    loaded = Model(str(nano_gguf), load_mtp=False)
    yield loaded
    loaded.close()


@pytest.mark.parametrize("text", GOOD, ids=lambda text: repr(text[:40]))
def test_what_is_passed_llama_cpp_takes(model, text):
    check(text)
    Grammar(model, text).close()


def test_a_schema_with_many_and_long_parts_is_taken(model):
    properties = {f"field {n}": {"type": "string", "maxLength": 4096} for n in range(40)}
    schema = {"type": "object", "properties": properties, "additionalProperties": True}
    grammar = Grammar(model, grammar_of_value({"type": "array", "items": schema}))
    for char in '[{"field 7":"abc","fjeld":[1,{"x":null}]':
        [token] = model.tokenize(char)
        assert grammar.allows(token), char
        grammar.accept(token)
    assert not grammar.allows(model.eos)
    grammar.close()


def test_a_token_that_the_model_does_not_have_is_refused(model):
    check("root ::= <nothing>")
    with pytest.raises(UsageError, match="does not take"):
        Grammar(model, "root ::= <nothing>")


def test_a_grammar_that_is_read_in_too_many_ways_is_given_up(model, monkeypatch):
    text = 'root ::= "a" root "b" | "a" root "c" | "d"'
    check(text)
    grammar = Grammar(model, text)
    [token] = model.tokenize("a")
    clock = iter(range(0, 10_000, 6))  # of processor seconds: each token seems to take 6
    grammar.accept(token)
    monkeypatch.setattr("time.thread_time", lambda: float(next(clock)))
    with pytest.raises(UsageError, match="too long"):
        grammar.accept(token)
    grammar.close()
