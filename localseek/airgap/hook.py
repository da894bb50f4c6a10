"""Python's audit hook: no Python code of this process reaches a network, whatever it imports.

The second-best layer: native code passes it by. It holds on every system, in the command line's
own processes and in the engine. Takes what may pass; a hook cannot be taken away again, so it is
installed by programs, never by importing localseek.
"""

import contextlib
import ipaddress
import os
import socket
import sys
from collections.abc import Callable, Sequence

from localseek.errors import LocalseekError

AF_UNIX = 1
REACHING = frozenset((
    "socket.__new__", "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg",
    "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo",
))  # fmt: skip
STARTING = frozenset((
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile",
    "pty.spawn",
))  # fmt: skip
WITHOUT_HOOK = ("pull", "worker")  # verbs whose business it is
OFFLINE = {  # what libraries heed
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1",
}  # fmt: skip


class OfflineError(LocalseekError, PermissionError):
    """Something reached for a network, or for another program, and was refused."""


def begin_offline(verb: str) -> None:
    """Refuse networks for good to the process that runs a verb, unless the verb is about them."""
    if verb in WITHOUT_HOOK:
        return
    os.environ.update(OFFLINE)
    refuse_networks(may_listen=verb == "serve")


def refuse_networks(
    may_listen: bool = False, named: Sequence[tuple[str, int]] = (), programs: bool = True
) -> None:
    """Refuse sockets but Unix ones to this process's Python code, for good.

    `may_listen`: on loopback. `named`: hosts and ports that may be connected to, as they are named
    and as they are looked up here, once. `programs`: others may be started.
    """
    if may_listen:
        passes: Callable[[str, tuple[object, ...]], bool] = _listens
    elif named:
        passes = _reaching(named)
    else:
        passes = _is_unix

    def hook(event: str, given: tuple[object, ...]) -> None:
        if event in REACHING:
            if not passes(event, given):
                raise OfflineError(f"Offline: {_words(event, given)} was refused.")
        elif not programs and event in STARTING:
            raise OfflineError("The engine starts no programs: one was refused.")

    sys.addaudithook(hook)


def _words(event: str, given: tuple[object, ...]) -> str:
    where = given[0] if event.startswith("socket.get") else given[-1]
    if event == "socket.__new__":
        return "a socket for a network"
    named = isinstance(where, str | tuple) and where
    return f"{event.removeprefix('socket.')} {where!r}" if named else event


def _is_unix(event: str, given: tuple[object, ...]) -> bool:
    """Tell whether an event is about a socket of this machine's file system."""
    if event == "socket.__new__":
        return given[1] in (AF_UNIX, -1)  # -1: of a descriptor that is there already
    return bool(given) and getattr(given[0], "family", None) == AF_UNIX


def _listens(event: str, given: tuple[object, ...]) -> bool:
    """Let a server take connections at a loopback address; it makes none."""
    if event == "socket.__new__":
        return True  # what is accepted is one too
    if event == "socket.bind" and _is_loopback(given[1]):
        return True
    return _is_unix(event, given)


def _is_loopback(address: object) -> bool:
    try:
        return isinstance(address, tuple) and ipaddress.ip_address(address[0]).is_loopback
    except ValueError:  # a name
        return False


def _reaching(
    named: Sequence[tuple[str, int]],
) -> Callable[[str, tuple[object, ...]], bool]:
    """Let the hosts that are named be looked up, and what they then are be connected to."""
    places: set[tuple[object, object]] = set()
    for host, port in named:
        with contextlib.suppress(OSError):  # whoever connects is told
            places |= {info[4][:2] for info in socket.getaddrinfo(host, port)}
    names = {host for host, _ in named}

    def passes(event: str, given: tuple[object, ...]) -> bool:
        if event == "socket.__new__":
            return True
        if event == "socket.getaddrinfo":
            return given[0] in names
        if event == "socket.connect" and isinstance(given[1], tuple):
            return given[1][:2] in places
        return _is_unix(event, given)

    return passes
