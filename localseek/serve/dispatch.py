"""One engine and many clients: requests from asyncio in, each one's events out.

One thread owns the engine: it starts it, again after it died, submits and cancels, taking one job
after another from its inbox. A second one only waits for the engine's events and puts them there.
Requests beyond the engine's places wait in order. Knows nothing about HTTP.
"""

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from functools import partial

from localseek.engine.process.client import Engine
from localseek.errors import EngineError, LocalseekError
from localseek.events import Event, Failed, Finished, Notice
from localseek.options import Request

END_S = 1.0  # to wait for the owner's thread in the end; one that loads a model doesn't listen


class Busy(LocalseekError):
    """As many requests wait as may."""


class Closing(LocalseekError):
    """No request is begun any more."""


@dataclass(eq=False, slots=True)
class Flight:
    """A request on its way, and where its client listens."""

    request: Request
    loop: asyncio.AbstractEventLoop
    heard: asyncio.Queue[Event | LocalseekError] = field(default_factory=asyncio.Queue)
    number: int = 0  # at the engine; 0: it waits

    def tell(self, news: Event | LocalseekError) -> None:
        """Let the client know, from the owner's thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the client with it
            self.loop.call_soon_threadsafe(self.heard.put_nowait, news)


class Dispatcher:
    """Shares the engine that `start` gives; `start` gives a new one where the last has died.

    `say` is given the engine's notices, which are for whoever runs the server.
    """

    def __init__(
        self, start: Callable[[], Engine], most_waiting: int, say: Callable[[str], None]
    ) -> None:
        self._start, self._say = start, say
        self._engine = start()
        self._places = self._engine.info.parallel if self._engine.info else 1
        self._most = self._places + most_waiting
        self._open = 0  # requests whose clients listen
        self._closing = False
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting: deque[Flight] = deque()
        self._running: dict[int, Flight] = {}
        self._reader = self._listen(self._engine)
        self._owner = threading.Thread(target=self._work, daemon=True)
        self._owner.start()

    async def events(self, request: Request) -> AsyncGenerator[Event, None]:
        """Yield the events of a request, no notices; closing the iterator early cancels it.

        Raises Busy or Closing before the first event, LocalseekError if no engine can be started.
        """
        if self._closing:
            raise Closing("The server is shutting down.")
        if self._open >= self._most:
            raise Busy("Too many requests wait already.", "Try again later.")
        flight = Flight(request, asyncio.get_running_loop())
        self._open += 1
        self._inbox.put(partial(self._take, flight))
        try:
            while True:
                news = await flight.heard.get()
                if isinstance(news, LocalseekError):
                    raise news
                yield news
                if isinstance(news, Finished | Failed):
                    return
        finally:
            self._open -= 1
            self._inbox.put(partial(self._leave, flight))

    def drain(self) -> None:
        """Begin no more requests; what runs goes on. May be called from a signal's handler."""
        self._closing = True
        self._inbox.put(self._turn_away)

    def close(self) -> None:
        """End the owner's thread. The engine is left to whoever gave it."""
        self._inbox.put(None)
        self._owner.join(END_S)

    # What follows runs on the owner's thread.

    def _work(self) -> None:
        while (job := self._inbox.get()) is not None:
            job()

    def _take(self, flight: Flight) -> None:
        if self._closing:
            flight.tell(Closing("The server is shutting down."))
            return
        self._waiting.append(flight)
        self._fill()

    def _leave(self, flight: Flight) -> None:
        """End what nobody listens to any more."""
        if flight in self._waiting:
            self._waiting.remove(flight)
        elif self._running.get(flight.number) is flight:
            self._engine.cancel(flight.number)  # its place is free once the engine says so

    def _turn_away(self) -> None:
        while self._waiting:
            self._waiting.popleft().tell(Closing("The server is shutting down."))

    def _fill(self) -> None:
        """Send as many as there are places."""
        while self._waiting and len(self._running) < self._places:
            flight = self._waiting.popleft()
            try:
                self._revive()
                flight.number = self._engine.submit(flight.request)
            except (LocalseekError, OSError) as error:  # OSError: nowhere to tell of the start
                flight.tell(Failed(str(error), fatal=True))
            else:
                self._running[flight.number] = flight

    def _revive(self) -> None:
        """Start the engine again if it is dead."""
        if self._engine.alive:
            return
        self._reader.join()
        self._bury(self._engine)
        self._engine = self._start()
        self._reader = self._listen(self._engine)

    def _bury(self, engine: Engine) -> None:
        """Tell all whom a dead engine has left without an end."""
        if engine is not self._engine:
            return
        for flight in self._running.values():
            flight.tell(Failed("The engine has died.", fatal=True))
        self._running.clear()

    def _heard(self, engine: Engine, number: int, event: Event) -> None:
        if engine is not self._engine or number not in self._running:
            return
        if isinstance(event, Notice):
            self._say(event.text)
            return
        self._running[number].tell(event)
        if isinstance(event, Finished | Failed):
            del self._running[number]
            self._fill()

    # What follows runs on a thread of its own.

    def _listen(self, engine: Engine) -> threading.Thread:
        thread = threading.Thread(target=self._read, args=(engine,), daemon=True)
        thread.start()
        return thread

    def _read(self, engine: Engine) -> None:
        """Pass on all that an engine says until it is gone."""
        try:
            while True:
                self._inbox.put(partial(self._heard, engine, *engine.next_event()))
        except (EngineError, ValueError):  # ValueError: it was closed
            self._inbox.put(partial(self._bury, engine))
            self._inbox.put(self._fill)
