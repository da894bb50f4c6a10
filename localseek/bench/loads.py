"""How long a model takes to load: from the disk and from the system's memory, in turns.

Each load is a child of its own. A mapped file is ready before it is read, so the first token of a
short answer is timed too. Takes load options, fills `Findings`.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from localseek import Engine
from localseek.bench.findings import Findings, Loads
from localseek.bench.page_cache import drop, resident
from localseek.errors import EngineError
from localseek.events import Failed
from localseek.options import LoadOptions, Message, Request, Sampling

COLD = 0.01  # of the file may be in memory still
LARGE = 4 * 10**9  # bytes; what is larger is loaded once each way
TURNS = 3


def measure_loads(
    parts: Sequence[Path], options: LoadOptions, findings: Findings, show: Callable[[str], None]
) -> None:  # fmt: skip
    """Load cold and warm, in turns; raises EngineError and KeyboardInterrupt."""
    size = sum(path.stat().st_size for path in parts)
    for number in range(1 if size > LARGE else TURNS):
        show("loading from the disk")
        _load(number, drop(parts), options, findings.cold)
        show("loading from memory")
        _load(number, resident(parts), options, findings.warm)


def cold_problem(loads: Loads) -> str:
    """Say why the first loads were not cold, "" if they were or there were none."""
    shares = list(loads.in_memory.values())
    if not shares or all(share is not None and share <= COLD for share in shares):
        return ""
    if None in shares:
        return "this system does not tell whether a file is in its memory"
    most = max(share for share in shares if share is not None)
    return f"{most:.0%} of the file stayed in memory: another program uses it"


def _load(
    number: int, in_memory: float | None, options: LoadOptions, loads: Loads
) -> None:
    request = Request((Message("user", "1 + 1"),), Sampling(temperature=0.0), max_tokens=1)
    started = time.perf_counter()
    with Engine.of(options) as engine:
        engine.load()
        ready = time.perf_counter() - started
        for event in engine.generate(request):
            if isinstance(event, Failed):
                raise EngineError(event.message, event.hint)
        loads.first_token[number] = time.perf_counter() - started
        loads.ready[number], loads.in_memory[number] = ready, in_memory
