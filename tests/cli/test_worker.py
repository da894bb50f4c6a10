import os
import signal
import subprocess
import sys

import pytest

from localseek.engine.process.rpc import probe


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--host", "192.168.7.7"], "no passwords and no encryption"),
        (["--host", "example.org"], "is not an IPv4 address"),
        (["--host", "203.0.113.9", "--lan"], "cannot be listened on"),
        (["--port", "70000"], "is not a port"),
        (["--port", "0", "--threads", "99999"], "is not a number from 0 to 1,024"),
        (["--port", "0", "--device", "nope"], "There is no device 'nope' here. There is: CPU."),
    ],
)
def test_a_worker_listens_only_where_it_can_and_may(run_cli, words, says):
    done = run_cli("worker", *words)
    assert done.status == 2 and says in done.err and done.err.count("\n") == 1


def test_a_worker_serves_until_it_is_interrupted_and_shows_the_tunnel(environment):
    command = [sys.executable, "-m", "localseek", "worker", "--port", "0", "--threads", "1"]
    worker = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    address = worker.stdout.readline().split()[1]
    facts = probe(address)
    os.kill(worker.pid, signal.SIGINT)
    _, err = worker.communicate()
    assert worker.returncode == 130
    assert facts.version.startswith("7.") and facts.memory[0][0] > 0
    port = address.rpartition(":")[2]
    assert f"ssh -N -L {port}:127.0.0.1:{port} USER@" in err
    assert "no passwords and no encryption" in err
    assert "refused" in probe(address).problem  # nothing is left behind


@pytest.mark.parametrize(
    "address",
    [
        "somewhere", "host:", "host:99999", ":50052", "http://host:1", "a:1,b:2", "h:５００",
        "a..b:1", "a" * 70 + ":1",
    ],
)  # fmt: skip
def test_a_wrong_address_of_a_worker_ends_in_one_line(run_cli, address):
    for words in (("ask", "hello"), ("doctor",)):
        done = run_cli(*words, "--remote", address)
        assert done.status == 2 and "is not HOST:PORT" in done.err and done.err.count("\n") == 1
