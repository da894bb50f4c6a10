"""`localseek worker`: lend this machine's memory and devices to localseek on another machine.

llama.cpp's RPC serves one client at a time. It has neither passwords nor encryption, so it listens
to this machine alone unless `--lan` is given.
"""

import argparse
import contextlib
import errno
import ipaddress
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from localseek.engine.process.deaths import last_lines
from localseek.engine.process.rpc import WorkerFacts, probe
from localseek.errors import EngineError, UsageError
from localseek.system import hardware, paths, private
from localseek.system.huge_pages import with_huge_pages
from localseek.system.sizes import rough_size
from localseek.terminal import settings
from localseek.terminal.messages import note, prepare_streams

EXAMPLES = """examples:
  localseek worker                           lend this machine, through an ssh tunnel
  ssh -N -L 50052:127.0.0.1:50052 USER@HOST  on the machine that borrows: the tunnel
  localseek ask --remote 127.0.0.1:50052 "Why is the sky blue?"
  localseek worker --lan                     lend it to everybody in the network
"""
WRONG_USE = 2  # exit status of the server
PORT = 50052  # llama.cpp's own rpc-server listens there
START_S = 60.0  # to find the devices; GPUs take their time


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    add = parser.add_argument
    add("--host", default="127.0.0.1", metavar="ADDRESS",
        help="the IPv4 address to listen on (default: 127.0.0.1, this machine alone)")  # fmt: skip
    add("--port", type=int, default=PORT, metavar="N", help=f"default: {PORT}; 0: any free one")
    add("--lan", action="store_true",
        help="listen to other machines: anybody who reaches it can use it")  # fmt: skip
    add("--threads", type=settings.whole_threads, default=0, metavar="N",
        help="default: one a physical core")  # fmt: skip
    add("--device", action="append", default=[], metavar="NAME",
        help="lend this device (repeatable; default: all GPUs, the processor if none)")  # fmt: skip
    add("--json", action="store_true", help="print one JSON object once the worker is ready")


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted."""
    prepare_streams()
    host = _host(arguments.host, arguments.lan)
    if not 0 <= arguments.port < 65536:
        raise UsageError(f"{arguments.port} is not a port.", "Ports are 0 to 65535.")
    address = f"{host}:{_free_port(host, arguments.port)}"
    machine = hardware.read_hardware()
    threads = arguments.threads or max(1, min(machine.cores, machine.usable_threads))
    with _server(address, threads, arguments.device) as (server, facts):
        free = sum(free for free, _ in facts.memory)
        note(f"Lending {rough_size(free)} of memory and {threads} threads at {address}.")
        for line in _advice(address, arguments.lan):
            note(line)
        ready = {"address": address, "version": facts.version, "memory": facts.memory}
        print(json.dumps(ready) if arguments.json else f"ready {address}", flush=True)
        server.wait()
    log = paths.folder("logs") / "worker.log"
    raise EngineError(f"The server ended with status {server.returncode}.", f"Its log is {log}.")


def _host(text: str, lan: bool) -> str:
    """Give the address to listen on; raises UsageError for one that others reach without --lan."""
    try:
        address = ipaddress.IPv4Address("127.0.0.1" if text == "localhost" else text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not an IPv4 address.", "Such as 127.0.0.1.") from error
    if lan and text == "127.0.0.1":
        return "0.0.0.0"
    if not address.is_loopback and not lan:
        raise UsageError(
            f"At {text} anybody who reaches this machine could use it and read along: "
            "llama.cpp's RPC has no passwords and no encryption.",
            "Use an ssh tunnel to 127.0.0.1, or add --lan.",
        )
    return str(address)


def _free_port(host: str, port: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            raise UsageError(
                f"{host}:{port} cannot be listened on: {error.strerror}.",
                "Choose another --host."
                if error.errno == errno.EADDRNOTAVAIL
                else "Choose another --port.",
            ) from error
        return int(trial.getsockname()[1])


@contextlib.contextmanager
def _server(
    address: str, threads: int, devices: list[str]
) -> Iterator[tuple[subprocess.Popen[bytes], WorkerFacts]]:
    """Run the server in a process of its own, until the block is left."""
    path = paths.log_file("worker")
    serving = "localseek.engine.child.serving"
    command = [sys.executable, "-P", "-m", serving, address, str(threads)]
    with private.opened(path, "ab") as log:
        start = log.tell()
        server = subprocess.Popen(
            [*command, *devices], stdin=subprocess.PIPE, stdout=log, stderr=log,
            start_new_session=True, env=with_huge_pages(),
        )  # fmt: skip
    try:
        reachable = address.replace("0.0.0.0", "127.0.0.1")
        deadline = time.monotonic() + START_S
        facts = probe(reachable)
        while facts.problem and server.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
            facts = probe(reachable)
        if facts.problem or server.poll() is not None:
            lines = last_lines(path, start)
            if server.poll() == WRONG_USE and lines:
                raise UsageError(lines[-1])
            raise EngineError(
                f"The server did not start: {lines[-1] if lines else facts.problem}.",
                f"Its log is {path}.",
            )
        yield server, facts
    finally:
        server.kill()
        server.wait()


def _advice(address: str, lan: bool) -> list[str]:
    port = address.rpartition(":")[2]
    tunnel = f"  ssh -N -L {port}:127.0.0.1:{port} USER@{socket.gethostname()}"
    use = f"  localseek ask --remote 127.0.0.1:{port} …"
    if lan:
        return [
            "Everybody who reaches this port can use it and read what is computed: llama.cpp's RPC "
            "has no passwords and no encryption. Without --lan, a tunnel is safe:",
            tunnel,
            use,
        ]
    return [
        "llama.cpp's RPC has no passwords and no encryption, so only this machine can connect. "
        "From another one:",
        tunnel,
        use,
    ]
