"""A JSON schema as a grammar: whatever the grammar allows is JSON that fits the schema.

Takes the text of a schema, gives GBNF. What a grammar cannot say is refused by name, never left
out silently; where a schema leaves a choice (the order of properties, exponents of bounded
numbers) the grammar is narrower than the schema. Nothing is fetched: references lead into the
schema itself. Knows nothing about models.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from localseek.errors import UsageError
from localseek.grammar import gbnf, numbers, strings
from localseek.grammar.gbnf import literal
from localseek.grammar.joining import joined, place, resolve
from localseek.grammar.numbers import Bound, bounds_of

MAX_BYTES = 1_000_000
MAX_NESTING = 64
SPACE = "space"
PLAIN = r'[^"\\\x00-\x1F\x7F'  # a class still open; without escapes, which could spell any name
TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
# Keywords that say what fits, but not to a grammar. All that is in none of these lists is a remark.
UNSUPPORTED = frozenset({
    "not", "if", "then", "else", "patternProperties", "propertyNames", "minProperties",
    "maxProperties", "uniqueItems", "contains", "minContains", "maxContains", "multipleOf",
    "dependentRequired", "dependentSchemas", "dependencies", "unevaluatedItems",
    "unevaluatedProperties", "$dynamicRef", "$recursiveRef",
})  # fmt: skip
# A schema without a type is of the kind that its keywords are about.
KINDS = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "additionalItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}
BASE = {
    SPACE: r'(" " | "\n" [ \t]{0,20})?',
    "char": strings.CHAR,
    "string": r'"\"" char* "\""',
    "integer": numbers.integers(None, None),
    "number": '"-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "object": '"{" space (member ("," space member)*)? space "}"',
    "member": 'string ":" " "? value',
    "array": '"[" space (value ("," space value)*)? space "]"',
    "value": "object | array | string | number | boolean | null",
}


def grammar_of(text: str) -> str:
    """Give the grammar of a schema; raises UsageError that says what is wrong with it."""
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise UsageError(f"The schema is longer than {MAX_BYTES:,} bytes.")
    try:
        schema = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The schema is not valid JSON: {error}.") from error
    return grammar_of_value(schema)


def grammar_of_value(schema: Any) -> str:
    """Give the grammar of a schema that was read already; raises UsageError."""
    writer = _Writer(schema)
    try:
        root = writer.rule(schema, "", 0)
    except RecursionError as error:
        raise UsageError("The schema leads from one part to the next too often.") from error
    lines = [f"root ::= {root}", *(f"{name} ::= {BASE[name]}" for name in BASE)]
    grammar = "\n".join([*lines, *(f"{name} ::= {body}" for name, body in writer.rules.items())])
    try:
        gbnf.check(grammar)
    except UsageError as error:
        raise UsageError(f"The schema makes no usable grammar: {error.message}") from error
    return grammar


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


class _Writer:
    """Writes rules, each once; schemas that refer to themselves become rules that do."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self.rules: dict[str, str] = {}
        self._names: dict[str, str] = {}  # body → rule
        self._referred: dict[str, str] = {}  # $ref → rule, perhaps still being written

    def rule(self, schema: Any, at: str, depth: int) -> str:
        """Give the name of a rule for a schema; `at` says where it stands, for complaints."""
        if depth > MAX_NESTING:
            raise UsageError(f"The schema is nested deeper than {MAX_NESTING}.")
        if isinstance(schema, Mapping) and set(schema) == {"$ref"}:
            return self._reference(schema["$ref"], at, depth)
        return self._named(self._body(schema, at, depth))

    def _named(self, body: str) -> str:
        if body in BASE:
            return body
        if body not in self._names:
            self._names[body] = f"r{len(self._names) + len(self._referred)}"
            self.rules[self._names[body]] = body
        return self._names[body]

    def _reference(self, reference: Any, at: str, depth: int) -> str:
        target = resolve(self.root, reference, at)
        if reference not in self._referred:
            name = f"r{len(self._names) + len(self._referred)}"
            self._referred[reference] = name
            self.rules[name] = self._body(target, reference, depth)
        return self._referred[reference]

    def _body(self, schema: Any, at: str, depth: int) -> str:
        """Give the expression for a schema."""
        if schema is True or schema == {}:
            return "value"
        if not isinstance(schema, Mapping):
            raise UsageError(f"The schema{place(at)} is {_short(schema)}, which nothing can fit.")
        schema = joined(schema, self.root, at)
        for word in UNSUPPORTED & schema.keys():
            if schema[word] not in (False, None):
                raise UsageError(
                    f"The schema{place(at)} has {word!r}, which a grammar cannot keep.",
                    "Take it out and check the answers for it.",
                )
        for word in ("anyOf", "oneOf"):
            if word in schema:
                rest = {k: v for k, v in schema.items() if k != word}
                return self._union(schema[word], rest, f"{at}/{word}", depth)
        if "$ref" in schema:
            return self._reference(schema["$ref"], at, depth)
        if "const" in schema:
            return _constants([schema["const"]], at)
        if "enum" in schema:
            return _constants(schema["enum"], at, _types(schema, at) if "type" in schema else ())
        kinds = _types(schema, at)
        return " | ".join(self._of_type(kind, schema, at, depth) for kind in kinds) or "value"

    def _union(self, parts: Any, rest: dict[str, Any], at: str, depth: int) -> str:
        if not isinstance(parts, list) or not parts:
            raise UsageError(f"The schema{place(at)} is not a list, or is empty.")
        rest = {k: v for k, v in rest.items() if k not in ("$defs", "definitions")}
        names = []
        for number, part in enumerate(parts):
            whole = {"allOf": [part, rest]} if _says_something(rest) else part
            names.append(self.rule(whole, f"{at}/{number}", depth + 1))
        return " | ".join(dict.fromkeys(names))

    def _of_type(self, kind: str, schema: Mapping[str, Any], at: str, depth: int) -> str:
        if kind == "object":
            return self._object(schema, at, depth)
        if kind == "array":
            return self._array(schema, at, depth)
        if kind == "string":
            return _string(schema, at)
        if kind in ("integer", "number"):
            return _number(kind, schema, at)
        return kind

    def _object(self, schema: Mapping[str, Any], at: str, depth: int) -> str:
        """Write properties in their order, those that are not required perhaps left out."""
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        if not isinstance(properties, Mapping):
            raise UsageError(f"The schema{place(at)} has properties that are not an object.")
        if not isinstance(required, list) or not all(isinstance(one, str) for one in required):
            raise UsageError(f"The schema{place(at)} has no list of names in required.")
        # What is not named may come if the schema says so; all may, if it names nothing.
        more = schema.get("additionalProperties", not properties and not required)
        if not properties and not required and more is True:
            return "object"
        members = []
        wanted = {**dict.fromkeys(properties), **dict.fromkeys(required)}
        for name in wanted:
            inner = properties.get(name, more if more is not False else True)
            value = self.rule(inner, f"{at}/properties/{name}", depth + 1)
            written = literal(f"{_json(name)}:")
            members.append((self._named(f'{written} " "? {value}'), name in required))
        rest, first = "", []
        if more is not False:
            value = self.rule(more, f"{at}/additionalProperties", depth + 1)
            key = self._named(f'"\\"" ({self._other_than(list(wanted))}) "\\""')
            member = self._named(f'{key} ":" " "? {value}')
            rest = self._named(f'("," {SPACE} {member})*')
            first = [f"{member} {rest}"]
        # From the last to the first: what may follow once something stands before the comma.
        for member, needed in reversed(members):
            first = [f"{member} {rest}", *([] if needed else first)]
            rest = self._named(f'("," {SPACE} {member}){"" if needed else "?"} {rest}'.rstrip())
        optional = "" if any(needed for _, needed in members) else "?"
        inside = f"({' | '.join(first)}){optional} {SPACE}" if first else ""
        return f'"{{" {SPACE} {inside} "}}"'

    def _other_than(self, names: list[str]) -> str:
        """Give an expression for a string's characters that make none of the names."""
        if not names:
            return f"{PLAIN}]*"
        heads: dict[str, list[str]] = {}
        for name in names:
            if name:
                heads.setdefault(name[0], []).append(name[1:])
        others = "".join(f"\\U{ord(head):08X}" for head in heads)
        choices = [f"{PLAIN}{others}] {PLAIN}]*", *([] if "" in names else ['""'])]
        for head, tails in heads.items():
            if head not in '"\\' and ord(head) > 31:
                choices.append(f"{literal(head)} {self._named(self._other_than(tails))}")
        return " | ".join(choices)

    def _array(self, schema: Mapping[str, Any], at: str, depth: int) -> str:
        low, high = _counts(schema, "minItems", "maxItems", at)
        listed = schema.get("prefixItems", [])
        items = schema.get("items", not listed)
        if isinstance(items, list):  # as it was before 2020
            listed, items = items, schema.get("additionalItems", False)
        if not isinstance(listed, list):
            raise UsageError(f"The schema{place(at)} has prefixItems that are not a list.")
        listed = listed if high is None else listed[:high]
        first = [
            self.rule(item, f"{at}/prefixItems/{number}", depth + 1)
            for number, item in enumerate(listed)
        ]
        fixed = f' "," {SPACE} '.join(first)
        low, high = max(low - len(first), 0), None if high is None else high - len(first)
        if items is False or high == 0:
            if low:
                raise UsageError(f"The schema{place(at)} wants more items than it describes.")
            return f'"[" {SPACE} {fixed} {SPACE} "]"'
        item = self.rule(items, f"{at}/items", depth + 1)
        following = f'("," {SPACE} {item})'
        if first:
            return f'"[" {SPACE} {fixed} {_repeated(following, low, high, at)} {SPACE} "]"'
        rest = _repeated(following, max(low - 1, 0), None if high is None else high - 1, at)
        return f'"[" {SPACE} ({item} {rest}){"" if low else "?"} {SPACE} "]"'


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)[:40]


