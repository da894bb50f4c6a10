"""The engine on a thread of its own: jobs in, actions out, so that the screen never waits.

Takes load and generate jobs, gives `Loading`, `Loaded`, `LoadFailed`, `Streamed` and `Kept`; text
that came in between two looks at the inbox is merged. What the engine has read of a conversation
is saved when another one takes its place. Knows nothing about Textual or what the actions mean.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Protocol

from localseek.errors import LocalseekError
from localseek.events import (
    AnswerDelta,
    Event,
    Failed,
    Finished,
    Notice,
    ReasoningDelta,
    Stats,
)
from localseek.options import LoadOptions, ModelInfo, Request
from localseek.text.answers import checked
from localseek.text.conversation import Reply
from tui.state.actions import Action, Kept, Loaded, LoadFailed, Loading, Said, Streamed
from tui.threads.background import Background

CLOSING_S = 60.0  # to save a long sequence of a large model: some gigabytes


class EngineLike(Protocol):
    """What the session needs of an engine; `localseek.Engine` has it."""

    @property
    def alive(self) -> bool: ...
    def load(self, progress: Callable[[float], None] | None = None) -> ModelInfo: ...
    def generate(self, request: Request) -> Iterator[Event]: ...
    def keep(self) -> str: ...
    def cancel(self) -> None: ...
    def close(self) -> None: ...


EngineFactory = Callable[[LoadOptions], EngineLike]
# From a model's name to how it is loaded; what takes a while is said through the function.
Prepare = Callable[[str, Callable[[str], None]], LoadOptions]


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


class Session(Background):
    """The engine's thread, from the first load to `close`."""

    def __init__(self, factory: EngineFactory, prepare: Prepare) -> None:
        super().__init__("engine session")
        self._factory, self._prepare = factory, prepare
        self._engine: EngineLike | None = None
        self._name = ""  # of the loaded model
        self._info: ModelInfo | None = None
        self._held: int | None = None  # the conversation that the engine has read, to be saved
        self._cancelled = threading.Event()
        self._closed = False

    def load(self, name: str) -> None:
        """Load a model, in place of the one before or of an engine that died."""
        self.submit(partial(self._load, name))

    def generate(self, turn: int, request: Request, key: int | None) -> None:
        """Answer a request; its events arrive as `Streamed` with the turn's number.

        `key` names the conversation whose sequence is worth saving; None: nothing is saved.
        """
        self._cancelled.clear()
        self.submit(partial(self._generate, turn, request, key))

    def forget(self, keys: tuple[int, ...]) -> None:
        """Save nothing of what was read of conversations that are gone."""

        def forget() -> None:
            if self._held in keys:
                self._held = None

        self.submit(forget)

    def cancel(self) -> None:
        """End the running answer; its `Finished` says so."""
        self._cancelled.set()
        if self._engine is not None:
            self._engine.cancel()

    def take(self) -> list[Action]:
        """Empty the inbox, neighbouring text joined."""
        return merged(super().take())

    def close(self) -> None:
        """End the engine, once what it has read is saved; blocks for as long as that takes."""
        self._closed = True
        self.cancel()
        if self._held is not None:
            self.submit(self._keep)
            self.finish(CLOSING_S)
        if self._engine is not None:
            self._engine.close()
        self.finish(CLOSING_S)

    def _load(self, name: str) -> None:
        try:
            self.emit(Loading(0.0))
            options = self._prepare(name, lambda text: self.emit(Said(text)))
            self._keep()
            if self._engine is not None:
                self._engine.close()
            if self._closed:
                return
            self._engine, self._info = self._factory(options), None
            if self._closed:
                self._engine.close()
                return
            self._info = self._engine.load(lambda done: self.emit(Loading(done)))
        except LocalseekError as error:
            self._stay(error)
        except Exception as error:  # noqa: BLE001 — else the state would wait for ever
            self.emit(LoadFailed(f"The engine answered with nonsense: {error!r}."))
        else:
            self._name = name
            self.emit(Loaded(self._info, name))

    def _stay(self, error: LocalseekError) -> None:
        """Say that a model could not be loaded; the one before stays if it still runs."""
        if self._info is not None and self._engine is not None and self._engine.alive:
            self.emit(Said(f"{error} {self._name} stays."))
            self.emit(Loaded(self._info, self._name))
        else:
            self.emit(LoadFailed(error.message, error.hint))

    def _keep(self) -> None:
        """Save what was read of a conversation; a dead engine has nothing left."""
        held, self._held = self._held, None
        if held is None or self._engine is None or not self._engine.alive:
            return
        try:
            name = self._engine.keep()
        except (LocalseekError, OSError, ValueError):
            return  # it died of it, which the next request will say; the text is in the history
        if name:
            self.emit(Kept(held, name))

    def _generate(self, turn: int, request: Request, key: int | None) -> None:
        if self._held != key:
            self._keep()
        self._held = key
        try:
            for event in self._events(request):
                self.emit(Streamed(turn, event))
        except LocalseekError as error:
            self.emit(Streamed(turn, Failed(error.message, error.hint, fatal=True)))
        except Exception as error:  # noqa: BLE001 — else the state would wait for ever
            text = f"The engine answered with nonsense: {error!r}."
            self.emit(Streamed(turn, Failed(text, fatal=True)))

    def _events(self, request: Request) -> Iterator[Event]:
        if self._engine is not None and not self._engine.alive:
            self._load(self._name)  # it died while nobody looked
        if self._engine is None or not self._engine.alive:
            yield Failed("The model could not be started again.")
            return
        if self._cancelled.is_set():
            yield Finished("cancelled", Stats())
            return
        # A cancel that came before the engine knew the request went nowhere: it is repeated once.
        repeat, reply = True, Reply()
        for event in self._engine.generate(request):
            if repeat and self._cancelled.is_set():
                repeat = False
                self._engine.cancel()
            reply = reply.after(event)
            if isinstance(event, Finished) and (
                error := checked(reply, request.sampling).error
            ):
                yield Notice(error)  # what was asked for by --schema or --grammar
            yield event
