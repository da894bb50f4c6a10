"""The engine on a thread of its own: jobs in, actions out, so that the screen never waits.

Takes load and generate jobs, gives `Loading`, `Loaded`, `LoadFailed` and `Streamed` actions in an
inbox that the app empties about 30 times a second; text that came in between is merged then.
Knows nothing about Textual or what the actions mean.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

from localseek.errors import LocalseekError
from localseek.events import AnswerDelta, Event, Failed, Finished, ReasoningDelta, Stats
from localseek.options import LoadOptions, ModelInfo, Request
from tui.actions import Action, Loaded, LoadFailed, Loading, Streamed


class EngineLike(Protocol):
    """What the session needs of an engine; `localseek.engine.process.client.Engine` has it."""

    @property
    def alive(self) -> bool: ...
    def load(self, progress: Callable[[float], None] | None = None) -> ModelInfo: ...
    def generate(self, request: Request) -> Iterator[Event]: ...
    def cancel(self) -> None: ...
    def close(self) -> None: ...


EngineFactory = Callable[[LoadOptions], EngineLike]


def merged(actions: list[Action]) -> list[Action]:
    """Join neighbouring text of one kind and turn, and keep the last of several progresses."""
    result: list[Action] = []
    for action in actions:
        joined = _joined(result[-1], action) if result else None
        if joined is None:
            result.append(action)
        else:
            result[-1] = joined
    return result


def _joined(before: Action, after: Action) -> Action | None:
    if isinstance(before, Loading) and isinstance(after, Loading):
        return after
    if not (isinstance(before, Streamed) and isinstance(after, Streamed)):
        return None
    first, second = before.event, after.event
    if before.turn != after.turn or type(first) is not type(second):
        return None
    if isinstance(first, ReasoningDelta | AnswerDelta):
        assert isinstance(second, ReasoningDelta | AnswerDelta)  # the same type
        text, tokens = first.text + second.text, first.tokens + second.tokens
        return Streamed(before.turn, replace(first, text=text, tokens=tokens))
    return None


class Session:
    """The engine's thread, from the first load to `close`. All methods return at once."""

    def __init__(self, factory: EngineFactory, options: LoadOptions) -> None:
        self._factory, self._options = factory, options
        self._engine: EngineLike | None = None
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._inbox: queue.SimpleQueue[Action] = queue.SimpleQueue()
        self._cancelled = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="engine session", daemon=True)
        self._thread.start()

    def load(self) -> None:
        """Start an engine, in place of one that died."""
        self._jobs.put(self._load)

    def generate(self, turn: int, request: Request) -> None:
        """Answer a request; its events arrive as `Streamed` with the turn's number."""
        self._cancelled.clear()
        self._jobs.put(lambda: self._generate(turn, request))

    def cancel(self) -> None:
        """End the running answer; its `Finished` says so."""
        self._cancelled.set()
        if self._engine is not None:
            self._engine.cancel()

    def take(self) -> list[Action]:
        """Empty the inbox."""
        taken: list[Action] = []
        with contextlib.suppress(queue.Empty):
            while True:
                taken.append(self._inbox.get_nowait())
        return merged(taken)

    def close(self) -> None:
        """End the engine; blocks for as long as that takes, a few seconds at the most."""
        self._closed = True
        self._jobs.put(None)
        if self._engine is not None:
            self._engine.close()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _load(self) -> None:
        try:
            if self._engine is not None:
                self._engine.close()
            self._inbox.put(Loading(0.0))
            self._engine = self._factory(self._options)
            if self._closed:
                self._engine.close()
                return
            info = self._engine.load(lambda done: self._inbox.put(Loading(done)))
        except LocalseekError as error:
            self._inbox.put(LoadFailed(error.message, error.hint))
        except (OSError, ValueError, KeyError, TypeError) as error:
            # What a broken pipe or a garbled message raises; the reader must hear of it.
            self._inbox.put(LoadFailed(f"The engine answered with nonsense: {error}."))
        else:
            self._inbox.put(Loaded(info))

    def _generate(self, turn: int, request: Request) -> None:
        try:
            for event in self._events(request):
                self._inbox.put(Streamed(turn, event))
        except LocalseekError as error:
            self._inbox.put(Streamed(turn, Failed(error.message, error.hint, fatal=True)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            text = f"The engine answered with nonsense: {error}."
            self._inbox.put(Streamed(turn, Failed(text, fatal=True)))

    def _events(self, request: Request) -> Iterator[Event]:
        if self._engine is not None and not self._engine.alive:
            self._load()  # it died while nobody looked
        if self._engine is None or not self._engine.alive:
            yield Failed("The model could not be started again.")
            return
        if self._cancelled.is_set():
            yield Finished("cancelled", Stats())
            return
        # A cancel that came before the engine knew the request went nowhere: it is repeated once.
        repeat = True
        for event in self._engine.generate(request):
            if repeat and self._cancelled.is_set():
                repeat = False
                self._engine.cancel()
            yield event
