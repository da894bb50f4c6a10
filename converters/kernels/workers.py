"""Jobs run on threads, results handed to the caller's thread in the order they come.

Takes jobs one by one, so that a long list of them need not exist, and a maker of workers, one a
thread, each with buffers of its own. Does not know what a job is.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def work_off(
    jobs: Iterable[Job],
    threads: int,
    new_worker: Callable[[], Callable[[Job], Result]],
    late: Callable[[Job, Result], None] | None = None,
) -> Generator[tuple[Job, Result], None, None]:
    """Yield every job with its result; the first exception of a worker is raised here.

    When the caller stops early, by an exception or by closing the generator, no job is begun any
    more, those begun are waited for, and `late` is told what was finished but not yielded.
    """
    lock, stop, waiting = threading.Lock(), threading.Event(), iter(jobs)
    # A job with its result, an exception, or None when a thread has ended.
    finished: queue.SimpleQueue[tuple[Job, Result] | BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            worker = new_worker()
            while not stop.is_set():
                with lock:
                    job = next(waiting, None)
                if job is None:
                    break
                finished.put((job, worker(job)))
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, raised there
            finished.put(error)
        finally:
            finished.put(None)

    crew = [threading.Thread(target=work, name=f"work-{n}") for n in range(threads)]
    running = 0
    try:
        for member in crew:
            member.start()
            running += 1
        while running:
            event = finished.get()
            if event is None:
                running -= 1
            elif isinstance(event, BaseException):
                raise event
            else:
                yield event
    finally:
        stop.set()
        for member in crew:
            if member.ident is not None:
                member.join()
        while late is not None and not finished.empty():
            event = finished.get()
            if isinstance(event, tuple):
                late(*event)
