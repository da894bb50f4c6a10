"""A second reading of GBNF, for tests: grammars as Python's regular expressions, and schemas as a
checker of values. Neither shares a line with the program.
"""

import datetime
import re
from typing import Any


def as_pattern(expression: str) -> re.Pattern[str]:
    """Give a GBNF expression without rules' names as a Python pattern."""
    found, at = "", 0
    while at < len(expression):
        char = expression[at]
        if char == '"':
            end = at + 1
            while expression[end] != '"':
                end += 2 if expression[end] == "\\" else 1
            text = re.sub(r"\\(.)", r"\1", expression[at + 1 : end])
            found += f"(?:{re.escape(text)})"
            at = end + 1
        elif char == "[":
            end = at + 1
            while expression[end] != "]":
                end += 2 if expression[end] == "\\" else 1
            found += expression[at : end + 1]
            at = end + 1
        else:
            found += "" if char in " \n" else char
            at += 1
    return re.compile(found)


def fits(value: Any, schema: Any, root: Any = None) -> bool:
    """Tell whether a value fits a schema, as far as the tests' schemas go."""
    root = schema if root is None else root
    if schema is True:
        return True
    if "$ref" in schema:
        target = root
        for word in schema["$ref"].split("/")[1:]:
            target = target[word]
        return fits(value, target, root)
    checks = [
        "const" not in schema or value == schema["const"],
        "enum" not in schema or value in schema["enum"],
        "anyOf" not in schema or any(fits(value, one, root) for one in schema["anyOf"]),
        all(fits(value, one, root) for one in schema.get("allOf", ())),
        "type" not in schema or any(
            _is(value, kind) for kind in (
                schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            )
        ),
    ]  # fmt: skip
    if isinstance(value, dict):
        checks += _object_checks(value, schema, root)
    if isinstance(value, list):
        checks += [
            schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)),
            all(fits(one, schema.get("items", True), root) for one in value),
        ]
    if isinstance(value, str):
        checks += _text_checks(value, schema)
    if isinstance(value, int | float) and not isinstance(value, bool):
        checks += [
            value >= schema.get("minimum", value), value <= schema.get("maximum", value),
            "exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"],
            "exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"],
        ]  # fmt: skip
    return all(checks)


def _object_checks(value: dict[str, Any], schema: Any, root: Any) -> list[bool]:
    named = schema.get("properties", {})
    more = schema.get("additionalProperties", True)
    others = [one for name, one in value.items() if name not in named]
    return [
        set(schema.get("required", ())) <= value.keys(),
        all(fits(value[name], one, root) for name, one in named.items() if name in value),
        not others if more is False else all(fits(one, more, root) for one in others),
    ]


def _text_checks(value: str, schema: Any) -> list[bool]:
    found = [
        schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)),
        "pattern" not in schema or re.search(schema["pattern"], value) is not None,
    ]
    if schema.get("format") == "date":
        found.append(str(datetime.date.fromisoformat(value)) == value)
    return found


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": int | float}
    return value is None if kind == "null" else isinstance(value, kinds[kind])
