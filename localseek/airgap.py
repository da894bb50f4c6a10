"""Cut a process off from every network, by the kernel, before it touches a model.

The engine child calls `isolate` first thing. On Linux it enters an empty user and network
namespace: no interface, not even loopback is up, and there is no way back. Elsewhere, or where the
kernel forbids it, the process goes on and says so: `localseek doctor` shows it.
"""

import ctypes
import os
import sys

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h


def isolate() -> str:
    """Enter an empty network namespace; give "" if it worked, else the reason why not.

    Must run before any thread is started: the kernel refuses a new user namespace after that.
    """
    if sys.platform != "linux":
        return "only Linux has network namespaces"
    libc = ctypes.CDLL(None, use_errno=True)
    # A user namespace of its own gives anybody the right to leave the network, and takes from
    # root the right to come back. Where it is forbidden, root may still leave.
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0 or libc.unshare(CLONE_NEWNET) == 0:
        return ""
    return f"the kernel refused: {os.strerror(ctypes.get_errno())}"
