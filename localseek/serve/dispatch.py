"""One engine and many clients: who may still ask, and who is turned away.

Takes requests on the event loop, gives each one's events. As many wait for the engine as may; more
are told to come again, and none begins once the server shuts down. Knows nothing about HTTP.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable

from localseek import AsyncAnswer, AsyncEngine
from localseek.errors import LocalseekError
from localseek.events import Event, Notice
from localseek.options import Request


class Busy(LocalseekError):
    """As many requests wait as may."""


class Closing(LocalseekError):
    """No request is begun any more."""

    def __init__(self) -> None:
        super().__init__("The server is shutting down.")


class Dispatcher:
    """Shares an engine among clients.

    `say` is given the engine's notices, which are for whoever runs the server.
    """

    def __init__(self, engine: AsyncEngine, most_waiting: int, say: Callable[[str], None]) -> None:
        self._engine, self._say = engine, say
        self._most = engine.engine.info.parallel + most_waiting
        self._open: set[AsyncAnswer] = set()  # whose clients listen
        self._turned_away: set[AsyncAnswer] = set()
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def events(self, request: Request) -> AsyncGenerator[Event, None]:
        """Yield the events of a request, no notices; closing the iterator early cancels it.

        Raises Busy or Closing before the first event.
        """
        if self._closing:
            raise Closing
        if len(self._open) >= self._most:
            raise Busy("Too many requests wait already.", "Try again later.")
        self._loop = asyncio.get_running_loop()
        answer = self._engine.generate(request)
        self._open.add(answer)
        try:
            async for event in answer:
                if answer in self._turned_away:
                    raise Closing
                if isinstance(event, Notice):
                    self._say(event.text)
                else:
                    yield event
        finally:
            self._open.discard(answer)
            answer.abandon()  # its place is free once the engine says so

    def drain(self) -> None:
        """Begin no more requests; what runs goes on. May be called from a signal's handler."""
        self._closing = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._turn_away)

    def _turn_away(self) -> None:
        for answer in self._open:
            if answer.waiting:
                self._turned_away.add(answer)
                answer.cancel()
