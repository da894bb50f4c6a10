"""An engine and a conversation for tasks: the words of engine.py and conversation.py, awaited.

The same core answers both: nothing here waits on the event loop's thread. Takes and gives what the
others do.
"""

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

from localseek.api.async_answer import AsyncAnswer, AsyncBatch
from localseek.api.conversation import Talk
from localseek.api.engine import Engine, Progress, Say, prepared, to_log
from localseek.api.keywords import (
    Prompt,
    check_prompts,
    load_options,
    messages_from,
    model_name,
    request_base,
    request_of,
    with_options,
)
from localseek.errors import EngineError, UsageError
from localseek.options import DEFAULT_MODEL, LoadOptions, Message, ModelInfo, Request
from localseek.text.conversation import Reply


class AsyncEngine:
    """An engine for tasks: `async with AsyncEngine("nano") as engine`; see `Engine`.

    Several tasks may use one at once. A task that is cancelled while it waits for an answer cancels
    that answer.
    """

    def __init__(
        self, model: str | os.PathLike[str] = DEFAULT_MODEL, *, progress: Progress | None = None,
        say: Say = to_log, **options: Any,
    ) -> None:  # fmt: skip
        """Name the model and its options, as for `Engine`; `async with` or `load` loads it."""
        self._model, self._options = model_name(model), load_options(options)
        self._progress, self._say = progress, say
        self._engine: Engine | None = None
        self._making = asyncio.Lock()

    @classmethod
    def of(cls, engine: Engine) -> Self:
        """Give an engine to tasks; whoever made it closes it, and may go on using it."""
        made = cls("")
        made._engine = engine
        return made

    @property
    def engine(self) -> Engine:
        """Give the engine itself, for what needs no waiting (`alive`, `kill`).

        Raises EngineError if it is not loaded.
        """
        if self._engine is None:
            raise EngineError("The engine is not loaded.", "Use async with, or await load().")
        return self._engine

    @property
    def info(self) -> ModelInfo:
        """Give what is known of the model; raises EngineError if it is not loaded."""
        return self.engine.info

    @property
    def waiting(self) -> int:
        """Give how many requests wait for a place."""
        return self._engine.waiting if self._engine is not None else 0

    async def load(self) -> ModelInfo:
        """Find the model, start the process if none runs, and wait until it is loaded."""
        async with self._making:
            if self._engine is None:
                options: LoadOptions = await asyncio.to_thread(
                    prepared, self._model, self._options, self._say
                )
                self._engine = Engine.of(options, self._say)
        engine = self._engine
        try:
            return await asyncio.to_thread(engine.load, self._progress)
        except asyncio.CancelledError:
            if not engine.alive:
                engine.kill()  # nobody wants the model any more
            raise

    async def reply(
        self, prompt: Prompt, *, request: Request | None = None, **options: Any
    ) -> Reply:  # fmt: skip
        """Answer a text or a list of messages; see `Engine.reply`."""
        return await self.stream(prompt, request=request, **options).reply

    def stream(
        self, prompt: Prompt, *, request: Request | None = None, **options: Any
    ) -> AsyncAnswer:  # fmt: skip
        """Begin an answer and give it; see `Engine.stream`."""
        return self.generate(request_of(prompt, request, options))

    def batch(
        self, prompts: Iterable[Prompt] | AsyncIterable[Prompt], *, in_order: bool = False,
        request: Request | None = None, **options: Any,
    ) -> AsyncBatch[int]:  # fmt: skip
        """Answer many prompts, `parallel` at once; see `Engine.batch`."""
        check_prompts(prompts)
        base = with_options(request_base(request), options)
        asked = _requests_for(prompts, base, options.get("system") or "")
        return AsyncBatch(self.engine, asked, self.load, in_order)

    def generate(
        self, request: Request, ended: Callable[[Reply], None] = lambda _: None
    ) -> AsyncAnswer:  # fmt: skip
        """Begin to answer a request; see `Engine.generate`."""
        return AsyncAnswer(self.engine, request, ended)

    def cancel(self) -> None:
        """End all answers, those that wait too."""
        self.engine.cancel()

    async def aclose(self) -> None:
        """End answers, process and thread; nothing can be asked any more. May be called again."""
        if self._engine is not None:
            await asyncio.to_thread(self._engine.close)

    async def __aenter__(self) -> Self:
        try:
            await self.load()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class AsyncConversation(Talk):
    """A conversation for one task at a time; see `Conversation`."""

    def __init__(
        self, engine: AsyncEngine, system: str = "",
        messages: Sequence[Message | Mapping[str, str]] = (), *, request: Request | None = None,
        **options: Any,
    ) -> None:  # fmt: skip
        """Begin, or go on after `messages`; options count for every prompt that has no others."""
        if not isinstance(engine, AsyncEngine):
            raise UsageError(f"The engine is {engine!r}, not an AsyncEngine.", "Make one.")
        super().__init__(system, messages, request, options)
        self._engine = engine
        self._answer: AsyncAnswer | None = None

    async def ask(self, prompt: str, **options: Any) -> Reply:
        """Answer a prompt; see `Engine.reply`."""
        return await self.stream(prompt, **options).reply

    def stream(self, prompt: str, **options: Any) -> AsyncAnswer:
        """Begin to answer a prompt; it is part of the conversation once it is over or closed.

        An answer that is still on its way ends as it is.
        """
        if self._answer is not None:
            self._answer.abandon()
        request = self._request(prompt, options)
        self._answer = self._engine.generate(request, partial(self._said, prompt, request))
        return self._answer


async def _requests_for(
    prompts: Iterable[Prompt] | AsyncIterable[Prompt], base: Request, system: str
) -> AsyncIterator[tuple[int, Request | UsageError]]:
    """Give a request for each prompt, or why it is none."""
    index = 0
    async for prompt in _each(prompts):
        try:
            yield index, replace(base, messages=messages_from(prompt, system))
        except UsageError as error:
            yield index, error
        index += 1


async def _each(prompts: Iterable[Prompt] | AsyncIterable[Prompt]) -> AsyncIterator[Prompt]:
    if isinstance(prompts, AsyncIterable):
        async for prompt in prompts:
            yield prompt
    else:
        for prompt in prompts:
            yield prompt
