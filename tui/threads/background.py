"""A thread that does jobs one after the other and answers with actions.

The app submits jobs and empties the inbox about 30 times a second, so that the screen never waits
for an engine, a database or a disk. Knows nothing about Textual or what a job does.
"""

import contextlib
import queue
import threading
from collections.abc import Callable

from tui.state.actions import Action, Said

Job = Callable[[], None]


class Background:
    """One thread with its jobs and its inbox; `wake` is called with every job that is submitted."""

    def __init__(self, name: str) -> None:
        self.wake: Callable[[], None] = lambda: None
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._inbox: queue.SimpleQueue[Action] = queue.SimpleQueue()
        self._unfinished = 0  # jobs; counted by whoever submits and by the thread
        self._count = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Tell whether a job is still to be done, or its answer to be taken."""
        return self._unfinished > 0 or not self._inbox.empty()

    def submit(self, job: Job) -> None:
        """Let the thread do a job after those that it has."""
        with self._count:
            self._unfinished += 1
        self._jobs.put(job)
        self.wake()

    def emit(self, action: Action) -> None:
        """Put an action into the inbox."""
        self._inbox.put(action)

    def take(self) -> list[Action]:
        """Empty the inbox."""
        taken: list[Action] = []
        with contextlib.suppress(queue.Empty):
            while True:
                taken.append(self._inbox.get_nowait())
        return taken

    def finish(self, patience_s: float) -> None:
        """Let the jobs be done that there are, and end the thread; wait for it this long."""
        self._jobs.put(None)
        self._thread.join(patience_s)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception as error:  # noqa: BLE001 — a defect is said, and the thread goes on
                self.emit(Said(f"A defect in localseek ({self._thread.name}): {error!r}"))
            finally:
                with self._count:
                    self._unfinished -= 1
