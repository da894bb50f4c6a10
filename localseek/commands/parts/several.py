"""Several requests at one engine: each place that becomes free takes the next one.

Takes requests with what they belong to, gives each one's reply when it is over, in any order. Of an
engine that dies, what was in flight is tried once more, one after another: only what kills the
engine again, alone, has failed. The first Ctrl-C cancels what is in flight and begins no more.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from localseek.commands.parts.session import Session, cancelled_by_interrupt
from localseek.engine.process.client import Engine
from localseek.errors import EngineError
from localseek.events import Failed, PromptProgress
from localseek.options import Request
from localseek.text.conversation import Reply

Owner = TypeVar("Owner")


@dataclass
class Flight(Generic[Owner]):
    """A request on its way."""

    owner: Owner
    request: Request
    again: bool = False  # the engine died once with it
    reply: Reply = field(default_factory=Reply)


class Several(Generic[Owner]):
    """Requests answered by a session's engine; `died` is told how many an engine took with it."""

    def __init__(self, session: Session, died: Callable[[int], None]) -> None:
        self._session, self._died = session, died
        self._running: dict[int, Flight[Owner]] = {}
        self._suspects: deque[Flight[Owner]] = deque()

    def replies(self, requests: Iterable[tuple[Owner, Request]]) -> Iterator[tuple[Owner, Reply]]:
        """Yield each request's owner with its reply; raises EngineError if none can be started."""
        source = iter(requests)
        while True:
            engine = self._session.start()
            with cancelled_by_interrupt(engine) as interrupted:
                while engine.alive and not interrupted() and self._fill(engine, source):
                    yield from self._wait(engine, interrupted)
                while self._running:
                    yield from self._wait(engine, interrupted)
            self._session.interrupted |= interrupted()
            if interrupted() or (engine.alive and not self._suspects):
                return

    def _fill(self, engine: Engine, source: Iterator[tuple[Owner, Request]]) -> bool:
        """Send as many as there are places; tell whether any is in flight then."""
        places = engine.info.parallel if engine.info else 1
        if self._suspects:
            places = 1
        while len(self._running) < places and not any(one.again for one in self._running.values()):
            flight = self._suspects.popleft() if self._suspects else None
            if flight is None:
                if (found := next(source, None)) is None:
                    break
                flight = Flight(*found)
            if not self._send(engine, flight):
                break
        return bool(self._running)

    def _send(self, engine: Engine, flight: Flight[Owner]) -> bool:
        try:
            self._running[engine.submit(flight.request)] = flight
        except EngineError:  # it died since; the next one takes it
            self._suspects.appendleft(flight)
            return False
        return True

    def _wait(
        self, engine: Engine, interrupted: Callable[[], bool]
    ) -> Iterator[tuple[Owner, Reply]]:  # fmt: skip
        """Take the next event; give the reply that is over with it."""
        number, event = engine.next_event()
        if isinstance(event, PromptProgress) and interrupted():
            engine.cancel()  # Ctrl-C came before the engine knew of the request
        flight = self._running[number]
        flight.reply = flight.reply.after(event)
        if not flight.reply.finish_reason:
            return
        del self._running[number]
        if isinstance(event, Failed) and event.fatal and not interrupted():
            yield from self._retry([flight, *self._running.values()])
        else:
            yield flight.owner, flight.reply

    def _retry(self, flights: list[Flight[Owner]]) -> Iterator[tuple[Owner, Reply]]:
        """Put back what was in flight when the engine died; give what it died of twice."""
        self._running.clear()
        for flight in flights:
            if flight.again:
                yield flight.owner, flight.reply
            else:
                self._suspects.append(Flight(flight.owner, flight.request, again=True))
        if not flights[0].again:
            self._died(len(flights))
