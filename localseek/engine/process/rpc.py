"""llama.cpp's RPC as far as it must be known outside of llama.cpp: who answers, and how fast.

Takes an address, gives a `WorkerFacts`; follows a connection's bytes to tell whether an answer is
awaited. The protocol is that of ggml/src/ggml-rpc/ggml-rpc.cpp: a command byte, the size and the
bytes of a request, and for some commands the size and the bytes of a response. It knows no
authentication and no encryption. Knows nothing about models.
"""

import re
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

VERSION = (7, 0)  # RPC_PROTO_MAJOR_VERSION and MINOR of llama-cpp-python 0.3.36
ALLOC, BASE, FREE, SET, GET, MEMORY, HELLO, COUNT = 0, 3, 4, 6, 8, 11, 14, 15  # enum rpc_cmd
ANSWERED = frozenset({0, 1, 2, 3, 7, 8, 9, 11, 13, 14, 15})  # commands with a response
CAPABILITIES = 24  # bytes in a greeting
CONNECT_S, ANSWER_S = 5.0, 5.0
LINE_S = 1.0  # that a server of text takes to answer a line
ROUND_TRIPS = 5
TRIAL_BYTES = 4 << 20  # sent twice to measure the link: 0.7 s at 100 Mbit/s
TENSOR = struct.Struct("<QIQ4I4II16ii10QQQQ64si")  # struct rpc_tensor, packed
I8 = 24  # enum ggml_type
ADDRESS = re.compile(r"(?:(?P<host>[\w.-]+)|\[(?P<v6>[0-9a-fA-F:.%\w]+)\]):(?P<port>\d{1,5})", re.A)


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What a worker says of itself, or in `problem` why it cannot be used."""

    address: str
    problem: str = ""
    version: str = ""
    memory: tuple[tuple[int, int], ...] = ()  # of each of its devices: free, total
    bandwidth: float = 0.0  # bytes a second
    latency_s: float = 0.0  # there and back


class ProtocolError(Exception):
    """The other side does not speak llama.cpp's RPC."""


def split_address(address: str) -> tuple[str, int]:
    """Read HOST:PORT; raises ValueError."""
    match = ADDRESS.fullmatch(address)
    if not match or not 0 < int(match["port"]) < 65536:
        raise ValueError("not HOST:PORT, such as 127.0.0.1:50052")
    host = match["host"] or match["v6"]
    try:
        host.encode("idna")  # as sockets will
    except UnicodeError as error:
        raise ValueError("not HOST:PORT: no host has such a name") from error
    return host, int(match["port"])


def connect(address: str) -> socket.socket:
    """Connect to a worker; raises OSError."""
    found = socket.create_connection(split_address(address), CONNECT_S)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return found


def same_workers(addresses: Sequence[str]) -> dict[str, str]:
    """Give the addresses that lead where an earlier one does, with that one."""
    seen: dict[tuple[str, int], str] = {}
    found = {}
    for address in addresses:
        try:
            infos = socket.getaddrinfo(*split_address(address), type=socket.SOCK_STREAM)
        except OSError:  # connecting will say so
            continue
        places = [(str(info[4][0]), int(info[4][1])) for info in infos]
        earlier = next((seen[place] for place in places if place in seen), None)
        if earlier is not None:
            found[address] = earlier
        seen.update(dict.fromkeys(places, address))
    return found


def probe(address: str) -> WorkerFacts:
    """Greet a worker, ask for its devices and measure the link; never raises."""
    try:
        with connect(address) as link:
            link.settimeout(ANSWER_S)
            try:
                return _facts(address, link)
            except TimeoutError:
                _end_line(link)
                raise
    except TimeoutError:
        return WorkerFacts(
            address, "does not answer; it may be serving somebody else: one at a time"
        )
    except ProtocolError as error:
        return WorkerFacts(address, str(error))
    except OSError as error:
        return WorkerFacts(address, f"cannot be reached: {error.strerror or error}")


def _end_line(link: socket.socket) -> None:
    """Give who is silent the end of a line: servers of text wait for one; raises ProtocolError."""
    link.settimeout(LINE_S)
    link.sendall(b"\r\n\r\n")
    if link.recv(1):
        raise ProtocolError("is not a worker of llama.cpp's RPC")


