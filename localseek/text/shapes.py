"""What the user wants of the answer's form: a JSON schema, a grammar, biases for tokens.

Takes files' names, option texts and fields of batch rows, gives checked values. Raises UsageError,
or argparse's own error for options. Knows nothing about models: what token a text is, only the
engine can tell.
"""

import argparse
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from localseek.errors import ModelError, UsageError

MAX_BYTES = 10_000_000  # of a file that is read as a schema or grammar at all
Read = TypeVar("Read")
Bias = tuple[int | str, float | None]  # a token by number or text; None: never


def schema_file(name: str) -> str:
    """Read a file with a JSON schema, checked."""
    return _from_file(name, lambda text: _checked("schema", text))


def grammar_file(name: str) -> str:
    """Read a file with a grammar, GBNF or Lark, checked."""
    return _from_file(name, lambda text: _checked("grammar", text))


def template_file(name: str) -> str:
    """Read a file with a chat template, checked."""
    from localseek.text.template import ChatTemplate  # noqa: PLC0415  # `--help` needs none of it

    def checked(text: str) -> str:
        if not text.strip():
            raise UsageError("it is empty.")
        try:
            return ChatTemplate(text, "", "").source
        except ModelError as error:
            raise UsageError(error.message) from error

    return _from_file(name, checked)


def _checked(kind: str, text: str) -> str:
    """Give the text of a schema or a grammar if it can be used; raises UsageError."""
    from localseek.text.grammars import check  # noqa: PLC0415  # `--help` needs none of it

    if not text.strip():
        raise UsageError("it is empty.")
    check(**{kind: text})
    return text


def _from_file(name: str, make: Callable[[str], Read]) -> Read:
    try:
        with Path(name).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        return make(content.decode("utf-8-sig"))
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise argparse.ArgumentTypeError(f"{name} is not valid UTF-8") from error
    except UsageError as error:
        raise argparse.ArgumentTypeError(f"{name}: {str(error).rstrip('.')}") from error


def bias(text: str) -> Bias:
    """Read TOKEN=BIAS; a token in double quotes is a text even if it looks like a number."""
    token, equals, value = text.rpartition("=")
    if not equals or not token:
        message = f"{text!r} is not TOKEN=BIAS, such as 1234=-5 or Sure=false"
        raise argparse.ArgumentTypeError(message)
    try:
        return _token(token), None if value.strip() == "false" else _amount(float(value))
    except ValueError as error:
        message = f"{value!r} in {text!r} is neither a number nor false"
        raise argparse.ArgumentTypeError(message) from error


def _token(text: str) -> int | str:
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return int(text)
    if len(text) > 2 and text[0] == text[-1] == '"':
        try:
            return str(json.loads(text))
        except ValueError:
            return text
    return text


def _amount(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("no finite number")
    return float(value)


def of_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Give the options that a batch row's schema, grammar and logit_bias set."""
    found: dict[str, Any] = {}
    schema, grammar, biases = row.get("schema"), row.get("grammar"), row.get("logit_bias")
    if schema is not None and grammar is not None:
        raise UsageError("There is schema or grammar, not both.")
    if schema is not None:
        try:
            text = json.dumps(schema)
        except RecursionError as error:
            raise UsageError("The schema is nested too deeply.") from error
        found |= {"schema": _checked("schema", text), "grammar": ""}
    if grammar is not None:
        if not isinstance(grammar, str):
            raise UsageError("grammar is not a string.")
        found |= {"grammar": _checked("grammar", grammar), "schema": ""}
    if biases is not None:
        if not isinstance(biases, dict) or "" in biases:
            raise UsageError("logit_bias is not an object of tokens and numbers.")
        try:
            found["logit_bias"] = tuple(
                (_token(token), None if value is False else _amount(value))
                for token, value in biases.items()
            )
        except (ValueError, OverflowError) as error:
            raise UsageError("A value of logit_bias is neither a number nor false.") from error
    return found
