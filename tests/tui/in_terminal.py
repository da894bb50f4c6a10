"""The app in a process of its own with a fake engine child, which floods its error stream first."""

import os
import sys
from pathlib import Path

from localseek import Engine
from localseek.engine.process import client
from localseek.options import GenerationOptions, LoadOptions
from localseek.system.machine import Machine
from tui.app import LocalseekApp
from tui.ports import Ports
from tui.running import run_app

FAKE = Path(__file__).parents[1] / "fakes" / "engine.py"
JUNK = "ggml_abort: JUNK-FROM-A-DRIVER \\033[2J\\033[31m"
FLOODING = f"""
import os, runpy, threading
def flood():
    for _ in range(2000):
        os.write(2, b"{JUNK}\\n")
flood()
threading.Thread(target=flood, daemon=True).start()
runpy.run_path({str(FAKE)!r}, run_name="__main__")
"""


def start(options: LoadOptions) -> Engine:
    client.program = lambda: [sys.executable, "-c", FLOODING]
    return Engine.of(options)


if __name__ == "__main__":
    options = GenerationOptions("fake")
    ports = Ports(
        lambda name, say: options.load_options(Path("/models", name)),
        lambda: Machine((), 1 << 30, 1 << 30, 2),
        start,
    )
    os._exit(run_app(LocalseekApp(options, ports)))
