"""One engine child and many requests: whoever asks, from any thread, hears of their own only.

Requests wait in line for one of the child's places. A thread starts the child, reads all that it
says and hands each event to the request that it belongs to. It ends with the child; the next
request begins another. Takes `Request`s with a function to tell, gives events. Knows nothing about
prompts, terminals or asyncio.
"""

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from localseek.engine.process import protocol
from localseek.engine.process.client import Child, refusal
from localseek.errors import EngineError, LocalseekError, UsageError
from localseek.events import Event, Failed, Finished, Notice, Stats
from localseek.options import LoadOptions, ModelInfo, Request

CLOSED = ("The engine was closed.", "Make a new one.")
UNNUMBERED = ("kept", "doctor")  # what the child says of errands without their number


@dataclass(eq=False, slots=True)
class Flight:
    """A request on its way; `tell` is called on the switchboard's thread and must not wait."""

    number: int
    line: bytes
    tell: Callable[[Event], object]
    begun: bool = False  # it has one of the child's places
    cancelled: bool = False
    abandoned: bool = False  # nobody listens: set by a finalizer, which may take no lock


@dataclass(eq=False, slots=True)
class Errand:
    """Something other than an answer that the child was asked for."""

    number: int
    box: SimpleQueue[dict[str, Any] | LocalseekError] = field(default_factory=SimpleQueue)


@dataclass(eq=False, slots=True)
class _Told:
    """The caller's function that hears of a load; its error is not the engine's."""

    tell: Callable[[float], None] | None
    error: BaseException | None = None

    def hear(self, done: float) -> None:
        """Pass it on."""
        try:
            if self.tell is not None:
                self.tell(done)
        except BaseException as error:
            self.error = error
            raise


