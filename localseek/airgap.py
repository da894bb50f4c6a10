"""Cut a process off from every network, by the kernel, before it touches a model.

The engine child calls `isolate` first thing. On Linux it enters an empty network namespace: no
interface, not even loopback is up, and there is no way back. Elsewhere, or where the kernel
forbids it, the process goes on and says so: `localseek doctor` shows it.
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
    # Root needs no user namespace; for anybody else one gives the right to leave the network.
    flags = CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWUSER | CLONE_NEWNET
    if libc.unshare(flags) != 0:
        return f"the kernel refused: {os.strerror(ctypes.get_errno())}"
    return ""
