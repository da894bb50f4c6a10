"""What an engine process says without a loaded model: its build, the machine, a plan.

Each starts a process and ends it. Raises EngineError, and UsageError for options that cannot be
meant.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from localseek.engine.process.client import Child
from localseek.options import Fixed, LoadOptions
from localseek.placing.placement import Placement, machine_from, placement_from
from localseek.system.machine import Machine


def diagnose(remote: tuple[str, ...] = ()) -> dict[str, str]:
    """Give what is true of the build, the devices and the workers."""
    with Child(LoadOptions(fixed=Fixed(remote=remote))) as child:
        return dict(child.ask("doctor")["facts"])


def prove_offline(remote: tuple[str, ...], listener: str, secret: Path) -> dict[str, Any]:
    """Let an engine reach out in every way; give its layers, and what its attempts met.

    `listener`: an abstract Unix socket that somebody listens at. `secret`: a file that is not the
    engine's.
    """
    with Child(LoadOptions(fixed=Fixed(remote=remote))) as child:
        return child.ask("prove", listener=listener, secret=str(secret))


def look_around(fixed: Fixed) -> Machine:
    """Give the machine with its devices, and the workers named."""
    with Child(LoadOptions(fixed=fixed)) as child:
        return machine_from(child.ask("machine"))


def plan(path: Path, options: LoadOptions) -> tuple[Machine, Placement]:
    """Give where a model would go on this machine; llama.cpp tells the size of its buffers."""
    with Child(replace(options, model=str(path))) as child:
        return placement_from(child.ask("plan"))
