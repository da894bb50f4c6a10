import errno
import subprocess
import sys

import pytest

from localseek.airgap import kernel, seccomp
from localseek.airgap.kernel import PROCESSORS

from .machine import outcome, run

AF_INET6, AF_PACKET, AF_NETLINK, DATAGRAM, CLOEXEC = 10, 17, 16, 2, 0o2000000
MPTCP, SCTP = 262, 132
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")


@pytest.fixture(params=PROCESSORS.values(), ids=PROCESSORS.keys())
def here(request):
    return request.param


@pytest.mark.parametrize("family", [0, 2, 3, 4, 5, AF_INET6, 15, AF_NETLINK, AF_PACKET, 21, 38, 40])
def test_no_socket_of_any_family_can_be_made(here, family):
    assert outcome(here, "socket", family, 1, 0) == errno.EPERM
    assert outcome(here, "socket", family, 1, 0, unix=True) == errno.EPERM


def test_unix_sockets_are_made_only_where_they_are_wanted(here):
    assert outcome(here, "socket", seccomp.AF_UNIX, 1, 0) == errno.EPERM
    assert outcome(here, "socket", seccomp.AF_UNIX, 1, 0, unix=True) == 0


@pytest.mark.parametrize(
    ("words", "result"),
    [
        ((2, 1, 0), 0), ((2, 1 | CLOEXEC, 6), 0), ((2, DATAGRAM, 0), errno.EPERM),
        ((2, 3, 1), errno.EPERM), ((2, 1, MPTCP), errno.EPERM), ((2, 1, SCTP), errno.EPERM),
        ((AF_INET6, 1, 0), errno.EPERM), ((seccomp.AF_UNIX, 1, 0), errno.EPERM),
    ],
)  # fmt: skip
def test_with_a_bridge_plain_tcp_over_ipv4_is_all_there_is(here, words, result):
    assert outcome(here, "socket", *words, tcp=True) == result


def test_a_packet_sent_along_with_its_connection_is_refused(here):
    fast = seccomp.MSG_FASTOPEN
    assert outcome(here, "sendto", 3, 0, 0, fast, tcp=True) == errno.EPERM
    assert outcome(here, "sendmsg", 3, 0, fast | 1, tcp=True) == errno.EPERM
    assert outcome(here, "sendmmsg", 3, 0, 1, fast, tcp=True) == errno.EPERM
    assert outcome(here, "sendto", 3, 0, 0, 0x4000, tcp=True) == 0
    assert outcome(here, "sendto", 3, 0, 0, fast) == 0  # there is no socket for it


@pytest.mark.parametrize("name", seccomp.REFUSED)
def test_other_programs_processes_and_file_systems_are_refused(here, name):
    assert outcome(here, name) == outcome(here, name, tcp=True, unix=True) == errno.EPERM


def test_io_uring_is_as_if_it_were_not_there(here):
    assert {outcome(here, name) for name in seccomp.ABSENT} == {errno.ENOSYS}


@pytest.mark.parametrize(("name", "number"), [("read", 0), ("futex", 202), ("clone", 56)])
def test_what_leads_nowhere_passes(name, number):
    steps = seccomp.program(PROCESSORS["x86_64"], unix=False, tcp=False)
    assert run(steps, PROCESSORS["x86_64"].audit, number) == 0


def test_another_convention_of_system_calls_is_no_way_around():
    x86 = PROCESSORS["x86_64"]
    steps = seccomp.program(x86, unix=True, tcp=True)
    assert run(steps, 0x40000003, 359, 2, 1, 0) == errno.EPERM  # i386's socket
    assert run(steps, x86.audit, 0x40000000 + 41, 2, 1, 0) == errno.EPERM  # x32's
    assert run(steps, x86.audit, 0xFFFFFFFF) == errno.EPERM


def test_jumps_stay_within_the_filter(here):
    for unix in (False, True):
        for tcp in (False, True):
            steps = seccomp.program(here, unix, tcp)
            for at, (code, yes, no, _) in enumerate(steps):
                if code in (seccomp.EQUAL, seccomp.AT_LEAST, seccomp.ANY_BIT):
                    assert at + 1 + max(yes, no) < len(steps)
            assert len(steps) < 4096  # BPF_MAXINSNS


def test_a_processor_that_is_not_known_is_skipped_by_name(monkeypatch):
    class Uname:
        machine = "riscv64"

    monkeypatch.setattr(kernel.os, "uname", Uname)
    monkeypatch.setattr(kernel.sys, "platform", "linux")
    with pytest.raises(kernel.Refused, match="riscv64"):
        seccomp.close_off()


def test_on_other_systems_each_layer_of_the_kernel_says_that_it_is_linuxs(monkeypatch):
    monkeypatch.setattr(kernel.sys, "platform", "darwin")
    with pytest.raises(kernel.Refused, match="only Linux"):
        seccomp.close_off()


HELD = """
import ctypes, errno, os, socket, threading
from localseek.airgap import seccomp
seccomp.close_off()
def refused(reach):
    try:
        reach()
    except PermissionError:
        return True
    return False
found = [refused(lambda: socket.socket(family)) for family in (socket.AF_INET, socket.AF_UNIX)]
found.append(refused(lambda: os.execv("/bin/true", ["true"])))
thread = threading.Thread(target=lambda: found.append(refused(socket.socket)))
thread.start(); thread.join()
a, b = socket.socketpair(); a.send(b"x")
lines = [line.split() for line in open("/proc/self/status")]
status = {line[0]: line[1] for line in lines if line[0] in ("Seccomp:", "NoNewPrivs:")}
print(found, b.recv(1), status)
"""


@LINUX
def test_the_kernel_takes_the_filter_and_holds_threads_to_it():
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=False)
    if "Refused" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.stdout == (
        "[True, True, True, True] b'x' {'NoNewPrivs:': '1', 'Seccomp:': '2'}\n"
    ), done.stderr
