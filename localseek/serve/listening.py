"""Where a server listens: a loopback address or a Unix socket, both closed to everybody else.

Takes what the command line says, gives a bound socket; raises UsageError. Knows nothing about what
is served.
"""

import contextlib
import errno
import ipaddress
import os
import socket
import stat
from pathlib import Path

from localseek.errors import UsageError

OWNER_ONLY = 0o600
BACKLOG = 128  # connections that the kernel keeps while none is accepted


def loopback(host: str, port: int) -> socket.socket:
    """Bind to an address of this machine that no other one reaches."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError as error:
        raise UsageError(f"{host!r} is not an IP address.", "Such as 127.0.0.1.") from error
    if not address.is_loopback:
        raise UsageError(
            f"{host} is not a loopback address: other machines could read along.",
            "Use 127.0.0.1, and an ssh tunnel from elsewhere.",
        )
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((str(address), port))
    except OSError as error:
        listener.close()
        raise UsageError(
            f"{host}:{port} cannot be listened on: {error.strerror}.",
            "Choose another --host."
            if error.errno == errno.EADDRNOTAVAIL
            else "Choose another --port; 0 takes any free one.",
        ) from error
    return listener


def unix(path: Path) -> socket.socket:
    """Bind to a socket in the file system that its owner alone can use."""
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~OWNER_ONLY)  # never open to others, not even for a moment
    try:
        listener.bind(str(path))
        path.chmod(OWNER_ONLY)
    except OSError as error:
        listener.close()
        why = error.strerror or error
        raise UsageError(f"{path} cannot be listened on: {why}.", "Choose another.") from error
    finally:
        os.umask(before)
    return listener


def _clear(path: Path) -> None:
    """Remove a socket that a dead server has left behind; raises UsageError for anything else."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise UsageError(f"{path} is there and is not a socket.", "Choose another --socket.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        try:
            trial.connect(str(path))
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            return
        except OSError:
            pass
    raise UsageError(f"Another server listens at {path}.", "Choose another --socket.")


def url_of(listener: socket.socket) -> tuple[str, int]:
    """Give the host as URLs have it, and the port."""
    name = listener.getsockname()
    host, port = name[0], int(name[1])
    return (f"[{host}]" if ":" in host else host), port
