"""What `doctor --offline` prints: every attempt to get out, in every process, and what it met.

This process reaches out as Python code would, the engine also as native code could. Exits with 1
if anything got through.
"""

import contextlib
import json
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from localseek.airgap.attempts import Attempt, by_python
from localseek.api import looking
from localseek.errors import LocalseekError
from localseek.system import paths
from localseek.terminal.messages import has_colours, note, one_line

HERE, NATIVE, PYTHON = "localseek", "engine", "engine, Python"
GREEN, RED, PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Row:
    """An attempt and the process that made it."""

    process: str
    attempt: Attempt


def prove(remote: tuple[str, ...], as_json: bool) -> int:
    """Let every process try, print what it met; give the exit status."""
    rows = [Row(HERE, one) for one in by_python()]
    with _listener() as name, _secret() as secret:
        found = looking.prove_offline(remote, name, secret)
    rows += [Row(NATIVE, Attempt(**_fields(one))) for one in found["native"]]
    rows += [Row(PYTHON, Attempt(**_fields(one))) for one in found["by_python"]]
    through = [row for row in rows if row.attempt.through]
    if as_json:
        listed = [{"process": one.process, **asdict(one.attempt)} for one in rows]
        print(json.dumps({"ok": not through, "layers": found["layers"], "attempts": listed}))
        return 1 if through else 0
    _print(rows)
    for name, words in found["layers"].items():
        if words != "holds":
            note(f"The engine's layer {name} does not hold: {one_line(words)}.")
    if through:
        count = f"{len(through)} of {len(rows)} attempts"
        note(f"{count} got through: docs/privacy.md says what holds where.")
        return 1
    print(f"None of {len(rows)} attempts got out.")
    return 0


def _print(rows: list[Row]) -> None:
    wide = max(len(row.process) for row in rows), max(len(row.attempt.what) for row in rows)
    coloured = has_colours(sys.stdout)
    for row in rows:
        one = row.attempt
        words = f"stopped by {one.by}" if one.by else "got through"
        if one.by.startswith("could"):
            words = one.by
        if coloured:
            words = f"{RED if one.through else GREEN}{words}{PLAIN}"
        why = f" ({one_line(one.words)})" if one.words else ""
        print(f"{row.process:{wide[0]}}  {one.what:{wide[1]}}  {words}{why}")


@contextlib.contextmanager
def _listener() -> Iterator[str]:
    """Listen at an abstract Unix socket, where there are any; give its name."""
    name = f"localseek-proof-{secrets.token_hex(8)}"
    if sys.platform != "linux":
        yield name
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.bind(f"\0{name}")
        one.listen()
        yield name


@contextlib.contextmanager
def _secret() -> Iterator[Path]:
    """Make a file beside the history that is nobody's business; it is gone afterwards."""
    try:
        with tempfile.NamedTemporaryFile(dir=paths.folder("history"), prefix="proof-") as file:
            yield Path(file.name)
    except OSError as error:
        raise LocalseekError(f"{paths.home()} cannot be written to: {error.strerror}.") from error


def _fields(one: dict[str, Any]) -> dict[str, str]:
    return {name: str(one[name]) for name in ("what", "by", "words")}