def _facts(address: str, link: socket.socket) -> WorkerFacts:
    _send(link, HELLO, bytes(CAPABILITIES))
    greeting = _answer(link, 4 + CAPABILITIES)
    version = ".".join(str(number) for number in greeting[:3])
    if greeting[0] != VERSION[0] or greeting[1] > VERSION[1]:
        ours = ".".join(str(number) for number in VERSION)
        raise ProtocolError(
            f"speaks version {version} of llama.cpp's RPC and this machine {ours}: "
            "run the same version of localseek on both"
        )
    trips = []
    count = 0
    for _ in range(ROUND_TRIPS):
        started = time.perf_counter()
        _send(link, COUNT, b"")
        (count,) = struct.unpack("<I", _answer(link, 4))
        trips.append(time.perf_counter() - started)
    memory = []
    for device in range(count):
        _send(link, MEMORY, struct.pack("<I", device))
        memory.append(struct.unpack("<QQ", _answer(link, 16)))
    latency = min(trips)
    return WorkerFacts(address, "", version, tuple(memory), _bandwidth(link, latency), latency)


def _bandwidth(link: socket.socket, latency: float) -> float:
    """Write a buffer of the worker's twice, then read a byte of it; 0 when there is no room."""
    _send(link, ALLOC, struct.pack("<IQ", 0, TRIAL_BYTES))
    buffer, size = struct.unpack("<QQ", _answer(link, 16))
    if not buffer or size < TRIAL_BYTES:
        return 0.0
    _send(link, BASE, struct.pack("<Q", buffer))
    (data,) = struct.unpack("<Q", _answer(link, 8))
    n = TRIAL_BYTES
    shape, strides = (n, 1, 1, 1), (1, n, n, n)
    tensor = TENSOR.pack(
        1, I8, buffer, *shape, *strides, 0, *bytes(16), 0, *bytes(10), 0, 0, data, b"trial", 0
    )
    spent = []
    for _ in range(2):  # the first also makes the worker find the memory
        started = time.perf_counter()
        _send(link, SET, tensor + struct.pack("<Q", 0) + bytes(n))
        _send(link, GET, tensor + struct.pack("<QQ", 0, 1))
        _answer(link, 1)
        spent.append(time.perf_counter() - started - latency)
    _send(link, FREE, struct.pack("<Q", buffer))
    return n / max(min(spent), 1e-6)


def _send(link: socket.socket, command: int, request: bytes) -> None:
    link.sendall(struct.pack("<BQ", command, len(request)) + request)


def _answer(link: socket.socket, expected: int) -> bytes:
    """Read a response of a known size; raises ProtocolError for anything else."""
    (size,) = struct.unpack("<Q", _exactly(link, 8))
    if size != expected:
        raise ProtocolError("is not a worker of llama.cpp's RPC")
    return _exactly(link, size)


def _exactly(link: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = link.recv(count - len(found))
        if not part:
            raise ProtocolError("closed the connection: it is not a worker, or of another version")
        found += part
    return found


class Frames:
    """Follows one direction of a connection: how many whole messages that count have passed."""

    def __init__(self, requests: bool) -> None:
        self._head = 9 if requests else 8  # a request begins with its command
        self._partial = b""
        self._body = 0  # bytes of the message that are still to come
        self._counts = not requests
        self.counted = 0

    def feed(self, data: bytes) -> None:
        """Take bytes that have passed."""
        at = 0
        while at < len(data):
            if self._body:
                step = min(self._body, len(data) - at)
                self._body -= step
                at += step
                if not self._body:
                    self._end()
                continue
            step = min(self._head - len(self._partial), len(data) - at)
            self._partial += data[at : at + step]
            at += step
            if len(self._partial) == self._head:
                (self._body,) = struct.unpack("<Q", self._partial[-8:])
                if self._head == 9:
                    self._counts = self._partial[0] in ANSWERED
                self._partial = b""
                if not self._body:
                    self._end()

    def _end(self) -> None:
        self.counted += self._counts