class Switchboard:
    """Shares a child among requests; what it does not document may be called from any thread.

    `say` is told what the user should know that belongs to no request.
    """

    def __init__(self, options: LoadOptions, say: Callable[[str], None]) -> None:
        self.options = options
        self.info: ModelInfo | None = None  # of the model that was loaded last
        self.child: Child | None = None
        self._say, self._pid = say, os.getpid()
        self._progress: Callable[[float], None] | None = None
        # Held for moments, never while anything is sent or waited for.
        self._lock = threading.RLock()
        self._errands = threading.Lock()  # one at a time
        self._thread: threading.Thread | None = None
        self._loading: Future[ModelInfo] | None = None  # what `load` waits for
        self._ready = self._closed = False  # a model is loaded; for good
        self._number = 0
        self._waiting: deque[Flight] = deque()
        self._running: dict[int, Flight] = {}
        self._errand: Errand | None = None
        self._late: list[str] = []  # notices that came when nobody asked anything

    @property
    def alive(self) -> bool:
        """Tell whether a child runs, its model loaded."""
        child = self.child
        return self._ready and child is not None and child.alive

    @property
    def forked(self) -> bool:
        """Tell whether this is a fork's copy: the child is its parent's."""
        return os.getpid() != self._pid

    @property
    def waiting(self) -> int:
        """Give how many requests wait for a place."""
        return len(self._waiting)

    def load(self, progress: Callable[[float], None] | None) -> ModelInfo:
        """Start a child if none runs, wait for its model; raises what went wrong.

        `progress` is called with 0..1 on the switchboard's thread, now and in later loads; what it
        raises ends the load and is raised here.
        """
        self.check_open()
        if progress is not None and not callable(progress):
            raise UsageError(f"progress is {progress!r}, not a function.", "It is given 0 to 1.")
        with self._lock:
            self._progress = progress or self._progress
            if self.alive and self.info is not None:
                return self.info
            if self._loading is None:
                self._loading = Future()
            loading = self._loading
            self._wake()
        try:
            return loading.result()
        except BaseException:
            if not loading.done():  # Ctrl-C: nobody wants the model any more
                self.kill()
            raise

    def submit(self, request: Request, tell: Callable[[Event], object]) -> Flight:
        """Put a request in line; `tell` gets its events, the last one `Finished` or `Failed`."""
        self.check_open()
        with self._lock:
            self._number += 1
            number = self._number
        flight = Flight(number, protocol.encode_request(number, request), tell)
        with self._lock:
            self.check_open()  # once more: it may have been closed meanwhile
            self._waiting.append(flight)
            self._wake()
        self._fill()
        return flight

    def cancel(self, flight: Flight) -> None:
        """End a request: at once if it waits, else as soon as the child hears of it."""
        if self.forked:
            return
        with self._lock:
            flight.cancelled = True
            waited = flight in self._waiting
            if waited:
                self._waiting.remove(flight)
            child = self.child if flight.number in self._running else None
        if waited:
            flight.tell(Finished("cancelled", Stats()))
        elif child is not None:
            _send_cancel(child, flight.number)

    def cancel_all(self) -> None:
        """End all requests, and the errand."""
        if self.forked:
            return
        with self._lock:
            flights = [*self._waiting, *self._running.values()]
            errand, child = self._errand, self.child
        for flight in flights:
            self.cancel(flight)
        if errand is not None and child is not None:
            _send_cancel(child, errand.number)

    def run_errand(self, line_of: Callable[[int], bytes]) -> dict[str, Any]:
        """Send the line of an errand, wait for what the child says; raises EngineError."""
        self.check_open()
        with self._errands:
            with self._lock:
                child = self.child
                if child is None or not self.alive:
                    raise EngineError("The engine is not running.", "Load it first.")
                self._number += 1
                errand = self._errand = Errand(self._number)
            try:
                child.send(line_of(errand.number))
                found = errand.box.get()
            finally:
                self._errand = None
        if isinstance(found, LocalseekError):
            raise found
        return found

    def kill(self) -> None:
        """End the child at once; what is in flight fails. Takes no lock: signal handlers may."""
        if (child := self.child) is not None and not self.forked:
            self._ready = False  # what is asked from now on is for the next one
            child.kill()

    def abandon(self) -> None:
        """Close without waiting and without a lock: for finalizers and the interpreter's exit."""
        if not self.forked:
            self._closed = True
            self.kill()

    def close(self) -> None:
        """End the child and the thread; what is in flight fails. May be called again."""
        if self.forked:
            return
        with self._lock:
            self._closed = True
            waiting, self._waiting = [*self._waiting], deque()
            loading, self._loading = self._loading, None
            child, thread, ready = self.child, self._thread, self._ready
        for flight in waiting:
            flight.tell(Failed(*CLOSED, fatal=True))
        if loading is not None:
            loading.set_exception(EngineError(*CLOSED))
        if child is not None and ready:
            child.end()
        elif child is not None:  # one that loads has nothing to save
            child.kill()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        late, self._late = self._late, []
        for text in late:
            self._say(text)

    def check_open(self) -> None:
        """Raise EngineError if it was closed, or belongs to the process that forked this one."""
        self.check_process()
        if self._closed:
            raise EngineError(*CLOSED)

    def check_process(self) -> None:
        """Raise EngineError in a forked process: nothing would ever come here."""
        if self.forked:
            raise EngineError(
                "An engine cannot be used in a process that was forked after it was made.",
                "Make one there.",
            )

    def _wake(self) -> None:
        """Let there be a thread; with the lock held."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="localseek", daemon=True)
            self._thread.start()

    def _fill(self) -> None:
        """Give free places to those that wait."""
        while True:
            with self._lock:
                child, places = self.child, self.info.parallel if self.info else 1
                if not self._waiting or len(self._running) >= places:
                    return
                if self._closed or child is None or not self.alive:
                    return  # the thread is about to start another
                flight = self._waiting.popleft()
                if flight.abandoned:
                    continue
                flight.begun = True
                self._running[flight.number] = flight
                late, self._late = self._late, []
            for text in late:
                flight.tell(Notice(text))
            try:
                child.send(flight.line)
            except EngineError:  # it has just died: the next one takes the request
                self._put_back(flight)
                return

    def _put_back(self, flight: Flight) -> None:
        """Let a request wait again that reached nobody, unless it has its end already."""
        with self._lock:
            if self._running.pop(flight.number, None) is None:
                return
            flight.begun = False
            if not flight.cancelled:
                self._waiting.appendleft(flight)
        if flight.cancelled:
            flight.tell(Finished("cancelled", Stats()))

    # What follows runs on the switchboard's thread.

    def _work(self) -> None:
        """Run one child after another, as long as somebody waits for one."""
        while True:
            try:
                self._run()
            except BaseException as error:  # noqa: BLE001 — else whoever waits would wait for ever
                self._refuse(error)
            with self._lock:
                if self._closed or not (self._waiting or self._loading):
                    self._thread = None
                    return

    def _run(self) -> None:
        """Start a child and pass on what it says until it is gone; raises what keeps it away."""
        child = Child(self.options)
        try:
            with self._lock:
                self.child = child
                if self._closed:
                    raise EngineError(*CLOSED)
            told = _Told(self._progress)
            try:
                info = child.load(told.hear)
            except (ValueError, KeyError, TypeError) as error:
                if error is told.error:
                    raise
                raise EngineError(_nonsense(error)) from error
            with self._lock:
                self.info, self._ready = info, True
                loading, self._loading = self._loading, None
            if loading is not None:
                loading.set_result(info)
            self._fill()
            failed = self._read(child)
        finally:
            with self._lock:
                self.child, self._ready = None, False
            child.close()
        self._bury(Failed(*CLOSED, fatal=True) if self._closed else failed)

    def _read(self, child: Child) -> Failed:
        """Hand on all messages; give the cause of the end."""
        try:
            while (message := child.receive()) is not None:
                self._hear(message)
        except (ValueError, KeyError, TypeError) as error:
            child.kill()
            return Failed(_nonsense(error), fatal=True)
        how, where, log = child.death()
        return Failed(how, where, fatal=True, log=log)

    def _hear(self, message: dict[str, Any]) -> None:
        kind, number, errand = message["event"], message.get("request", 0), self._errand
        if errand is not None and (number == errand.number or kind in UNNUMBERED):
            errand.box.put(refusal(message) if kind == "Failed" else message)
            return
        flight = self._running.get(number)
        if flight is None:
            if kind == "Notice":
                self._hear_late(message["text"])
            return
        event = protocol.decode_event(message)
        if isinstance(event, Finished | Failed):
            with self._lock:
                self._running.pop(number, None)
            flight.tell(event)
            self._fill()
            return
        flight.tell(event)
        if flight.abandoned and not flight.cancelled:
            self.cancel(flight)

    def _hear_late(self, text: str) -> None:
        """Let the newest request tell what came of one that was over, or the next, or `close`."""
        with self._lock:
            flight = self._running[max(self._running)] if self._running else None
            if flight is None:
                self._late.append(text)
        if flight is not None:
            flight.tell(Notice(text))

    def _bury(self, failed: Failed) -> None:
        """Tell all whom a dead child has left without an end."""
        with self._lock:
            running, self._running = [*self._running.values()], {}
            errand = self._errand
        for flight in running:
            flight.tell(failed)
        if errand is not None:
            errand.box.put(EngineError(failed.message, failed.hint))

    def _refuse(self, error: BaseException) -> None:
        """Tell all who wait that no child can be had."""
        with self._lock:
            waiting, self._waiting = [*self._waiting], deque()
            loading, self._loading = self._loading, None
        if isinstance(error, LocalseekError):
            failed = Failed(error.message, error.hint, fatal=True)
        else:
            failed = Failed(f"The engine could not be started: {error!r}.", fatal=True)
        for flight in waiting:
            flight.tell(failed)
        if loading is not None:
            loading.set_exception(error)


def _send_cancel(child: Child, number: int) -> None:
    try:
        child.send(protocol.encode({"op": "cancel", "request": number}))
    except EngineError:
        return  # it is gone, and so will the request be


def _nonsense(error: Exception) -> str:
    return f"The engine answered with nonsense: {error!r}."
