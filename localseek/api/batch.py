"""A batch: an iterator over the replies to many requests, several of which are answered at once.

Requests are drawn from their source when a place is free, so it may be of any length.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from queue import SimpleQueue
from typing import Generic, Self

from localseek.api.rows import Owner, Row, Rows
from localseek.api.switchboard import Flight, Switchboard
from localseek.errors import UsageError
from localseek.events import Event
from localseek.options import Request
from localseek.text.answers import checked
from localseek.text.conversation import Reply

Asked = tuple[Owner, Request | UsageError]  # an error takes the place of a request that is none


class Batch(Generic[Owner]):
    """An iterator over owners with their replies, as they are whole; one thread reads it.

    Closed, left by its `with`, or dropped, it ends what is in flight. Raises what keeps an engine
    that died from being started again, and what the source of the requests raises.
    """

    def __init__(
        self, switchboard: Switchboard, source: Iterable[Asked[Owner]],
        died: Callable[[int], None] = lambda _: None, in_order: bool = False, owner: object = None,
    ) -> None:  # fmt: skip
        """Begin nothing yet; `died` is told how many rows an engine took with it."""
        self._switchboard, self._owner = switchboard, owner
        self._source: Iterator[Asked[Owner]] | None = iter(source)
        self._rows = Rows[Owner](died, in_order)
        self._flights: dict[Row[Owner], Flight] = {}
        self._events: SimpleQueue[tuple[Row[Owner], Event]] = SimpleQueue()
        # Whoever else reads finds what is left, or the end. A signal handler may close it.
        self._reading = threading.RLock()

    def cancel(self) -> None:
        """End what is in flight and begin nothing more, from any thread.

        The replies that are still to come have the `finish_reason` "cancelled".
        """
        self._rows.stopped = True
        for flight in tuple(self._flights.values()):
            self._switchboard.cancel(flight)

    def close(self) -> None:
        """Cancel, and wait for the ends."""
        if self._switchboard.forked:
            return
        self.cancel()
        for _ in self:
            pass

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[Owner, Reply]:
        """Wait for the next reply."""
        self._switchboard.check_process()
        with self._reading:
            return self._next()

    def _next(self) -> tuple[Owner, Reply]:
        while True:
            self._fill()
            if (found := self._rows.take()) is not None:
                return found
            if not self._rows.running:
                raise StopIteration
            row, event = self._events.get()
            if self._rows.hear(row, event):
                self._rows.finish(row, checked(row.reply, row.request.sampling))
            if row.reply.finish_reason:
                del self._flights[row]

    def _fill(self) -> None:
        """Send as many as there are places."""
        info = self._switchboard.info
        while self._rows.room(info.parallel if info else 1):
            row = self._rows.suspect() or self._drawn()
            if row is None:
                return
            self._send(row)

    def _drawn(self) -> Row[Owner] | None:
        """Give a row from the source; None at its end, or if what came is no request."""
        if self._source is None:
            return None
        if (found := next(self._source, None)) is None:
            self._source = None
            return None
        return self._rows.enter(*found)

    def _send(self, row: Row[Owner]) -> None:
        try:
            if not self._switchboard.alive:
                self._switchboard.load(None)  # its error is the batch's and not the row's
            tell = partial(_put, self._events, row)
            self._flights[row] = self._switchboard.submit(row.request, tell)
        except BaseException:
            self._rows.put_back(row)
            raise
        if self._rows.stopped:  # by another thread, which may not have seen this flight
            self._switchboard.cancel(self._flights[row])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        for flight in getattr(self, "_flights", {}).values():
            flight.abandoned = True


def _put(events: "SimpleQueue[tuple[Row[Owner], Event]]", row: Row[Owner], event: Event) -> None:
    events.put((row, event))
