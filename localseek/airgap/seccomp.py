"""A filter of system calls: no sockets, no other programs, no look into other processes.

Takes what must stay possible, gives a program for the kernel's filter machine and installs it. It
holds native code too, and threads that start later; there is no way back. Which system calls
llama.cpp makes is not listed: what leads out is refused, all else passes, so that drivers of
devices that nobody here has go on working. Knows nothing about files; landlock.py does.
"""

import ctypes
import errno
import struct
from collections.abc import Iterable, Sequence

from localseek.airgap.kernel import Processor, Refused, call, processor, take_no_new_rights

REFUSED = (
    "execve", "execveat",  # other programs
    "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp",
    "unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount",
    "fsopen", "fsconfig", "fsmount", "mount_setattr", "open_by_handle_at",
    "bpf", "perf_event_open", "userfaultfd", "add_key", "request_key", "keyctl",
    "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load",
)  # fmt: skip
# It makes sockets and starts reads that no filter sees. ENOSYS: programs then do without it.
ABSENT = ("io_uring_setup", "io_uring_enter", "io_uring_register")
# A first packet sent along with its connection is not seen by Landlock's rule for connecting.
FLAGS = {"sendto": 3, "sendmsg": 2, "sendmmsg": 3}  # which argument has them
MSG_FASTOPEN = 0x20000000
AF_UNIX, AF_INET, SOCK_STREAM, TYPE_MASK, IPPROTO_TCP = 1, 2, 1, 0xF, 6

LOAD, AND, RETURN = 0x20, 0x54, 0x06  # BPF_LD|W|ABS, BPF_ALU|AND|K, BPF_RET|K of linux/filter.h
EQUAL, AT_LEAST, ANY_BIT = 0x15, 0x35, 0x45  # BPF_JMP with JEQ, JGE, JSET
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
ALLOW, ERRNO = 0x7FFF0000, 0x00050000  # SECCOMP_RET_*
SET_MODE_FILTER, SPEC_ALLOW = 1, 4  # the latter: no slower branches on kernels before 5.16
Step = tuple[int, int, int, int]  # code, steps to jump if true, if false, operand


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]


def close_off(unix: bool = False, tcp: bool = False) -> None:
    """Install the filter; raises Refused. `unix`, `tcp`: such sockets can still be made."""
    here = processor()
    install(program(here, unix, tcp))


def program(here: Processor, unix: bool, tcp: bool) -> list[Step]:
    """Give the steps of the filter for a processor."""
    no = ERRNO | errno.EPERM
    steps = [*_beginning(here)]
    steps += refusals((here.calls[name] for name in REFUSED), errno.EPERM)
    steps += refusals((here.calls[name] for name in ABSENT), errno.ENOSYS)
    if tcp:
        for name, argument in FLAGS.items():
            steps += [
                (EQUAL, 0, 4, here.calls[name]), (LOAD, 0, 0, ARGUMENTS + 8 * argument),
                (ANY_BIT, 0, 1, MSG_FASTOPEN), (RETURN, 0, 0, no), (RETURN, 0, 0, ALLOW),
            ]  # fmt: skip
    steps += [(EQUAL, 1, 0, here.calls["socket"]), (RETURN, 0, 0, ALLOW), (LOAD, 0, 0, ARGUMENTS)]
    if unix:
        steps += [(EQUAL, 0, 1, AF_UNIX), (RETURN, 0, 0, ALLOW)]
    if tcp:
        steps += [
            (EQUAL, 0, 6, AF_INET), (LOAD, 0, 0, ARGUMENTS + 8), (AND, 0, 0, TYPE_MASK),
            (EQUAL, 0, 3, SOCK_STREAM), (LOAD, 0, 0, ARGUMENTS + 16),
            (EQUAL, 2, 0, 0), (EQUAL, 1, 0, IPPROTO_TCP), (RETURN, 0, 0, no),
            (RETURN, 0, 0, ALLOW),
        ]  # fmt: skip
    return [*steps, (RETURN, 0, 0, no)]


def refusing(names: Iterable[str], error: int) -> list[Step]:
    """Give a filter that refuses some system calls and nothing else, for tests."""
    here = processor()
    numbers = (here.calls[name] for name in names)
    return [*_beginning(here), *refusals(numbers, error), (RETURN, 0, 0, ALLOW)]


def refusals(numbers: Iterable[int], error: int) -> list[Step]:
    """Give steps that let system calls fail with an error."""
    return [
        step for number in numbers
        for step in ((EQUAL, 0, 1, number), (RETURN, 0, 0, ERRNO | error))
    ]  # fmt: skip


def install(steps: Sequence[Step]) -> None:
    """Let the kernel run a filter before every system call from now on; raises Refused."""
    take_no_new_rights()
    packed = b"".join(struct.pack("=HBBI", *step) for step in steps)
    code = ctypes.create_string_buffer(packed, len(packed))
    given = _Program(len(steps), ctypes.addressof(code))
    try:
        call("seccomp", SET_MODE_FILTER, SPEC_ALLOW, given)
    except Refused:  # a kernel before 4.17 knows no such flag
        call("seccomp", SET_MODE_FILTER, 0, given)


def _beginning(here: Processor) -> list[Step]:
    """Refuse system calls by another convention, whose numbers mean others; load the number."""
    no = ERRNO | errno.EPERM
    steps = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, here.audit), (RETURN, 0, 0, no)]
    steps.append((LOAD, 0, 0, NUMBER))
    if here.foreign:
        steps += [(AT_LEAST, 0, 1, here.foreign), (RETURN, 0, 0, no)]
    return steps
