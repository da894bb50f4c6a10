"""The engine's only way to workers: a process of its own that stays outside when the engine leaves.

The engine child starts it before it enters its empty network namespace, then hands it sockets
that listen on that namespace's own loopback. The bridge connects to the workers that the user
named, to nothing else, and passes bytes. So the kernel still keeps the engine from every other
address. A worker that closes or does not answer is written to the log with `LOST`, and the engine's
connection is closed: llama.cpp then gives up.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NoReturn

from localseek.airgap.hook import refuse_networks
from localseek.engine.process.rpc import (
    Frames,
    WorkerFacts,
    connect,
    probe,
    same_workers,
    split_address,
)

LOST = "worker lost: "  # what client.py looks for in the log
CHUNK = 1 << 20
TICK_S = 1.0


@dataclass(frozen=True, slots=True)
class Remote:
    """A worker as the engine sees it: what it said, and where to reach it from here."""

    facts: WorkerFacts
    local: str  # HOST:PORT in the engine's own network namespace


class Bridge:
    """The engine's end: facts about the workers, then listeners for them."""

    def __init__(self, addresses: Sequence[str], timeout_s: float) -> None:
        """Start the process; must run before any thread is started."""
        self._control, other = socket.socketpair()
        if os.fork() == 0:
            self._control.close()
            _serve(other, addresses, timeout_s)
        other.close()
        with self._control.makefile("rb") as lines:
            listed = json.loads(lines.readline())
        self.facts = [
            WorkerFacts(**{**one, "memory": tuple(map(tuple, one["memory"]))}) for one in listed
        ]

    def open(self) -> list[Remote]:
        """Listen for llama.cpp, one socket a worker, in the network namespace that this is in."""
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in self.facts]
        remotes = [
            Remote(facts, f"127.0.0.1:{listener.getsockname()[1]}")
            for facts, listener in zip(self.facts, listeners, strict=True)
        ]
        socket.send_fds(self._control, [b"l"], [listener.fileno() for listener in listeners])
        for listener in listeners:
            listener.close()
        return remotes


def _serve(control: socket.socket, addresses: Sequence[str], timeout_s: float) -> NoReturn:
    """Be the bridge until the engine is gone."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)  # else the engine's death would not close its pipes
    refuse_networks(named=[split_address(address) for address in addresses], programs=False)
    found: list[WorkerFacts] = [WorkerFacts(address) for address in addresses]
    same = same_workers(addresses)

    def look(index: int) -> None:
        address = addresses[index]
        if address in same:  # it would wait for itself: a worker serves one at a time
            problem = f"is the same worker as {same[address]}: name it once"
            found[index] = WorkerFacts(address, problem)
        else:
            found[index] = probe(address)

    lookers = [threading.Thread(target=look, args=(index,)) for index in range(len(addresses))]
    for thread in lookers:
        thread.start()
    for thread in lookers:
        thread.join()
    with contextlib.suppress(OSError):
        control.sendall(json.dumps([asdict(facts) for facts in found]).encode() + b"\n")
        _, descriptors, _, _ = socket.recv_fds(control, 1, len(addresses))
        for address, descriptor in zip(addresses, descriptors, strict=True):
            listener = socket.socket(fileno=descriptor)
            threading.Thread(
                target=_listen, args=(listener, address, timeout_s), daemon=True
            ).start()
        control.recv(1)  # nothing comes: it ends when the engine does
    os._exit(0)


def _listen(listener: socket.socket, address: str, timeout_s: float) -> None:
    while True:
        inner, _ = listener.accept()
        inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            outer = connect(address)
        except OSError as error:
            _lose(address, f"cannot be reached: {error.strerror or error}")
            inner.close()
            continue
        Passage(inner, outer, address, timeout_s).start()


def _lose(address: str, what: str) -> None:
    os.write(2, f"{LOST}{address} {what}\n".encode())


class Passage:
    """One connection of llama.cpp's to one worker: bytes both ways, and a watch on the answers."""

    def __init__(
        self, inner: socket.socket, outer: socket.socket, address: str, timeout_s: float
    ) -> None:
        self.inner, self.outer, self.address, self.timeout_s = inner, outer, address, timeout_s
        self._asked, self._answered = Frames(requests=True), Frames(requests=False)
        self._since = time.monotonic()  # the last time that something moved
        self._over = threading.Lock()

    def start(self) -> None:
        """Pass bytes on two threads, until either side closes."""
        self.outer.settimeout(TICK_S)
        threading.Thread(target=self._outwards, daemon=True).start()
        threading.Thread(target=self._inwards, daemon=True).start()

    def _outwards(self) -> None:
        try:
            while data := self.inner.recv(CHUNK):
                self._asked.feed(data)
                self._since = time.monotonic()
                self._push(memoryview(data))
        except OSError as error:
            # What `_check` raises has no number, and is a sentence's end already.
            self._end(f"failed: {error.strerror}" if error.strerror else str(error))
            return
        self._end("")  # the engine has closed: nothing is lost

    def _push(self, data: memoryview) -> None:
        """Send all; raises OSError when nothing moves for too long."""
        while data:
            try:
                data = data[self.outer.send(data) :]
                self._since = time.monotonic()
            except TimeoutError:
                self._check()

    def _inwards(self) -> None:
        while True:
            try:
                data = self.outer.recv(CHUNK)
                if not data:
                    self._end("closed the connection")
                    return
                self._answered.feed(data)
                self._since = time.monotonic()
                self.inner.sendall(data)
            except TimeoutError:
                try:
                    if self._asked.counted > self._answered.counted:
                        self._check()
                except OSError as error:
                    self._end(str(error))
                    return
            except OSError as error:
                self._end(f"failed: {error.strerror or error}")
                return

    def _check(self) -> None:
        """Raise OSError when the worker has kept the engine waiting for too long."""
        if time.monotonic() - self._since > self.timeout_s:
            raise OSError(f"has not answered for {self.timeout_s:g} s")

    def _end(self, problem: str) -> None:
        """Close both sides, once, and say why if it was the worker's doing."""
        if not self._over.acquire(blocking=False):
            return
        if problem:
            _lose(self.address, problem)
        for side in (self.inner, self.outer):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()
