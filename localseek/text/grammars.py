"""The form of an answer as llguidance takes it: one grammar from a JSON schema, GBNF or Lark.

Takes what the user wrote, gives llguidance's own JSON; raises UsageError of one line for what it
refuses. The command line asks before a model is loaded, the engine again when it answers. Knows
nothing about a model's tokens.
"""

import json
import re
from typing import TYPE_CHECKING, Any

from localseek.errors import UsageError
from localseek.text.gbnf import lark_of
from localseek.text.schema import held_part, read_schema

if TYPE_CHECKING:
    from llguidance import LLParserLimits

LARK = re.compile(r"^\s*(?:%llguidance\b|\??start\s*(?:\[[^\]]*\])?\s*:(?!:=))", re.MULTILINE)
# White space that may come before the first character: models put some after their reasoning.
# Where only one text can follow, no_forcing allows every way to write it, not the usual one alone.
LEAD = '%llguidance {"no_forcing": true}\nstart: space @answer\nspace: /[ \\t\\n]/{0,8}\n'
NO_WAY_ON = "NoExtensionBias"  # llguidance's word where no token fits
SPACE = r"( |\n[ \t]{0,20})"  # between the parts of JSON: a model may like more of it too well
MAX_SCHEMA, MAX_GRAMMAR = 1_000_000, 200_000  # characters; what takes a second or two to read
MAX_LEXER_STATES = 50_000  # of 1 to 2 kB each, as llguidance says
MAX_ITEMS = 20_000  # ways on from one place; 2,000 optional properties make 8,007
MAX_STEP_ITEMS = 200_000  # in one mask, at 20,000 a millisecond


def limits() -> "LLParserLimits":
    """Give what llguidance may spend on a grammar and on a token of it."""
    from llguidance import LLParserLimits  # noqa: PLC0415  # `--help` needs none of it

    return LLParserLimits(
        max_lexer_states=MAX_LEXER_STATES, max_items_in_row=MAX_ITEMS,
        step_max_items=MAX_STEP_ITEMS, verbose_errors=False,
    )  # fmt: skip


def compiled(schema: str, grammar: str) -> str:
    """Give llguidance's grammar for a schema that was checked or, without one, for a grammar."""
    form = _form(schema, grammar)
    return json.dumps({"grammars": [{"lark_grammar": LEAD}, {"name": "answer", **form}]})


def _form(schema: str, grammar: str) -> dict[str, Any]:
    return _from_schema(schema) if schema else {"lark_grammar": _lark(grammar)}


def check(schema: str = "", grammar: str = "") -> None:
    """Raise UsageError unless llguidance takes the schema or the grammar."""
    from llguidance import LLMatcher  # noqa: PLC0415  # `--help` needs none of it

    what, text = ("schema", schema) if schema else ("grammar", grammar)
    most = MAX_SCHEMA if schema else MAX_GRAMMAR
    if len(text) > most:
        raise UsageError(f"The {what} is longer than {most:,} characters.")
    if schema:
        read_schema(schema)
    failed, messages = LLMatcher.validate_grammar_with_warnings(
        compiled(schema, grammar), limits=limits()
    )
    # A warning of a schema is about oneOf, which is checked in the whole answer.
    if failed or (messages and not schema):
        if messages[0].startswith("no tokenizer"):
            raise UsageError("The grammar names tokens in angle brackets: write their text.")
        raise UsageError(f"The {what} is not taken: {readable(messages[0])}.")
    if grammar or '"$ref"' in schema:  # else nothing refers to itself
        _check_begins(what, _form(schema, grammar))


def _check_begins(what: str, form: dict[str, Any]) -> None:
    """Raise UsageError where no first character fits, as in `root ::= root`."""
    from llguidance import LLMatcher, LLTokenizer  # noqa: PLC0415  # `--help` needs none of it

    grammars = [{"lark_grammar": "start: @answer"}, {"name": "answer", **form}]
    text = json.dumps({"grammars": grammars})
    matcher = LLMatcher(LLTokenizer("byte"), text, log_level=0, limits=limits())
    matcher.compute_bitmask()
    if matcher.is_error() and NO_WAY_ON in matcher.get_error():
        raise UsageError(
            f"No answer fits the {what}: it refers to itself without an end.",
            "Give it a way that ends.",
        )


def readable(message: str) -> str:
    """Give llguidance's words on one line, without the drawing that points at a place."""
    message = re.sub(r"<(?:non-verbose|backtrace).*", "", message, flags=re.DOTALL)
    lines = [line.strip() for line in message.splitlines()]
    kept = [line for line in lines if line.strip("^ ") and not re.match(r"\d+ \|", line)]
    return " ".join(line.removeprefix("error: ") for line in kept).rstrip(".")[:300]


def _from_schema(schema: str) -> dict[str, Any]:
    held = held_part(json.loads(schema))
    if held is True:
        held = {}
    if held is False:
        raise UsageError("No answer fits the schema: it is false.")
    options = {"coerce_one_of": True, "lenient": False, "whitespace_pattern": SPACE}
    return {"json_schema": {**held, "x-guidance": options}}


def _lark(grammar: str) -> str:
    """Give a grammar as Lark: as it is, or rewritten from GBNF."""
    return grammar if LARK.search(grammar) else lark_of(grammar)
