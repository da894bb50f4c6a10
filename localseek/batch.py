"""Many prompts from a JSON Lines file, answered into another, each answer safe once written.

Takes input rows and a function that answers one; gives a file to which every row is appended and
synced, so that a run that was stopped or killed goes on where it was. Knows nothing about
engines or terminals.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast, get_args

from localseek.errors import LocalseekError, UsageError
from localseek.options import Message, Role

HASH_DIGITS = 16
STANDARD = Path("-")  # input or output
FIRST_BYTES = b'{"index": '  # of every line that is written here


@dataclass(frozen=True, slots=True)
class Row:
    """An input row as it stands in the file; `index` counts rows, `line` lines, from 0 and 1."""

    index: int
    line: int
    raw: bytes

    @property
    def key(self) -> str:
        """Give the digest of the row's content, by which a later run knows it again."""
        return hashlib.sha256(self.raw).hexdigest()[:HASH_DIGITS]

    def parse(self) -> dict[str, Any]:
        """Give the row's object; raises UsageError that names the line."""
        try:
            value = json.loads(self.raw.decode())
        except UnicodeDecodeError as error:
            raise UsageError(f"Line {self.line} is not valid UTF-8.") from error
        except (ValueError, RecursionError) as error:
            raise UsageError(f"Line {self.line} is not valid JSON: {error}.") from error
        if not isinstance(value, dict):
            raise UsageError(f"Line {self.line} is not a JSON object.")
        return value


def read_rows(path: Path) -> list[Row]:
    """Read the input rows; blank lines don't count. Raises UsageError if there is no file."""
    try:
        content = sys.stdin.buffer.read() if path == STANDARD else path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    filled = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    return [Row(index, number, line) for index, (number, line) in enumerate(filled)]


def messages_of(row: dict[str, Any], system: str) -> tuple[Message, ...]:
    """Give what the model is shown for a row; raises UsageError if it says nothing."""
    prompt, given = row.get("prompt"), row.get("messages")
    if (prompt is None) == (given is None):
        raise UsageError("A row needs either prompt or messages.")
    if given is None:
        if not isinstance(prompt, str) or not prompt.strip():
            raise UsageError("prompt is not a string, or is empty.")
        messages = [Message("user", prompt)]
    else:
        if not isinstance(given, list) or not given:
            raise UsageError("messages is not a list, or is empty.")
        messages = [_message(entry) for entry in given]
        if messages[-1].role != "user":
            raise UsageError("The last of messages is not the user's.")
    if system and messages[0].role != "system":
        messages.insert(0, Message("system", system))
    return tuple(messages)


def _message(entry: Any) -> Message:
    if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
        raise UsageError("Each of messages needs role and content, both texts.")
    if entry.get("role") not in get_args(Role):
        raise UsageError(f"The role {entry.get('role')!r} is none of {', '.join(get_args(Role))}.")
    return Message(cast(Role, entry["role"]), entry["content"])


@dataclass(frozen=True, slots=True)
class Earlier:
    """What the output file already holds: answered rows, and how many others are dropped."""

    answered: frozenset[int]
    failed: int
    torn: bool


class Printed:
    """Answers on standard output, which no later run can go on with."""

    def __enter__(self) -> "Printed":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def resume(self, _rows: list[Row], _force: bool) -> Earlier:
        """Say that nothing was answered before."""
        return Earlier(frozenset(), 0, False)

    def append(self, entry: dict[str, Any]) -> None:
        """Write one row at once."""
        text = json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace")
        sys.stdout.write(text.decode() + "\n")
        sys.stdout.flush()


class Output:
    """The output file: locked against a second process, repaired, appended to and synced."""

    def __init__(self, path: Path) -> None:
        self.path = path = path.resolve()  # a link stays a link when the file is rewritten
        self._files: list[BinaryIO] = []  # the last is written to; all hold their locks
        self._made = not path.exists()
        if not self._made and not path.is_file():
            raise UsageError(f"{path} is not a regular file.", "Give another OUT.")
        self._open(path)

    def __enter__(self) -> "Output":
        return self

    def __exit__(self, *_: object) -> None:
        if self._made and self.path.is_file() and self.path.stat().st_size == 0:
            self.path.unlink()  # nothing was answered: nothing is left behind
        for file in self._files:
            with contextlib.suppress(OSError):  # `append` has told of a full disk already
                file.close()

    def resume(self, rows: list[Row], force: bool) -> Earlier:
        """Look at earlier answers and keep the good ones; raises UsageError if input changed.

        Failed rows, a torn last line and, with `force`, answers to other input are taken out.
        """
        keys = {row.index: row.key for row in rows}
        answered: set[int] = set()
        kept: list[bytes] = []
        failed = foreign = 0
        lines, torn = self._whole_lines()
        for line in lines:
            entry = _parse(line)
            if entry is None:
                raise UsageError(f"{self.path} is not the output of a batch.", "Give another OUT.")
            if "error" in entry:
                failed += 1
            elif keys.get(entry["index"]) != entry["key"]:
                foreign += 1
            elif entry["index"] not in answered:
                answered.add(entry["index"])
                kept.append(line)
        if foreign and not force:
            raise UsageError(
                f"{self.path} holds {foreign} answers to other input than this.",
                "Give another OUT, or --force to drop them.",
            )
        if torn or len(kept) < len(lines):
            self._rewrite(kept)
        return Earlier(frozenset(answered), failed, torn)

    def append(self, entry: dict[str, Any]) -> None:
        """Write one row and make sure that it is on the disk."""
        text = json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace")
        file = self._files[-1]
        try:
            file.write(text + b"\n")
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error

    def _whole_lines(self) -> tuple[list[bytes], bool]:
        """Give the lines with their ends, and whether a last one was torn off by a kill."""
        self._files[-1].seek(0)
        lines = self._files[-1].readlines()
        if not lines or lines[-1].endswith(b"\n"):
            return lines, False
        last = lines.pop()
        if not last.startswith(FIRST_BYTES) and not FIRST_BYTES.startswith(last):
            lines.append(last)  # no line of ours: the caller refuses the file
        return lines, True

    def _rewrite(self, lines: list[bytes]) -> None:
        """Replace the content as a whole, so that a kill leaves the old or the new file."""
        unfinished = self.path.with_name(self.path.name + ".new")
        try:
            unfinished.unlink(missing_ok=True)
            file = self._open(unfinished)
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
            unfinished.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                unfinished.unlink(missing_ok=True)
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> LocalseekError:
        return LocalseekError(
            f"{self.path} cannot be written: {error.strerror}.",
            "Make room and run the same command again: what is answered stays.",
        )

    def _open(self, path: Path) -> BinaryIO:
        try:
            file = cast(BinaryIO, path.open("a+b"))
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}.") from error
        self._files.append(file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"Another process is writing {path}.") from error
        return file


def _parse(line: bytes) -> dict[str, Any] | None:
    """Read a line of the output; None when it is torn or not ours."""
    with contextlib.suppress(ValueError):
        entry = json.loads(line)
        if isinstance(entry, dict) and type(entry.get("index")) is int and "key" in entry:
            return entry
    return None


def check_paths(source: Path, target: Path) -> None:
    """Raise UsageError if reading `source` and writing `target` can't both be meant."""
    if target == STANDARD:
        return
    same = target.exists() and source.exists() and target.samefile(source)
    if same or target.resolve() == source.resolve():
        raise UsageError("IN and OUT are the same file.", "Give another OUT.")
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent} is not a folder.", "Make it first.")
