import shutil
import subprocess

import pytest
from offline_scan import Scan, reaching


def can_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    tried = subprocess.run(["strace", "-f", "true"], capture_output=True, check=False)
    return tried.returncode == 0


pytestmark = pytest.mark.skipif(not can_trace(), reason="strace is not here, or may not trace")


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return Scan(tmp_path_factory.mktemp("scan"))


@pytest.mark.parametrize("verb", ["ask", "batch", "convert", "app"])
def test_no_process_of_a_verb_asks_the_kernel_for_a_network(scan, verb):
    assert getattr(scan, verb)() == []


def test_the_scan_sees_the_attempts_of_the_proof_and_that_all_were_refused(scan):
    # The first is doctor's own: the Unix socket that nobody gets to.
    found = [line for line in scan.proof() if not line.startswith("listen(")]
    made = [line for line in found if line.startswith("socket(AF_INET")]
    assert len(made) >= 4
    assert all("= -1 " in line for line in found), found


def test_unix_sockets_and_other_lines_are_no_network():
    trace = (
        '1 socket(AF_UNIX, SOCK_STREAM, 0) = 3\n1 connect(3, {sa_family=AF_UNIX, sun_path="/x"})\n'
        "2 socket(AF_INET6, SOCK_DGRAM, 0) = 4\n2 socket(AF_NETLINK, SOCK_RAW, 0) = 5\n"
    )
    found = reaching(trace)
    assert [line.split(",")[0] for line in found] == ["socket(AF_INET6", "socket(AF_NETLINK"]
