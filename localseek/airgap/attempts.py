"""The proof: reach out in every way, from inside, and say what stopped each.

`native` asks the kernel itself, as code in llama.cpp or a driver could, `by_python` what Python
code could do. Addresses are those that are reserved for documentation, so whatever gets out
arrives nowhere. An attempt that a layer did not stop got through, even if no network was there to
answer it. Takes which layers hold, gives what each attempt met.
"""

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from localseek.airgap import kernel
from localseek.airgap.hook import OfflineError
from localseek.airgap.layers import HOOK, LANDLOCK, NAMESPACE, SECCOMP, Layers

NOWHERE, NOWHERE_V6 = "192.0.2.1", "2001:db8::1"  # RFC 5737, RFC 3849
PORT = 9
NAME = "example.com"  # RFC 2606
AF_UNIX, AF_INET, AF_INET6, AF_PACKET = 1, 2, 10, 17
STREAM, DATAGRAM, RAW, NOT_WAITING = 1, 2, 3, 0o4000
LINK_GETTING = struct.pack("=IHHIIBxHiII", 32, 18, 0x301, 1, 0, 0, 0, 0, 0, 0)  # RTM_GETLINK
NO_WAY = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN)
UNTRIED = "could not be tried"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt: what was tried, what stopped it ("" if nothing did), and the system's words."""

    what: str
    by: str
    words: str = ""

    @property
    def through(self) -> bool:
        """Tell whether it got through."""
        return not self.by


def native(layers: Layers, listener: str, secret: str) -> list[Attempt]:
    """Reach out from this process by the kernel's own calls.

    `listener` is an abstract Unix socket that somebody listens at, `secret` a file that the
    process has no business with.
    """
    v4 = struct.pack("=H", AF_INET) + struct.pack("!H4s8x", PORT, socket.inet_aton(NOWHERE))
    v6 = struct.pack("=H", AF_INET6) + struct.pack(
        "!HI16sI", PORT, 0, socket.inet_pton(socket.AF_INET6, NOWHERE_V6), 0
    )
    abstract = struct.pack("=H", AF_UNIX) + b"\0" + listener.encode()
    return [
        _connected(layers, f"TCP to {NOWHERE}", AF_INET, STREAM, v4),
        _connected(layers, f"TCP to {NOWHERE_V6}", AF_INET6, STREAM, v6),
        _sent(layers, f"UDP to {NOWHERE}", v4),
        _named(layers),
        _made(layers, "a raw socket", AF_INET, RAW, 1),
        _made(layers, "packets of an interface", AF_PACKET, RAW, 0),
        _connected(layers, "an abstract Unix socket outside", AF_UNIX, STREAM, abstract),
        _ring(layers),
        _started(layers),
        _looked(layers),
        _opened(layers, "reading a file beside the history", secret, os.O_RDONLY),
        _opened(layers, "writing there", secret, os.O_WRONLY),
    ]


def by_python() -> list[Attempt]:
    """Reach out from this process as Python code would."""

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.sendto(b"", (NOWHERE, PORT))

    def connect(family: int, place: str) -> None:
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.setblocking(False)
            one.connect_ex((place, PORT))

    def listen() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as one:
            one.bind(("0.0.0.0", 0))

    return [
        _python(f"TCP to {NOWHERE}", lambda: connect(socket.AF_INET, NOWHERE)),
        _python(f"TCP to {NOWHERE_V6}", lambda: connect(socket.AF_INET6, NOWHERE_V6)),
        _python(f"UDP to {NOWHERE}", send),
        _python(f"the address of {NAME}", lambda: socket.getaddrinfo(NAME, PORT)),
        _python("listening", listen),
    ]


def _python(what: str, reach: Callable[[], object]) -> Attempt:
    try:
        reach()
    except OfflineError:
        return Attempt(what, HOOK)
    except OSError as error:
        return Attempt(what, "", f"nothing of localseek's stopped it: {error.strerror or error}")
    return Attempt(what, "")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _stopped(layers: Layers, what: str, number: int, denied: str, away: str = NAMESPACE) -> Attempt:
    """Give what an error tells: `denied` is who refuses with EPERM, `away` who has no way out."""
    words = os.strerror(number)
    if number == errno.EPERM and layers.holds(denied):
        return Attempt(what, denied, words)
    if number == errno.EACCES and layers.holds(LANDLOCK):
        return Attempt(what, LANDLOCK, words)
    if number in (*NO_WAY, errno.ECONNREFUSED) and layers.holds(away):
        return Attempt(what, away, words)
    return Attempt(what, "", f"nothing of localseek's stopped it: {words}")


