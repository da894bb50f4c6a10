"""An empty network namespace: the process leaves every network, by the kernel.

No interface, not even loopback is up, and there is no way back. With workers, its own loopback is
up, and bridge.py leads from there to them. Holds native code, threads and what is started later.
"""

import ctypes
import os
import socket
import struct
import sys

from localseek.airgap.kernel import Refused

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1  # linux/sockios.h, linux/if.h


def leave_networks(loopback: bool = False) -> None:
    """Enter an empty network namespace; raises Refused.

    `loopback` brings the namespace's own loopback up, which leads nowhere but to this process.
    Must run before any thread is started: the kernel refuses a new user namespace after that.
    """
    if sys.platform != "linux":
        raise Refused("only Linux has it")
    libc = ctypes.CDLL(None, use_errno=True)
    # A user namespace of its own gives anybody the right to leave the network, and takes from
    # root the right to come back. Where it is forbidden, root may still leave.
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0 and libc.unshare(CLONE_NEWNET) != 0:
        raise Refused(os.strerror(ctypes.get_errno()))
    if loopback:
        _raise_loopback()


def _raise_loopback() -> None:
    import fcntl  # noqa: PLC0415  (not on every system)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
        except OSError as error:
            raise Refused(f"its loopback stays down: {error.strerror}") from error
