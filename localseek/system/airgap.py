"""Cut a process off from every network, by the kernel, before it touches a model.

The engine child calls `isolate` first thing. On Linux it enters an empty user and network
namespace: no interface, not even loopback is up, and there is no way back. With workers, its own
loopback is up, and bridge.py leads from there to them. Elsewhere, or where the
kernel forbids it, the process goes on and says so: `localseek doctor` shows it.
"""

import ctypes
import os
import socket
import struct
import sys

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h


SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1  # linux/sockios.h, linux/if.h


def isolate(loopback: bool = False) -> str:
    """Enter an empty network namespace; give "" if it worked, else the reason why not.

    `loopback` brings the namespace's own loopback up, which leads nowhere but to this process.
    Must run before any thread is started: the kernel refuses a new user namespace after that.
    """
    if sys.platform != "linux":
        return "only Linux has network namespaces"
    libc = ctypes.CDLL(None, use_errno=True)
    # A user namespace of its own gives anybody the right to leave the network, and takes from
    # root the right to come back. Where it is forbidden, root may still leave.
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0 or libc.unshare(CLONE_NEWNET) == 0:
        return _raise_loopback() if loopback else ""
    return f"the kernel refused: {os.strerror(ctypes.get_errno())}"


def _raise_loopback() -> str:
    import fcntl  # noqa: PLC0415  (not on every system)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
        except OSError as error:
            return f"its loopback stays down: {error.strerror}"
    return ""
