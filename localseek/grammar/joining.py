"""Parts of a schema that hold together: references looked up, allOf joined into one.

Takes schemas as JSON has them, gives plain ones. Knows nothing about grammars.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from localseek.errors import UsageError

MAX_JOINS = 1_000  # in one schema; more is a schema that refers to itself
REMARKS = ("title", "description", "default", "examples", "$comment", "$defs", "definitions",
           "$schema", "$id", "deprecated", "readOnly", "writeOnly")  # fmt: skip
LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems")
MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")


def resolve(root: Any, reference: Any, at: str) -> Any:
    """Give what a $ref leads to; raises UsageError unless that is in the schema itself."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        raise UsageError(
            f"The schema{place(at)} refers to {reference!r}, which is not in the file.",
            "Nothing is fetched: put it under $defs and refer to #/$defs/NAME.",
        )
    found = root
    for word in reference[2:].split("/") if len(reference) > 1 else []:
        key = unquote(word).replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdigit() and int(key) < len(found):
            found = found[int(key)]
        else:
            raise UsageError(f"The schema{place(at)} refers to {reference}, which is not there.")
    return found


def joined(schema: Mapping[str, Any], root: Any, at: str) -> Mapping[str, Any]:
    """Give a schema without allOf, and without a $ref that has other words beside it."""
    found = schema
    for _ in range(MAX_JOINS):
        rest = {k: v for k, v in found.items() if k not in REMARKS}
        if "allOf" in rest:
            parts = rest.pop("allOf")
            if not isinstance(parts, list):
                raise UsageError(f"The schema{place(at)} has an allOf that is not a list.")
            found = rest
            for part in parts:
                found = _both(found, part, at)
        elif "$ref" in rest and len(rest) > 1:
            target = resolve(root, rest.pop("$ref"), at)
            found = _both(rest, target, at)
        else:
            return found
    raise UsageError(f"The schema{place(at)} refers to itself without end.")


def _both(one: Mapping[str, Any], other: Any, at: str) -> dict[str, Any]:
    """Give a schema that both fit."""
    if other is True:
        return dict(one)
    if not isinstance(other, Mapping):
        raise UsageError(f"The schema{place(at)} has a part of allOf that nothing can fit.")
    found = {k: v for k, v in one.items() if k not in REMARKS}
    for word, value in other.items():
        if word in REMARKS:
            continue
        if word not in found or found[word] == value:
            found[word] = value
        else:
            found[word] = _together(word, found[word], value, at)
    _check_closed(one, other, at)
    return found


def _together(word: str, one: Any, other: Any, at: str) -> Any:
    """Give the value of a keyword that says what both values say."""
    if word == "properties" and isinstance(one, Mapping) and isinstance(other, Mapping):
        both = {k: {"allOf": [one[k], other[k]]} for k in one if k in other and one[k] != other[k]}
        return {**one, **other, **both}
    if word == "allOf" and isinstance(one, list) and isinstance(other, list):
        return [*one, *other]
    if word == "required" and isinstance(one, list) and isinstance(other, list):
        return [*one, *(name for name in other if name not in one)]
    if word == "enum" and isinstance(one, list) and isinstance(other, list):
        return [value for value in one if value in other]
    if word == "type":
        return _common_types(one, other)
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (one, other))
    if word in LEAST and numbers:
        return max(one, other)
    if word in MOST and numbers:
        return min(one, other)
    raise UsageError(
        f"The schema{place(at)} has two values of {word!r} that should both hold.",
        "Write it without allOf.",
    )


def _common_types(one: Any, other: Any) -> list[str]:
    first = one if isinstance(one, list) else [one]
    second = other if isinstance(other, list) else [other]
    common = [kind for kind in first if kind in second]
    if {"integer", "number"} <= {*first, *second} and "integer" not in common:
        common.append("integer")
    return common


def _check_closed(one: Mapping[str, Any], other: Mapping[str, Any], at: str) -> None:
    """Raise UsageError where additionalProperties of one part forbid what the other names."""
    for closed, named in ((one, other), (other, one)):
        if closed.get("additionalProperties", True) is True:
            continue
        own, foreign = closed.get("properties", {}), named.get("properties", {})
        if isinstance(own, Mapping) and isinstance(foreign, Mapping) and foreign.keys() - own:
            raise UsageError(
                f"The schema{place(at)} joins properties to a part with additionalProperties.",
                "Write it without allOf.",
            )


def place(at: str) -> str:
    """Say where in a schema something stands."""
    return f" at {at}" if at else ""
