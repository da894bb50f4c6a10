"""The machine as a list of models needs to know it, without waiting for an engine each time.

Only an engine can say what devices there are, and takes a second to start. A machine that has none
will have none until it starts anew or localseek is built anew, and that is kept; where there are
devices, their memory is asked for each time. Takes nothing, gives a `Machine`.
"""

import contextlib
import importlib.util
import json
import os
from pathlib import Path

from localseek.errors import LocalseekError
from localseek.system import hardware, paths
from localseek.system.machine import Machine

FILE = "no-devices.json"


def machine_here() -> Machine:
    """Look at the machine; raises EngineError where an engine is needed and does not start."""
    here = _build()
    if _kept() == here:
        return hardware.read_machine(())
    from localseek.api import looking
    from localseek.options import Fixed
    from localseek.terminal.messages import Status

    with Status("looking for devices…"):
        machine = looking.look_around(Fixed())
    if not machine.devices:
        _keep(here)
    return machine


def _build() -> list[object]:
    """Give what changes when devices may have: the system, llama.cpp's files."""
    package = importlib.util.find_spec("llama_cpp")
    folders = list(package.submodule_search_locations or ()) if package else []
    built = [[folder, _changed(Path(folder))] for folder in folders]
    return [hardware.device_marks(), built]


def _changed(folder: Path) -> int:
    """Give the newest time of the libraries that a build has, in nanoseconds."""
    libraries = [folder, *(folder / "lib").glob("*")]
    return max((path.stat().st_mtime_ns for path in libraries if path.exists()), default=0)


def _kept() -> object:
    with contextlib.suppress(OSError, ValueError):
        return json.loads((paths.home() / "cache" / FILE).read_bytes())
    return None


def _keep(here: list[object]) -> None:
    with contextlib.suppress(OSError, LocalseekError):  # then the next list asks again
        target = paths.folder("cache") / FILE
        partial = target.with_name(f"{FILE}.{os.getpid()}.partial")
        try:
            partial.write_text(json.dumps(here))
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
