"""A fake engine that behaves: it streams a script, waits where told, is cancelled, dies.

A script is a list of events and of `Hold`s and `Die`s. `Scripted` is the factory that the app
takes; it remembers every engine it made and every request they got.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from localseek.errors import EngineError, ModelError
from localseek.events import (
    AnswerDelta,
    DraftStats,
    Event,
    Failed,
    Finished,
    PromptProgress,
    ReasoningDelta,
    Stats,
)
from localseek.options import GenerationOptions, LoadOptions, ModelInfo, Request
from localseek.system.machine import Machine
from tui.ports import Ports

PATIENCE_S = 120.0  # a script that nobody releases ends here, so that no test hangs

STATS = Stats(
    prompt_tokens=20, prompt_tps=400.0, generated_tokens=60, reasoning_tokens=40, decode_tps=41.2,
    seconds=1.5, context_used=80, context_size=4096,
    draft=DraftStats(30, 30, 27, [0.9], 1.0, 1.9),
)  # fmt: skip
DONE = Finished("stop", STATS)


class Hold:
    """A place where the script waits until the test calls `release`, or the user cancels."""

    def __init__(self) -> None:
        self.reached, self._gate = threading.Event(), threading.Event()

    def release(self) -> None:
        self._gate.set()

    def passed(self, cancelled: threading.Event) -> bool:
        self.reached.set()
        for _ in range(int(PATIENCE_S / 0.005)):
            if self._gate.wait(0.005):
                return True
            if cancelled.is_set():
                return False
        return True


class Die:
    """The engine's process ends here."""


Step = Event | Hold | Die


def thinking_script(reasoning: str, answer: str) -> list[Step]:
    """Stream a reasoning and an answer word by word."""
    return [
        PromptProgress(20, 20),
        *(ReasoningDelta(word, 1) for word in reasoning.splitlines(keepends=True)),
        *(AnswerDelta(word + " ", 1) for word in answer.split(" ")),
        DONE,
    ]


def memory_of(device: str, weights: int) -> dict[str, Any]:
    """A device's part of a placement, as the engine says it."""
    return {"device": device, "weights": weights, "cache": 0, "draft_cache": 0, "compute": 0}


class ScriptedEngine:
    def __init__(self, factory: "Scripted") -> None:
        self._factory, self.alive = factory, True
        self._cancelled = threading.Event()

    def load(self, progress: Callable[[float], None] | None = None) -> ModelInfo:
        if self._factory.load_error:
            error, self._factory.load_error = self._factory.load_error, None
            raise error
        if progress:
            progress(0.4)
        if self._factory.load_gate:
            self._factory.load_gate.passed(threading.Event())
        return self._factory.info

    def generate(self, request: Request) -> Iterator[Event]:
        self._cancelled.clear()
        self._factory.requests.append(request)
        script = self._factory.scripts.pop(0) if self._factory.scripts else [DONE]
        for step in script:
            if isinstance(step, Die):
                self.alive = False
                yield Failed("The engine died of signal 9.", "Its log is /x/engine.log.", True)
                return
            if self._cancelled.is_set() or (
                isinstance(step, Hold) and not step.passed(self._cancelled)
            ):
                yield Finished("cancelled", STATS)
                return
            if not isinstance(step, Hold):
                yield step

    def keep(self) -> str:
        self._factory.kept += 1
        return f"{self._factory.kept}.sequence"

    def cancel(self) -> None:
        self._factory.cancels += 1
        self._cancelled.set()

    def close(self) -> None:
        self.alive = False
        self._cancelled.set()


class Scripted:
    def __init__(
        self,
        *scripts: Sequence[Step],
        load_gate: Hold | None = None,
        load_error: EngineError | None = None,
    ) -> None:
        self.scripts = list(scripts)
        self.load_gate, self.load_error = load_gate, load_error
        self.engines: list[ScriptedEngine] = []
        self.requests: list[Request] = []
        self.cancels = self.kept = 0
        self.loaded: list[str] = []  # the names of models
        self.info = ModelInfo(
            path="/m.gguf", name="DeepSeek Test", architecture="deepseek2", description="test",
            size_bytes=1, parameters=1, context_size=4096, context_trained=4096, drafting=True,
            thinks=True, network="cut off by the kernel",
            placement={"memory": [memory_of("CPU", 10**9)]},
        )  # fmt: skip

    def __call__(self, options: LoadOptions) -> ScriptedEngine:
        self.options = options
        self.engines.append(ScriptedEngine(self))
        return self.engines[-1]


HERE = Machine((), 8 * 10**9, 16 * 10**9, 4)


def ports_of(scripted: Scripted, options: GenerationOptions, **changes: Any) -> Ports:
    """Ports to a scripted engine; every name but "missing" is a model."""

    def prepare(name: str, say: Callable[[str], None]) -> LoadOptions:
        if name == "missing":
            raise ModelError("There is no model 'missing'.", "There is: nano.")
        scripted.loaded.append(name)
        return options.load_options(Path("/models", name))

    return replace(Ports(prepare, lambda: HERE, scripted), **changes)