def _socket(layers: Layers, what: str, family: int, kind: int, protocol: int) -> int | Attempt:
    found = int(_libc().socket(family, kind, protocol))
    if found >= 0:
        return found
    number = ctypes.get_errno()
    if number == errno.EPERM and not layers.holds(SECCOMP) and layers.holds(NAMESPACE):
        return Attempt(what, NAMESPACE, "it has no rights in the network outside")
    return _stopped(layers, what, number, SECCOMP)


def _made(layers: Layers, what: str, family: int, kind: int, protocol: int) -> Attempt:
    """Make a socket; in a namespace of its own it may, and there is nothing to reach."""
    found = _socket(layers, what, family, kind, protocol)
    if isinstance(found, Attempt):
        return found
    os.close(found)
    return Attempt(what, NAMESPACE if layers.holds(NAMESPACE) else "", "it is made")


def _connected(layers: Layers, what: str, family: int, kind: int, address: bytes) -> Attempt:
    found = _socket(layers, what, family, kind | NOT_WAITING, 0)
    if isinstance(found, Attempt):
        return found
    try:
        if _libc().connect(found, address, len(address)) == 0:
            return Attempt(what, "")
        number = ctypes.get_errno()
    finally:
        os.close(found)
    if number == errno.EINPROGRESS:
        return Attempt(what, "", "it is on its way")
    return _stopped(layers, what, number, LANDLOCK)


def _sent(layers: Layers, what: str, address: bytes) -> Attempt:
    found = _socket(layers, what, AF_INET, DATAGRAM, 0)
    if isinstance(found, Attempt):
        return found
    try:
        if _libc().sendto(found, b"", 0, 0, address, len(address)) == 0:
            return Attempt(what, "")
        return _stopped(layers, what, ctypes.get_errno(), SECCOMP)
    finally:
        os.close(found)


def _named(layers: Layers) -> Attempt:
    """Ask for an address as C code does; what answers is not only a socket of its own."""
    what, libc, found = f"the address of {NAME}", _libc(), ctypes.c_void_p()
    status = int(libc.getaddrinfo(NAME.encode(), None, None, ctypes.byref(found)))
    if status == 0:
        libc.freeaddrinfo(found)
        return Attempt(what, "")
    libc.gai_strerror.restype = ctypes.c_char_p
    words = (libc.gai_strerror(status) or b"").decode(errors="replace")
    by = next((name for name in (SECCOMP, NAMESPACE) if name in layers.cutting), "")
    return Attempt(what, by, words)


def _ring(layers: Layers) -> Attempt:
    what, room = "sockets through io_uring", ctypes.create_string_buffer(256)
    try:
        os.close(kernel.call("io_uring_setup", 1, room))
    except kernel.Refused as error:
        number = ctypes.get_errno()
        if layers.holds(SECCOMP) and number == errno.ENOSYS:
            return Attempt(what, SECCOMP, str(error))
        return Attempt(what, UNTRIED, str(error))  # this kernel has or gives none
    return Attempt(what, NAMESPACE if layers.holds(NAMESPACE) else "", "it is made")


def _started(layers: Layers) -> Attempt:
    what, path = "starting another program", b"/bin/true"
    pid = ctypes.c_int()
    words, variables = (ctypes.c_char_p * 2)(path, None), (ctypes.c_char_p * 1)(None)
    number = int(_libc().posix_spawn(ctypes.byref(pid), path, None, None, words, variables))
    if number == 0:
        os.waitpid(pid.value, 0)
        return Attempt(what, "")
    if number == errno.ENOENT:
        return Attempt(what, UNTRIED, "there is no /bin/true")
    return _stopped(layers, what, number, SECCOMP)


def _looked(layers: Layers) -> Attempt:
    """Read memory of the process that started this one, at an address that is nobody's."""
    what, room = "a look into another process", ctypes.create_string_buffer(1)
    here = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(room), 1), 16)
    there = ctypes.create_string_buffer(struct.pack("=QQ", 1, 1), 16)
    try:
        kernel.call("process_vm_readv", os.getppid(), here, 1, there, 1, 0)
    except kernel.Refused as error:
        number = ctypes.get_errno()
        if number != errno.EPERM:
            return Attempt(what, "" if number == errno.EFAULT else UNTRIED, str(error))
        holder = next((one for one in (SECCOMP, LANDLOCK) if layers.holds(one)), "the system")
        return Attempt(what, holder, str(error))
    return Attempt(what, "")


def _opened(layers: Layers, what: str, path: str, flags: int) -> Attempt:
    try:
        os.close(os.open(Path(path), flags))
    except OSError as error:
        return _stopped(layers, what, error.errno or 0, LANDLOCK)
    return Attempt(what, "")
