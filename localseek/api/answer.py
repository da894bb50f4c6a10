"""An answer on its way: iterate over its events, cancel it, take its reply.

Takes a request and the switchboard that has it answered. One thread reads an answer; any may cancel
it. Knows nothing about how requests share an engine.
"""

from collections.abc import Callable
from queue import SimpleQueue
from typing import Self

from localseek.api.switchboard import Switchboard
from localseek.events import Event, Failed, Finished
from localseek.options import Request
from localseek.text.answers import checked
from localseek.text.conversation import Reply


class Underway:
    """An answer on its way, whoever reads it: how far it is, and its end if nobody wants it."""

    def __init__(
        self, switchboard: Switchboard, request: Request, tell: Callable[[Event], object],
        ended: Callable[[Reply], None],
    ) -> None:  # fmt: skip
        """Begin; `tell` is given the events, `ended` the whole reply."""
        self.request = request
        self._so_far, self._over = Reply(), False
        self._switchboard, self._ended = switchboard, ended
        self._flight = switchboard.submit(request, tell)

    @property
    def waiting(self) -> bool:
        """Tell whether it has not begun: all places of the engine are taken."""
        return not (self._flight.begun or self._over)

    @property
    def so_far(self) -> Reply:
        """Give what the events that were read make up; `finish_reason` is "" until the end."""
        return self._so_far

    def cancel(self) -> None:
        """Ask for an early end, from any thread; the last event is `Finished("cancelled")` then.

        An answer that is just over stays as it is. Other answers go on.
        """
        self._switchboard.cancel(self._flight)

    def __del__(self) -> None:
        if flight := getattr(self, "_flight", None):  # it has none if it was refused
            flight.abandoned = True


class Answer(Underway):
    """An iterator over the events of one answer, `Finished` or `Failed` the last.

    It begins by itself as soon as the engine has a place, whether or not it is read. An answer that
    is closed, left by its `with`, or dropped before its end is cancelled.
    """

    def __init__(
        self, switchboard: Switchboard, request: Request, owner: object = None,
        ended: Callable[[Reply], None] = lambda _: None,
    ) -> None:  # fmt: skip
        """Begin; `owner` lives as long as this does, `ended` is given the whole reply."""
        self._events: SimpleQueue[Event | None] = SimpleQueue()
        self._owner = owner
        super().__init__(switchboard, request, self._events.put, ended)

    @property
    def reply(self) -> Reply:
        """Wait for the end and give the whole reply, its form checked; `error` says what is wrong.

        Events that were not read yet are skipped.
        """
        for _ in self:
            pass
        self._so_far = checked(self._so_far, self.request.sampling)
        return self._so_far

    def close(self) -> None:
        """Cancel if it is not over, and wait for the end."""
        if not self._over and not self._switchboard.forked:
            self.cancel()
            for _ in self:
                pass

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        """Wait for the next event; raises StopIteration after the last."""
        if not self._over:
            self._switchboard.check_process()
        event = self._events.get() if not self._over else None
        if event is None:
            self._events.put(None)  # for whoever else waits
            raise StopIteration
        self._so_far = self._so_far.after(event)
        if isinstance(event, Finished | Failed):
            self._over = True
            self._events.put(None)
            self._ended(self._so_far)
        return event

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
