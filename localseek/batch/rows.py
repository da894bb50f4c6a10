"""The rows of a batch, whatever file they come in: JSON Lines, text, CSV or TSV.

Takes a file's bytes, gives rows whose `fields` are named as in our own JSON Lines (`prompt` or
`messages`, `id`, `system`, options). A row that cannot be read says why; the others are not
affected. Knows nothing about engines or answers.
"""

import csv
import difflib
import hashlib
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from localseek.batch import openai_rows
from localseek.errors import UsageError
from localseek.options import Request, Sampling

Kind = Literal["jsonl", "text", "csv", "tsv"]
KINDS: tuple[Kind, ...] = get_args(Kind)
BY_SUFFIX: dict[str, Kind] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".txt": "text", ".md": "text",
    ".csv": "csv", ".tsv": "tsv",
}  # fmt: skip
STANDARD = Path("-")  # standard input
HASH_DIGITS = 16
COLUMNS = ("id", "prompt", "system")  # of CSV and TSV that mean something; others fill a template
MAX_CELL = 16 << 20  # characters; Python's own limit is 128 kB, less than a long document
OPTIONS = frozenset(one.name for kind in (Sampling, Request) for one in fields(kind))
LIKE = 0.85  # of difflib's ratio: a misspelt option, not a column with a name of its own
PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Row:
    """An input row. `index` counts rows from 0; `key` is its content's digest, by which a later
    run knows it again; `problem` says why it cannot be answered. `openai`: it is a row of an OpenAI
    batch file, and is answered as one.
    """

    index: int
    key: str
    fields: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    openai: bool = False

    def check(self) -> None:
        """Raise UsageError if the row could not be read."""
        if self.problem:
            raise UsageError(self.problem)


def read_rows(path: Path, kind: Kind | None = None, template: str = "") -> list[Row]:
    """Read all rows; blank lines don't count. Raises UsageError for what is no such file.

    `kind` is told by the file's name or its first line unless it is given. `template` is a prompt
    with `{column}` where the row's value goes; `{{` and `}}` are braces.
    """
    try:
        content = sys.stdin.buffer.read() if path == STANDARD else path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    content = content.removeprefix(b"\xef\xbb\xbf")
    kind = kind or BY_SUFFIX.get(path.suffix.lower()) or _sniffed(content)
    if kind in ("csv", "tsv"):
        return list(_table_rows(path, content, "," if kind == "csv" else "\t", template))
    lines = ((at, line.strip()) for at, line in enumerate(content.split(b"\n"), 1))
    parse = _json_row if kind == "jsonl" else _text_row
    return [
        parse(index, number, line, template)
        for index, (number, line) in enumerate((at, line) for at, line in lines if line)
    ]


def _sniffed(content: bytes) -> Kind:
    """Tell JSON Lines from plain text by the first line that is not blank."""
    first = content.lstrip().split(b"\n", 1)[0]
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return "jsonl" if first.startswith(b"{") else "text"
    return "jsonl" if isinstance(value, dict | str) else "text"


def _key(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(part for part in parts if part)).hexdigest()[:HASH_DIGITS]


def _text_row(index: int, number: int, line: bytes, template: str) -> Row:
    key = _key(line, template.encode())
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return Row(index, key, problem=f"Line {number} is not valid UTF-8.")
    return _filled(index, key, {"prompt": text, "text": text}, template)


def _json_row(index: int, number: int, line: bytes, template: str) -> Row:
    key = _key(line, template.encode())
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError:
        return Row(index, key, problem=f"Line {number} is not valid UTF-8.")
    except (ValueError, RecursionError) as error:
        return Row(index, key, problem=f"Line {number} is not valid JSON: {error}.")
    if isinstance(value, str):
        return _filled(index, key, {"prompt": value, "text": value}, template)
    if not isinstance(value, dict):
        return Row(index, key, problem=f"Line {number} is neither a JSON object nor a string.")
    if openai_rows.is_one(value):
        try:
            return Row(index, key, openai_rows.fields_of(value), openai=True)
        except UsageError as error:
            head = {"id": value["custom_id"]}
            return Row(index, key, head, str(error), openai=True)
    return _filled(index, key, value, template)


def _table_rows(path: Path, content: bytes, delimiter: str, template: str) -> Iterator[Row]:
    """Give the rows of a table whose first line names its columns."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not valid UTF-8.", "Save it as UTF-8.") from error
    csv.field_size_limit(MAX_CELL)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = [name for name in reader.fieldnames or () if name]
        named = set(_places(template)) if template else {"prompt"}
        if missing := sorted(named - set(columns)):
            known = ", ".join(columns) or "none"
            raise UsageError(
                f"{path} has no column {missing[0]!r}; its columns: {known}.",
                'Name columns in --template "Summarize: {column}".',
            )
        filled = (row for row in reader if any(row.values()))
        for index, row in enumerate(filled):
            key = _key(json.dumps(row, ensure_ascii=False).encode(), template.encode())
            if None in row or None in row.values():
                yield Row(index, key, problem=f"Line {reader.line_num} has not one cell a column.")
                continue
            fields = {name: row[name] for name in COLUMNS if row.get(name)}
            yield _filled(index, key, {**fields, **_cells(row)} if template else fields, template)
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: {error}.") from error


def _cells(row: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in row.items() if name not in COLUMNS}


def _places(template: str) -> list[str]:
    """Give the columns that a template names; raises UsageError for one it cannot read."""
    found = [match[1] for match in PLACE.finditer(template) if match[1] is not None]
    rest = PLACE.sub("", template)
    if "{" in rest or "}" in rest or "" in found:
        raise UsageError(
            f"--template {template!r} has a brace that is not part of {{column}}.",
            "Write {{ and }} for braces.",
        )
    return found


def check_template(template: str) -> None:
    """Raise UsageError unless a template can be read and names a column."""
    if template and not _places(template):
        raise UsageError(
            f"--template {template!r} names no column.", 'Write it like "Summarize: {text}".'
        )


def _filled(index: int, key: str, fields: dict[str, Any], template: str) -> Row:
    """Give a row with its prompt made from a template if there is one."""
    if problem := _misspelt(fields):
        return Row(index, key, fields, problem)
    if not template:
        known = {name: value for name, value in fields.items() if name != "text"}
        return Row(index, key, known)
    names = _places(template)
    for name in names:
        if name not in fields:
            return Row(index, key, fields, f"The row has no {name!r}, which --template names.")
        if isinstance(fields[name], dict | list) or fields[name] is None:
            return Row(index, key, fields, f"{name!r} is not a text or a number.")
    braces = {"{{": "{", "}}": "}"}
    prompt = PLACE.sub(lambda match: braces.get(match[0]) or str(fields[match[1]]), template)
    kept = {name: value for name, value in fields.items() if name not in {*names, "text"}}
    return Row(index, key, {**kept, "prompt": prompt})


def _misspelt(names: Iterable[str]) -> str:
    """Say which name is almost that of an option; others are the user's own."""
    for name in names:
        near = difflib.get_close_matches(name, OPTIONS - {name}, n=1, cutoff=LIKE)
        if near and name not in OPTIONS:
            return f"There is no option {name!r}. Did you mean {near[0]}?"
    return ""