def _says_something(schema: Mapping[str, Any]) -> bool:
    words = {"$ref", "allOf", "anyOf", "oneOf", "type", "const", "enum"}
    return bool(schema.keys() & words.union(*KINDS.values(), UNSUPPORTED))


def _types(schema: Mapping[str, Any], at: str) -> tuple[str, ...]:
    """Give the types that fit: as told, or those that the keywords are about."""
    given = schema.get("type")
    if given is None:
        return tuple(kind for kind, words in KINDS.items() if schema.keys() & set(words))
    listed = given if isinstance(given, list) else [given]
    for one in listed:
        if one not in TYPES:
            raise UsageError(f"The schema{place(at)} has the type {_short(one)}.",
                             f"The types are {', '.join(TYPES)}.")  # fmt: skip
    if not listed:
        raise UsageError(f"The schema{place(at)} has no type that fits.")
    return tuple(dict.fromkeys(listed))


def _json(value: Any) -> str:
    """Write a value as JSON, in letters where they are text at all."""
    text = json.dumps(value, ensure_ascii=False)
    return json.dumps(value) if re.search("[\ud800-\udfff]", text) else text


def _constants(values: Any, at: str, kinds: tuple[str, ...] = ()) -> str:
    if not isinstance(values, list) or not values:
        raise UsageError(f"The schema{place(at)} has an enum that is not a list, or is empty.")
    fitting = [value for value in values if not kinds or _kind(value) & set(kinds)]
    if not fitting:
        raise UsageError(f"The schema{place(at)} has an enum of which nothing fits its type.")
    return " | ".join(dict.fromkeys(literal(_json(value)) for value in fitting))


