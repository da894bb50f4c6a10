"""JSON schemas: what of one can be held while an answer is generated, and whether an answer fits.

Takes a schema as JSON, gives one for llguidance without the keywords that it cannot hold, and
checks whole answers against all of it with jsonschema. Raises UsageError for schemas that are
wrong. Knows nothing about tokens; fetches nothing.
"""

import contextlib
import json
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any
from urllib.parse import urldefrag, urljoin

from localseek.errors import UsageError

# Of processor time: patterns and references can be written to take for ever.
MAX_SECONDS = 2.0  # for one answer
MAX_READING_S = 5.0  # for one schema; 2,000 properties take 1.5 s
MAX_SHOWN = 200  # characters of a message
# What llguidance does not know. Each only narrows what fits, so an answer can be checked after.
CHECKED_AFTER = frozenset({
    "not", "if", "then", "else", "uniqueItems", "contains", "minContains", "maxContains",
    "propertyNames", "dependentRequired", "dependentSchemas", "dependencies",
    "unevaluatedProperties", "unevaluatedItems",
})  # fmt: skip
SCHEMAS_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions"})
SCHEMAS = frozenset({
    "items", "prefixItems", "additionalItems", "additionalProperties", "allOf", "anyOf", "oneOf",
})  # fmt: skip


class _TookTooLong(Exception):
    """A check did not end in time."""


def read_schema(text: str) -> Any:
    """Give a schema's value; raises UsageError unless it is one by its own draft."""
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415  # `--help` needs none of it

    try:
        schema = json.loads(text)
    except ValueError as error:
        raise UsageError(f"The schema is not valid JSON: {error}.") from error
    except RecursionError as error:
        raise UsageError("The schema is nested too deeply.") from error
    if not isinstance(schema, dict | bool):
        raise UsageError("A JSON schema is an object, true or false.")
    try:
        with _limited(MAX_READING_S):
            _refuse_remote(schema)
            _validator_class(schema).check_schema(schema)
    except SchemaError as error:
        message = f"The schema is wrong at {error.json_path}: {_short(error.message)}."
        raise UsageError(message) from error
    except _TookTooLong as error:
        raise UsageError(f"The schema takes more than {MAX_READING_S:g} s to read.") from error
    except RecursionError as error:
        raise UsageError("The schema is nested too deeply.") from error
    return schema


def held_part(schema: Any) -> Any:
    """Give the schema without the keywords that only a whole answer can be checked for."""
    if isinstance(schema, list):
        return [held_part(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key in SCHEMAS_BY_NAME and isinstance(value, dict):
            found[key] = {name: held_part(one) for name, one in value.items()}
        elif key in SCHEMAS:
            found[key] = held_part(value)
        elif key not in CHECKED_AFTER:
            found[key] = value
    if not set(found.get("properties", ())) <= set(found.get("required", ())):
        for key in ("minProperties", "maxProperties"):  # llguidance cannot count optional ones
            found.pop(key, None)
    return found


def misfit(answer: str, schema: str) -> str:
    """Say why an answer does not fit a schema, both as JSON; nothing if it does."""
    from jsonschema.exceptions import relevance  # noqa: PLC0415  # `--help` needs none of it
    from referencing import Registry  # noqa: PLC0415
    from referencing.exceptions import Unresolvable  # noqa: PLC0415

    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return "it is not whole JSON"
    rules = json.loads(schema)
    kind = _validator_class(rules)
    try:
        with _limited(MAX_SECONDS):
            # A registry of its own: jsonschema's would fetch what it does not have.
            checks = kind(rules, registry=Registry(), format_checker=kind.FORMAT_CHECKER)
            error = max(checks.iter_errors(value), key=relevance, default=None)
    except _TookTooLong:
        return f"checking it takes more than {MAX_SECONDS:g} s"
    except Unresolvable as missing:
        return f"the schema refers to {missing.ref!r}, which it does not hold"
    except RecursionError:
        return "it is nested too deeply to check"
    except ArithmeticError:
        return "a number in it is too large to check"
    return f"at {error.json_path}: {_short(error.message)}" if error else ""


def can_go_on(answer: str) -> bool:
    """Tell whether JSON that was cut off may lack something: it is a number, or not whole."""
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return True
    return isinstance(value, int | float) and not isinstance(value, bool)


def _validator_class(schema: Any) -> Any:
    """Give jsonschema's class for a schema's draft, 2020-12 unless it names another."""
    from jsonschema.validators import Draft202012Validator, validator_for  # noqa: PLC0415

    named = schema.get("$schema") if isinstance(schema, dict) else None
    if not isinstance(named, str):
        return Draft202012Validator
    found = validator_for({"$schema": named}, default=Draft202012Validator)
    if found.META_SCHEMA["$schema"].rstrip("#") != named.rstrip("#"):
        raise UsageError(f"The schema's draft is not known: {named}.", "Leave $schema out.")
    return found


def _refuse_remote(schema: Any) -> None:
    """Raise UsageError for a reference that leads out of the schema."""
    parts = list(_objects(schema))
    root = schema.get("$id", "") if isinstance(schema, dict) else ""
    root = root if isinstance(root, str) else ""
    held = {root} | {urljoin(root, one["$id"]) for one in parts if isinstance(one.get("$id"), str)}
    for part in parts:
        for key in ("$ref", "$dynamicRef", "$recursiveRef"):
            reference = part.get(key)
            if not isinstance(reference, str) or reference.startswith("#"):
                continue
            if urldefrag(urljoin(root, reference))[0] not in {urldefrag(one)[0] for one in held}:
                raise UsageError(
                    f"The schema refers to {reference}. Nothing is fetched:",
                    "put it under $defs.",
                )


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _short(message: str) -> str:
    line = " ".join(message.split()).rstrip(".")
    return line if len(line) <= MAX_SHOWN else f"{line[:MAX_SHOWN]}…"


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise _TookTooLong after so much processor time; on the main thread, where signals come."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _TookTooLong

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGVTALRM, stop)
    earlier = signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, *earlier)
        signal.signal(signal.SIGVTALRM, handler)
