"""Answers and batches for tasks: the same as answer.py and batch.py, awaited.

A task that is cancelled while it waits for an answer cancels the answer. Takes events from the
switchboard's thread, gives them on the event loop.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Generic, Self, TypeVar

from localseek.api.answer import Underway
from localseek.api.batch import Asked
from localseek.api.engine import Engine
from localseek.api.rows import Owner, Row, Rows
from localseek.api.switchboard import Flight
from localseek.events import Event, Failed, Finished
from localseek.options import ModelInfo, Request
from localseek.text.answers import checked
from localseek.text.conversation import Reply

Heard = TypeVar("Heard")


def told(loop: asyncio.AbstractEventLoop, events: asyncio.Queue[Heard], news: Heard) -> None:
    """Hand on what another thread has heard."""
    with contextlib.suppress(RuntimeError):  # the loop has ended, and who listened with it
        loop.call_soon_threadsafe(events.put_nowait, news)


async def check(reply: Reply, request: Request) -> Reply:
    """Check the form of a reply; on another thread, since a large one takes a while."""
    if not request.sampling.shaped:
        return reply
    return await asyncio.to_thread(checked, reply, request.sampling)


class AsyncAnswer(Underway):
    """An asynchronous iterator over the events of one answer; see `Answer`."""

    def __init__(
        self, engine: Engine, request: Request, ended: Callable[[Reply], None]
    ) -> None:  # fmt: skip
        """Begin; `ended` is given the whole reply."""
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._engine = engine  # which lives as long as this does
        tell = partial(told, asyncio.get_running_loop(), self._events)
        super().__init__(engine.switchboard, request, tell, ended)

    @property
    def reply(self) -> Awaitable[Reply]:
        """Wait for the end and give the whole reply, its form checked; to be awaited."""
        return self._whole()

    async def _whole(self) -> Reply:
        async for _ in self:
            pass
        self._so_far = await check(self._so_far, self.request)
        return self._so_far

    def abandon(self) -> None:
        """Cancel if it is not over, without waiting: its reply is what was read until now."""
        if not self._over:
            self.cancel()
            self._end(replace(self._so_far, finish_reason="cancelled"))

    async def aclose(self) -> None:
        """Cancel if it is not over, and wait for the end."""
        if not self._over and not self._switchboard.forked:
            self.cancel()
            async for _ in self:
                pass

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event; a task that is cancelled here cancels the answer."""
        if self._over:
            raise StopAsyncIteration
        self._switchboard.check_process()
        try:
            event = await self._events.get()
        except asyncio.CancelledError:
            self.abandon()
            raise
        if event is None or self._over:  # another task has read the end, or was cancelled
            self._events.put_nowait(None)  # for whoever else waits
            raise StopAsyncIteration
        reply = self._so_far = self._so_far.after(event)
        if isinstance(event, Finished | Failed):
            self._end(reply)
        return event

    def _end(self, reply: Reply) -> None:
        if not self._over:
            self._over, self._so_far = True, reply
            self._events.put_nowait(None)
            self._ended(reply)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class AsyncBatch(Generic[Owner]):
    """An asynchronous iterator over owners with their replies; see `Batch`."""

    def __init__(
        self, engine: Engine, source: AsyncIterator[Asked[Owner]],
        load: Callable[[], Awaitable[ModelInfo]], in_order: bool = False,
    ) -> None:  # fmt: skip
        """Begin nothing yet; `load` starts an engine that died."""
        self._engine, self._load = engine, load
        self._source: AsyncIterator[Asked[Owner]] | None = source
        self._rows = Rows[Owner](lambda _count: None, in_order)
        self._flights: dict[Row[Owner], Flight] = {}
        self._events: asyncio.Queue[tuple[Row[Owner], Event]] = asyncio.Queue()
        self._reading = asyncio.Lock()  # another task that reads finds what is left, or the end

    def cancel(self) -> None:
        """End what is in flight and begin nothing more; replies to come are "cancelled"."""
        self._rows.stopped = True
        for flight in self._flights.values():
            self._engine.switchboard.cancel(flight)

    async def aclose(self) -> None:
        """Cancel, and wait for the ends."""
        self.cancel()
        async for _ in self:
            pass

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[Owner, Reply]:
        """Wait for the next reply; a task that is cancelled here cancels the batch."""
        try:
            async with self._reading:
                return await self._next()
        except asyncio.CancelledError:
            self.cancel()
            raise

    async def _next(self) -> tuple[Owner, Reply]:
        while True:
            while self._rows.room(self._engine.info.parallel):
                row = self._rows.suspect() or await self._drawn()
                if row is None:
                    break
                await self._send(row)
            if (found := self._rows.take()) is not None:
                return found
            if not self._rows.running:
                raise StopAsyncIteration
            row, event = await self._events.get()
            if self._rows.hear(row, event):
                self._rows.finish(row, await check(row.reply, row.request))
            if row.reply.finish_reason:
                del self._flights[row]

    async def _drawn(self) -> Row[Owner] | None:
        """Give a row from the source; None at its end, or if what came is no request."""
        if self._source is None:
            return None
        if (found := await anext(self._source, None)) is None:
            self._source = None
            return None
        return self._rows.enter(*found)

    async def _send(self, row: Row[Owner]) -> None:
        tell = partial(_told_of, asyncio.get_running_loop(), self._events, row)
        try:
            if not self._engine.switchboard.alive:
                await self._load()
            self._flights[row] = self._engine.switchboard.submit(row.request, tell)
        except BaseException:
            self._rows.put_back(row)
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        for flight in getattr(self, "_flights", {}).values():
            flight.abandoned = True


def _told_of(
    loop: asyncio.AbstractEventLoop, events: asyncio.Queue[tuple[Row[Owner], Event]],
    row: Row[Owner], event: Event,
) -> None:  # fmt: skip
    told(loop, events, (row, event))