def _kind(value: Any) -> set[str]:
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return {"integer", "number"}
    by_type = {str: "string", float: "number", list: "array", dict: "object"}
    return {by_type.get(type(value), "null")}


def _counts(schema: Mapping[str, Any], least: str, most: str, at: str) -> tuple[int, int | None]:
    found = [schema.get(least, 0), schema.get(most)]
    for word, value in zip((least, most), found, strict=True):
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if value is not None and (not whole or isinstance(value, bool) or value < 0):
            raise UsageError(f"The schema{place(at)} has {_short(value)} as {word}.")
    low, high = int(found[0]), None if found[1] is None else int(found[1])
    if high is not None and high < low:
        raise UsageError(f"The schema{place(at)} wants {most} {high} and {least} {low}.")
    return low, high


def _repeated(item: str, low: int, high: int | None, at: str) -> str:
    try:
        return strings.repeat(item, low, high)
    except ValueError as error:
        raise UsageError(f"The schema{place(at)} asks for {error}.") from error


def _string(schema: Mapping[str, Any], at: str) -> str:
    low, high = _counts(schema, "minLength", "maxLength", at)
    form = schema.get("format")
    known = strings.FORMATS.get(form) if isinstance(form, str) else None
    told = [word for word in ("pattern", "minLength", "maxLength") if word in schema]
    if ("pattern" in told or known) and len(told) > (0 if known else 1):
        words = " and ".join([*told, *(["format"] if known else [])])
        raise UsageError(f"The schema{place(at)} has {words} together.", "Keep one of them.")
    if known:
        return f'"\\"" {known} "\\""'
    if "pattern" in schema:
        if not isinstance(schema["pattern"], str):
            raise UsageError(f"The schema{place(at)} has a pattern that is not a string.")
        return strings.pattern(schema["pattern"])
    if not low and high is None:
        return "string"
    return f'"\\"" {_repeated("char", low, high, at)} "\\""'


def _number(kind: str, schema: Mapping[str, Any], at: str) -> str:
    try:
        low, high = bounds_of(schema)
    except ValueError as error:
        raise UsageError(f"The schema{place(at)} has {error}.") from error
    if low is None and high is None:
        return kind
    if kind == "number":
        found = numbers.numbers(low, high)
    else:
        found = numbers.integers(_whole(low, 1), _whole(high, -1))
    if not found:
        raise UsageError(f"The schema{place(at)} leaves no number between its bounds.")
    return f"({found})"


def _whole(bound: Bound | None, inwards: int) -> int | None:
    """Give the first whole number that a bound leaves, going up (1) or down (-1)."""
    if bound is None:
        return None
    rounded = bound.value.to_integral_value("ROUND_CEILING" if inwards > 0 else "ROUND_FLOOR")
    return int(rounded) + (inwards if bound.open and rounded == bound.value else 0)
