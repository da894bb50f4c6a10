"""Real workers on loopback for tests: llama.cpp's RPC server in a process each."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from localseek.engine.process.rpc import probe


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as trial:
        return int(trial.getsockname()[1])


@contextlib.contextmanager
def serving(log: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Give a worker's address and process, ready to be used."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "localseek.engine.child.serving", address, "1"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out)
    try:
        while probe(address).problem:
            assert process.poll() is None, log.read_text()
        yield address, process
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()
