import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CALL = """
import socket, sys
from localseek.airgap.hook import OfflineError, {install}
try:
    {code}
    print("passed")
except OfflineError as error:
    print(error)
"""


def outcome(code: str, install: str = 'begin_offline as f; f("ask")') -> str:
    text = CALL.format(code=code, install=install)
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=False, cwd=ROOT
    )  # fmt: skip
    return done.stdout + done.stderr


SERVING = 'begin_offline as f; f("serve")'
CONNECT = 'socket.create_connection(("192.0.2.1", 80), 1)'


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (CONNECT, "getaddrinfo '192.0.2.1'"),
        ("socket.socket(socket.AF_INET).connect(('192.0.2.1', 80))", "a socket for a network"),
        ("socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)", "a socket for a network"),
        ("socket.getaddrinfo('example.com', 80)", "getaddrinfo 'example.com'"),
        ("socket.gethostbyname('example.com')", "gethostbyname 'example.com'"),
        ("import http.client as h; h.HTTPConnection('192.0.2.1').connect()", "'192.0.2.1'"),
    ],
)
def test_whatever_python_code_reaches_for_is_refused_in_one_line(code, words):
    said = outcome(code)
    assert said.startswith("Offline: ") and words in said
    assert said.count("\n") == 1


def test_a_library_that_swallows_errors_of_the_network_takes_it_for_one():
    swallowing = "import contextlib\n    with contextlib.suppress(OSError): socket.socket()"
    assert outcome(swallowing) == "passed\n"


def test_unix_sockets_and_pairs_pass():
    assert outcome("a, b = socket.socketpair(); a.send(b'x'); b.recv(1)") == "passed\n"
    connect = "s = socket.socket(socket.AF_UNIX)\n    print(s.connect_ex('/nowhere') > 0)"
    assert outcome(connect) == "True\npassed\n"


def test_a_verb_about_networks_is_left_alone():
    code = "socket.socket(socket.AF_INET).close()"
    for verb in ("pull", "worker"):
        assert outcome(code, f'begin_offline as f; f("{verb}")') == "passed\n"


LISTENING = """s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen()
    print("listens")"""


def test_a_server_listens_at_loopback_and_connects_to_nothing():
    assert outcome(LISTENING, SERVING) == "listens\npassed\n"
    for code in (
        CONNECT, "socket.socket().connect(('127.0.0.1', 80))",
        "socket.socket().bind(('0.0.0.0', 0))", "socket.socket().bind(('', 0))",
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('127.0.0.1', 9))",
    ):  # fmt: skip
        assert outcome(code, SERVING).startswith("Offline: "), code


BRIDGING = 'refuse_networks as f; s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(); ' \
    'port = s.getsockname()[1]; f(named=[("localhost", port)])'  # fmt: skip


def test_the_bridge_reaches_the_workers_that_were_named_and_nothing_else():
    there = 'socket.create_connection(("localhost", port), 5).close()'
    assert outcome(there, BRIDGING) == "passed\n"
    for code in (CONNECT, 'socket.socket().connect(("127.0.0.1", port + 1))',
                 'socket.getaddrinfo("example.com", port)'):  # fmt: skip
        assert outcome(code, BRIDGING).startswith("Offline: "), code


def test_the_engine_starts_no_programs_by_python_either():
    engine = "refuse_networks as f; f(programs=False)"
    for code in ("import subprocess; subprocess.run(['true'])", "import os; os.system('true')"):
        assert outcome(code, engine).startswith("The engine starts no programs"), code


def test_importing_localseek_closes_nothing_in_the_users_own_process():
    code = "import localseek; s = localseek.Engine; socket.socket(socket.AF_INET).close()"
    assert outcome(code, "OfflineError") == "passed\n"


def test_a_verb_says_in_one_line_what_was_refused_and_children_are_told_to_stay_offline(tmp_path):
    verb = "import os, socket, sys; from localseek import cli; from localseek.airgap.hook import " \
        "begin_offline; from localseek.commands import models; " \
        "models.run = lambda _: print(os.environ['HF_HUB_OFFLINE']) or socket.socket(); " \
        "sys.argv = ['localseek', 'models', 'list']; sys.exit(cli.main(begin_offline))"  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", verb], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (1, "1\n")
    assert done.stderr == (
        "localseek: Offline: a socket for a network was refused.\n"
    )
