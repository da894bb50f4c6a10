"""Facts kept from one list to the next: the header of a large file takes 60 ms to read.

Takes paths, gives `Facts` or what is wrong with a file. What is kept counts only while every file
that it was read from has the size, time and number (inode) that it had. The file of facts is
written whole or not at all, and is nothing that anybody would miss. Knows nothing about names.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from localseek.errors import LocalseekError, ModelError
from localseek.store.models.facts import Facts
from localseek.system import paths

VERSION = 1  # of the file; another one is not read
MOST_KEPT = 2_000  # models
MOST_BYTES = 64 << 20  # of a file that is read; a model takes about 10 kB
STALE_SECONDS = 60.0  # after which a file that is not finished was left behind
Stamp = list[int] | None  # size, time, number of a file; None: it is not there
Read = Facts | str  # a text says what is wrong


class Remembered:
    """The facts of all models that were read before; `save` keeps those read since."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Any]] = {}
        self._used: dict[str, dict[str, Any]] = {}
        self._new = False
        with contextlib.suppress(OSError, ValueError, RecursionError):
            with _file().open("rb") as file:
                found = json.loads(file.read(MOST_BYTES))
            if isinstance(found, dict) and found.get("version") == VERSION:
                kept = found.get("models")
                self._kept = kept if isinstance(kept, dict) else {}

    def known(self, path: Path) -> Facts | None:
        """Give what is kept of a file and still holds, None if nothing does."""
        entry = self._kept.get(str(path))
        if entry is None:
            return None
        try:
            if any(_stamp(name) != stamp for name, stamp in entry["files"].items()):
                return None
            found = _from_plain(entry["facts"])
        except (KeyError, TypeError, ValueError, AttributeError):  # somebody else's idea of it
            return None
        self._used[str(path)] = entry
        return found

    def read(self, path: Path, reader: Callable[[Path], Facts]) -> Read:
        """Give a file's facts, from the file itself if they are not known."""
        known = self.known(path)
        if known is not None:
            return known
        before = _stamp(str(path))
        try:
            found = reader(path)
        except ModelError as error:
            return str(error)  # and is not kept: another part may be what has to be mended
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}."
        stamps = {name: _stamp(name) for name in (*found.files, *found.missing)}
        if stamps[str(path)] == before:  # else it is being written just now
            self._used[str(path)] = {"files": stamps, "facts": _to_plain(found)}
            self._new = True
        return found

    def save(self) -> None:
        """Keep what was read, if anything is new; where that fails the next list takes longer."""
        if not self._new:
            return
        others = {name: entry for name, entry in self._kept.items() if name not in self._used}
        room = max(0, MOST_KEPT - len(self._used))
        kept = {**dict(list(others.items())[:room]), **self._used}
        with contextlib.suppress(OSError, LocalseekError):
            folder = paths.folder("cache")
            for old in folder.glob("models.json.*.partial"):  # of a list that was killed
                if time.time() - old.lstat().st_mtime > STALE_SECONDS:
                    old.unlink(missing_ok=True)
            partial = folder / f"models.json.{os.getpid()}.partial"
            try:
                descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with open(descriptor, "w", encoding="utf-8") as file:
                    json.dump({"version": VERSION, "models": kept}, file, separators=(",", ":"))
                partial.replace(_file())
                self._new = False
            finally:
                partial.unlink(missing_ok=True)


def _file() -> Path:
    return paths.home() / "cache" / "models.json"


def _stamp(name: str) -> Stamp:
    try:
        facts = os.stat(name)
    except (OSError, ValueError):
        return None
    return [facts.st_size, facts.st_mtime_ns, facts.st_ino]


def _to_plain(facts: Facts) -> dict[str, Any]:
    """Give the fields; what is in them is plain already."""
    return {field.name: getattr(facts, field.name) for field in fields(facts)}


def _from_plain(plain: dict[str, Any]) -> Facts:
    files, missing = tuple(plain["files"]), tuple(plain["missing"])
    return Facts(**{**plain, "files": files, "missing": missing})
