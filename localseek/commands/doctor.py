"""`localseek doctor`: what works on this machine, and how to mend what doesn't.

Each line is a check: ok, a warning with a remedy, or missing when nothing runs without it.
"""

import argparse
import importlib.metadata
import json
import platform
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from localseek import __version__, nano
from localseek.errors import LocalseekError
from localseek.system import hardware, paths
from localseek.system.sizes import rough_size
from localseek.terminal import settings
from localseek.terminal.messages import has_colours, one_line, prepare_streams, width_of

EXAMPLES = """examples:
  localseek doctor
  localseek doctor --offline      reach out in every way, and see what stops it
  localseek doctor --json | jq '.checks[] | select(.state != "ok")'
"""
State = Literal["ok", "warn", "missing"]
COLOURS = {"ok": "\x1b[32m", "warn": "\x1b[33m", "missing": "\x1b[31m"}
LITTLE_MEMORY = 4 * 10**9  # bytes; a 4-bit model of 3 B parameters and its cache
LITTLE_DISK = 5 * 10**9  # bytes; the smallest useful model
NARROW = 60  # columns below which the app's lines break
LEAST_VALUE = 20  # columns; in less, lists are left to the terminal
REBUILD = "uv sync --reinstall-package llama-cpp-python"
OPEN = ("reachable", "refused", "switched off")  # how facts begin that tell of something not held
LACKS = {  # facts of the engine that should not be "no", and how to mend them
    "rpc": f"Rebuild llama.cpp with -DGGML_RPC=ON, as pyproject.toml says: {REBUILD}",
    "mtp": f"This build drafts no tokens; make the one that localseek is locked to: {REBUILD}",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    value: str
    remedy: str = ""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--offline", action="store_true",
        help="prove that nothing gets out: try it in every process, show what stopped each try")
    parser.add_argument("--remote", action="append", default=[],
        type=settings.worker_address, metavar="HOST:PORT",
        help="look at the worker there too (repeatable)")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Look at everything and print it."""
    prepare_streams()
    if arguments.offline:
        from localseek.commands.parts.offline_page import prove

        return prove(tuple(arguments.remote), as_json=arguments.json)
    checks = [*_versions(), *_engine(arguments.remote), *_machine(), *_places(), *_terminal()]
    healthy = all(check.state != "missing" for check in checks)
    if arguments.json:
        print(json.dumps({"ok": healthy, "checks": [asdict(check) for check in checks]}))
    else:
        width = max(len(check.name) for check in checks)
        columns = width_of(sys.stdout)
        for check in checks:
            print(_line(check, width, columns))
    return 0 if healthy else 1


def _line(check: Check, width: int, columns: int | None) -> str:
    state = f"{check.state:7}"
    if has_colours(sys.stdout):
        state = f"{COLOURS[check.state]}{state}\x1b[0m"
    indent = " " * (width + 10)
    value = one_line(check.value)
    if columns is not None and columns - len(indent) > LEAST_VALUE and ", " in value:
        value = f"\n{indent}".join(textwrap.wrap(value, columns - len(indent)))
    text = f"{state} {check.name:{width}}  {value}"
    return f"{text}\n{indent}→ {one_line(check.remedy)}" if check.remedy else text


def _versions() -> Iterator[Check]:
    yield Check("localseek", "ok", __version__)
    yield Check("Python", "ok", f"{platform.python_version()} ({sys.executable})")
    try:
        yield Check("llama-cpp-python", "ok", importlib.metadata.version("llama-cpp-python"))
    except importlib.metadata.PackageNotFoundError:
        yield Check("llama-cpp-python", "missing", "not installed", "uv sync")
    there = (nano.CHECKPOINT / "config.json").is_file()
    yield Check("embedded model", "ok" if there else "warn", str(nano.CHECKPOINT),
                "" if there else "It is missing; name another with --model.")  # fmt: skip


def _engine(remote: list[str]) -> Iterator[Check]:
    from localseek.api import looking

    try:
        facts = looking.diagnose(tuple(remote))
    except LocalseekError as error:
        yield Check("engine", "missing", error.message, error.hint or "uv sync --reinstall")
        return
    yield Check("engine", "ok", "starts and answers")
    for name, value in facts.items():
        remedy = LACKS.get(name, "") if value == "no" else ""
        lost = name.startswith("worker") and not value.startswith("RPC")
        state: State = "warn" if remedy or lost or value.startswith(OPEN) else "ok"
        told = _features(value) if name == "system" else value
        yield Check(f"engine: {name.replace('_', ' ')}", state, told, remedy)


def _features(raw: str) -> str:
    """Give what is on of llama.cpp's `CPU : SSE3 = 1 | AVX2 = 0 | …`, `CPU: SSE3`."""
    found: dict[str, list[str]] = {}
    device = ""
    for piece in raw.split("|"):
        before, colon, entry = piece.rpartition(" : ")
        device = before.strip() if colon else device
        name, _, value = (part.strip() for part in entry.partition("="))
        if name and value != "0":
            found.setdefault(device, []).append(name if value in ("", "1") else f"{name} {value}")
    return "; ".join(f"{of}: {', '.join(on)}".removeprefix(": ") for of, on in found.items())


def _machine() -> Iterator[Check]:
    machine = hardware.read_hardware()
    cores = f"{machine.cores} cores, {machine.threads} threads"
    if machine.usable_threads != machine.threads:
        cores += f", {machine.usable_threads} usable"
    yield Check("processor", "ok", f"{machine.cpu} ({cores})")
    little = machine.free_memory_bytes < LITTLE_MEMORY
    memory = f"{rough_size(machine.free_memory_bytes)} of {rough_size(machine.memory_bytes)} free"
    yield Check("memory", "warn" if little else "ok", memory,
                "Only small models fit; close other programs." if little else "")  # fmt: skip
    found = hardware.compiler()
    yield Check("C++ compiler", "ok" if found else "warn", found or "none found",
                "" if found else "A new build of llama.cpp needs one: apt install g++")  # fmt: skip


def _places() -> Iterator[Check]:
    free = hardware.free_disk_bytes(paths.home())
    yield Check("disk", "warn" if free < LITTLE_DISK else "ok", f"{rough_size(free)} free",
                "Models are large: set LOCALSEEK_HOME to a larger disk."
                if free < LITTLE_DISK else "")  # fmt: skip
    try:
        found = (paths.home(), paths.models(), paths.folder("logs"))
    except LocalseekError as error:
        yield Check("home", "missing", error.message, error.hint)
        return
    for name, folder in zip(("home", "models", "logs"), found, strict=True):
        yield Check(name, "ok", str(folder))


def _terminal() -> Iterator[Check]:
    facts = hardware.terminal()
    if facts["colours"] == "none":
        yield Check("terminal", "warn", facts["kind"], "No colours: localseek chat works anywhere.")
    else:
        text = f"{facts['kind']}, {facts['colours']} colours, {facts['size']}"
        narrow = int(facts["size"].partition("×")[0]) < NARROW
        yield Check("terminal", "warn" if narrow else "ok", text,
                    f"Make it {NARROW} columns wide or more." if narrow else "")  # fmt: skip
    utf8 = facts["encoding"].replace("-", "") == "utf8"
    yield Check("encoding", "ok" if utf8 else "warn", facts["encoding"],
                "" if utf8 else "export LANG=C.UTF-8")  # fmt: skip
