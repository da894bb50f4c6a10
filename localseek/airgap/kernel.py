"""Linux as the layers need it: system calls by number, errors as words, no new rights.

Numbers are those of asm/unistd_64.h (x86-64) and asm-generic/unistd.h (aarch64); from 424 on all
processors share them. Other systems and processors have none here: the layers say so by name.
"""

import ctypes
import os
import sys
from dataclasses import dataclass

PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
SHARED = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "pidfd_getfd": 438,
    "process_madvise": 440, "mount_setattr": 442, "landlock_create_ruleset": 444,
    "landlock_add_rule": 445, "landlock_restrict_self": 446,
}  # fmt: skip
X86_64 = SHARED | {
    "socket": 41, "sendto": 44, "sendmsg": 46, "sendmmsg": 307, "execve": 59, "execveat": 322,
    "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
    "unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161,
    "open_by_handle_at": 304, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323,
    "add_key": 248, "request_key": 249, "keyctl": 250, "init_module": 175, "finit_module": 313,
    "delete_module": 176, "kexec_load": 246, "kexec_file_load": 320, "seccomp": 317,
}  # fmt: skip
AARCH64 = SHARED | {
    "socket": 198, "sendto": 206, "sendmsg": 211, "sendmmsg": 269, "execve": 221, "execveat": 281,
    "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272,
    "unshare": 97, "setns": 268, "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51,
    "open_by_handle_at": 265, "bpf": 280, "perf_event_open": 241, "userfaultfd": 282,
    "add_key": 217, "request_key": 218, "keyctl": 219, "init_module": 105, "finit_module": 273,
    "delete_module": 106, "kexec_load": 104, "kexec_file_load": 294, "seccomp": 277,
}  # fmt: skip


@dataclass(frozen=True)
class Processor:
    """What a filter of system calls must know of a processor."""

    name: str
    audit: int  # AUDIT_ARCH_* of linux/audit.h
    calls: dict[str, int]
    foreign: int  # system calls from this number on are those of another convention; 0: none


PROCESSORS = {
    "x86_64": Processor("x86_64", 0xC000003E, X86_64, 0x40000000),  # x32's numbers begin there
    "aarch64": Processor("aarch64", 0xC00000B7, AARCH64, 0),
}


class Refused(Exception):
    """The kernel does not give a layer; the text says why."""


def processor() -> Processor:
    """Give this processor; raises Refused where its system calls are not known here."""
    if sys.platform != "linux":
        raise Refused("only Linux has it")
    name = os.uname().machine
    if name not in PROCESSORS or sys.maxsize < 2**32:
        raise Refused(f"system calls of {name} are not known to localseek")
    return PROCESSORS[name]


def call(name: str, *words: int | ctypes.Array[ctypes.c_char] | ctypes.Structure | None) -> int:
    """Make a system call; raises Refused with the system's reason.

    Structures and buffers are given by their address.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    given = [ctypes.c_long(one) if isinstance(one, int) else _address(one) for one in words]
    done = int(libc.syscall(ctypes.c_long(processor().calls[name]), *given))
    if done < 0:
        raise Refused(os.strerror(ctypes.get_errno()))
    return done


def take_no_new_rights() -> None:
    """Let no program that this process starts have more rights than it; raises Refused."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise Refused(os.strerror(ctypes.get_errno()))


def _address(one: "ctypes.Array[ctypes.c_char] | ctypes.Structure | None") -> object:
    return None if one is None else ctypes.byref(one)
