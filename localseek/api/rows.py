"""Several requests at one engine: which is sent next, and what becomes of one whose engine dies.

What was in flight when an engine died is tried once more, one after another: only what kills the
engine again, alone, has failed. Takes requests with what they belong to and their events, gives
replies. Knows nothing about engines, threads and asyncio.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from localseek.errors import UsageError
from localseek.events import Event, Failed
from localseek.options import Request
from localseek.text.conversation import Reply

Owner = TypeVar("Owner")
AHEAD = 1000  # replies that wait for an earlier one, in order; then nothing new is begun


@dataclass(eq=False)
class Row(Generic[Owner]):
    """A request on its way, and whose it is."""

    place: int  # in the order in which they came
    owner: Owner
    request: Request
    again: bool = False  # the engine died once with it
    reply: Reply = field(default_factory=Reply)


class Rows(Generic[Owner]):
    """Keeps count of a batch; `died` is told how many rows an engine took with it."""

    def __init__(self, died: Callable[[int], None], in_order: bool) -> None:
        self.stopped = False  # nothing more is begun, nothing tried again
        self._died, self._in_order = died, in_order
        self._running: set[Row[Owner]] = set()
        self._suspects: deque[Row[Owner]] = deque()
        self._dead = 0  # rows that `died` was not told of yet
        self._count = 0
        self._ready: dict[int, tuple[Owner, Reply]] = {}  # by place
        self._next = 0  # the place that is given next, in order

    @property
    def running(self) -> bool:
        """Tell whether any row is in flight."""
        return bool(self._running)

    def room(self, places: int) -> bool:
        """Tell whether one more may be begun."""
        if self.stopped or (len(self._ready) >= AHEAD and not self._suspects):
            return False
        alone = bool(self._suspects) or any(row.again for row in self._running)
        return len(self._running) < (1 if alone else places)

    def suspect(self) -> Row[Owner] | None:
        """Give a row that is to be tried again, None if there is none."""
        if not self._suspects:
            return None
        if self._dead:
            self._died(self._dead)
            self._dead = 0
        row = self._suspects.popleft()
        self._running.add(row)
        return row

    def enter(self, owner: Owner, request: Request | UsageError) -> Row[Owner] | None:
        """Take a new row in; what is no request has its reply at once, and gives None."""
        place, self._count = self._count, self._count + 1
        if isinstance(request, UsageError):
            refused = Reply(finish_reason="failed", error=str(request), wrong_use=True)
            self._ready[place] = owner, refused
            return None
        row = Row(place, owner, request)
        self._running.add(row)
        return row

    def put_back(self, row: Row[Owner]) -> None:
        """Let a row that could not be sent be the next again."""
        self._running.discard(row)
        self._suspects.appendleft(row)

    def hear(self, row: Row[Owner], event: Event) -> bool:
        """Take an event of a row; tell whether its reply is whole with it."""
        row.reply = row.reply.after(event)
        if not row.reply.finish_reason:
            return False
        self._running.discard(row)
        if isinstance(event, Failed) and event.fatal and not (row.again or self.stopped):
            self._suspects.append(Row(row.place, row.owner, row.request, again=True))
            self._dead += 1
            return False
        return True

    def finish(self, row: Row[Owner], reply: Reply) -> None:
        """Take a whole reply."""
        self._ready[row.place] = row.owner, reply

    def take(self) -> tuple[Owner, Reply] | None:
        """Give the next reply that may be given, None if there is none yet."""
        if not self._in_order or (self.stopped and not self._running):
            return self._ready.pop(next(iter(self._ready))) if self._ready else None
        if self._next not in self._ready:
            return None
        self._next += 1
        return self._ready.pop(self._next - 1)
