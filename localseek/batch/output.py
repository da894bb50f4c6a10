"""The output of a batch: every row appended whole, so that a run goes on where it was stopped.

Takes rows of input and what is written for each, gives which of them an earlier run has answered.
Knows nothing about engines or terminals.
"""

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from localseek.batch.rows import STANDARD, Row
from localseek.errors import LocalseekError, UsageError
from localseek.system import private

SYNC_ROWS, SYNC_S = 16, 0.5  # so much at most is written, but not yet safe from a power cut
NAMED = 5  # changed rows that an error names
FIRST_BYTES = b'{"index": '  # of every line that is written here


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

    def resume(self, _rows: list[Row], _restart: bool) -> Earlier:
        """Say that nothing was answered before."""
        return Earlier(frozenset(), 0, False)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write one row at once."""
        text = json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace")
        sys.stdout.write(text.decode() + "\n")
        sys.stdout.flush()


class Output:
    """The output file: locked against a second process, repaired, appended to and synced.

    Rows are written one by one and synced in small groups.
    """

    def __init__(self, path: Path) -> None:
        self.path = path = path.resolve()  # a link stays a link when the file is rewritten
        self._files: list[BinaryIO] = []  # the last is written to; all hold their locks
        self._made = not path.exists()
        self._unsynced, self._synced_s = 0, 0.0
        if not self._made and not path.is_file():
            raise UsageError(f"{path} is not a regular file.", "Give another OUT.")
        self._open(path)

    def __enter__(self) -> "Output":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(LocalseekError):  # `append` has told of a full disk already
            self._sync()
        if self._made and self.path.is_file() and self.path.stat().st_size == 0:
            self.path.unlink()  # nothing was answered: nothing is left behind
        for file in self._files:
            with contextlib.suppress(OSError):  # `append` has told of a full disk already
                file.close()

    def resume(self, rows: list[Row], restart: bool) -> Earlier:
        """Look at earlier answers and keep the good ones; raises UsageError if input changed.

        Failed rows and a torn last line are taken out; with `restart` all.
        """
        keys = {row.index: row.key for row in rows}
        answered: set[int] = set()
        kept: list[bytes] = []
        failed, foreign = 0, list[int]()
        lines, torn = self._whole_lines()
        for line in lines:
            entry = _parse(line)
            if entry is None:
                raise UsageError(f"{self.path} is not the output of a batch.", "Give another OUT.")
            if entry.get("error"):
                failed += 1
            elif keys.get(entry["index"]) != entry["key"]:
                foreign.append(entry["index"])
            elif entry["index"] not in answered:
                answered.add(entry["index"])
                kept.append(line)
        if restart:
            self._rewrite([])
            return Earlier(frozenset(), 0, False)
        if foreign:
            raise UsageError(
                f"{self.path} holds {_counted(len(foreign), 'answer')} to other input than this: "
                f"{_numbers(foreign)} changed.",
                "Give another OUT, or --restart to begin again.",
            )
        if torn or len(kept) < len(lines):
            self._rewrite(kept)
        return Earlier(frozenset(answered), failed, torn)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write one row, whole; it is on the disk soon after."""
        text = json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace")
        file = self._files[-1]
        try:
            file.write(text + b"\n")
            file.flush()
        except OSError as error:
            raise self._unwritable(error) from error
        self._unsynced += 1
        if self._unsynced >= SYNC_ROWS or time.monotonic() - self._synced_s >= SYNC_S:
            self._sync()

    def _sync(self) -> None:
        try:
            os.fsync(self._files[-1].fileno())
        except OSError as error:
            raise self._unwritable(error) from error
        self._unsynced, self._synced_s = 0, time.monotonic()

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
            private.make_like(self.path, unfinished)
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


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _numbers(indices: list[int]) -> str:
    """Name rows by their number in the input, from 1."""
    named = ", ".join(str(index + 1) for index in sorted(indices)[:NAMED])
    more = len(indices) - NAMED
    return f"row{'s' * (len(indices) > 1)} {named}" + (f" and {more} more" if more > 0 else "")


def check_paths(source: Path, target: Path) -> None:
    """Raise UsageError if reading `source` and writing `target` can't both be meant."""
    if target == STANDARD:
        return
    same = target.exists() and source.exists() and target.samefile(source)
    if same or target.resolve() == source.resolve():
        raise UsageError("IN and OUT are the same file.", "Give another OUT.")
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent} is not a folder.", "Make it first.")
