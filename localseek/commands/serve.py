"""`localseek serve`: OpenAI's protocol for the programs that people have.

Listens on this machine alone: a loopback address or a Unix socket, behind a token. The first Ctrl-C
lets running answers end, the second stops at once.
"""

import argparse
import contextlib
import json
import logging
import re
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

from localseek import AsyncEngine
from localseek.commands.parts.session import Session
from localseek.errors import UsageError
from localseek.serve import listening
from localseek.serve.dispatch import Dispatcher
from localseek.serve.reading import Served
from localseek.system import environment
from localseek.terminal import settings
from localseek.terminal.messages import note, prepare_streams

EXAMPLES = """examples:
  localseek serve -m r1.gguf
  localseek serve -m r1.gguf --port 9000 --parallel 8
  localseek serve --socket ~/.localseek.sock
  LOCALSEEK_TOKEN=secret localseek serve       a token that stays the same
"""
PORT, PARALLEL = 8080, 4
MAX_WAITING = 64  # requests beyond those that are answered; more are told to come again
TOKEN = re.compile(r"[!-~]+")  # what a header can carry
INTERRUPTED = 130


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    add = parser.add_argument
    add("--host", default="127.0.0.1", metavar="ADDRESS",
        help="the loopback address to listen on (default: 127.0.0.1)")  # fmt: skip
    add("--port", type=int, default=PORT, metavar="N", help=f"default: {PORT}; 0: any free one")
    add("--socket", type=Path, metavar="PATH",
        help="listen on a Unix socket instead, which only you can use")  # fmt: skip
    add("--token", metavar="TOKEN",
        help="what programs must know to ask; others on this machine see it in the list of "
        "processes, not so in LOCALSEEK_TOKEN (default: a new one each time)")  # fmt: skip
    add("-q", "--quiet", action="store_true", help="no progress and notices on stderr")
    add("--json", action="store_true", help="print one JSON object once the server is ready")
    settings.add_parallel_argument(parser, "requests", PARALLEL)
    settings.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted."""
    prepare_streams()
    options = settings.options_from(arguments)
    parallel = settings.parallel_from(arguments, PARALLEL)
    options = replace(options, load=replace(options.load, parallel=parallel))
    token = _token(arguments.token)
    with _listener(arguments) as listener, Session(options, arguments.quiet) as session:
        say = (lambda _text: None) if arguments.quiet else note
        dispatcher = Dispatcher(AsyncEngine.of(session.start()), MAX_WAITING, say)
        return _serve(arguments, session, dispatcher, listener, token)


def _token(given: str | None) -> str:
    token = environment.serve_token() if given is None else given
    if given is None and not token:
        return secrets.token_urlsafe()
    if not TOKEN.fullmatch(token):
        raise UsageError("The token has characters other than letters, digits and signs.")
    return token


@contextlib.contextmanager
def _listener(arguments: argparse.Namespace) -> Iterator[socket.socket]:
    """Bind the socket that was asked for; a Unix socket is gone again afterwards."""
    path: Path | None = arguments.socket
    if path is None:
        if not 0 <= arguments.port < 65536:
            raise UsageError(f"{arguments.port} is not a port.", "Ports are 0 to 65535.")
        with listening.loopback(arguments.host, arguments.port) as listener:
            yield listener
        return
    path = path.expanduser().absolute()
    with listening.unix(path) as listener:
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _announce(
    arguments: argparse.Namespace, listener: socket.socket, model: str, token: str
) -> None:
    """Say where the server is, and how a program uses it."""
    if arguments.socket is not None:
        place = str(listener.getsockname())
        use = f"curl --unix-socket {place} -H 'Authorization: Bearer {token}' " \
            "http://localhost/v1/models"  # fmt: skip
    else:
        place = "http://{}:{}/v1".format(*listening.url_of(listener))
        use = f"OPENAI_BASE_URL={place} OPENAI_API_KEY={token}"
    if arguments.json:
        print(json.dumps({"address": place, "model": model, "token": token}), flush=True)
        return
    print(f"Serving {model} at {place}", f"Token: {token}", use, sep="\n", flush=True)


def _serve(
    arguments: argparse.Namespace, session: Session, dispatcher: Dispatcher,
    listener: socket.socket, token: str,
) -> int:  # fmt: skip
    """Run the server on this thread; give the exit status."""
    import uvicorn

    from localseek.serve.app import make_app
    from localseek.serve.guards import hosts_of

    class Server(uvicorn.Server):
        """uvicorn's server, with our words and our way to end."""

        stopped = False  # at once, by a second signal

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            """Begin to listen, then say so."""
            await super().startup(sockets)
            _announce(arguments, listener, session.name, token)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """Let running answers end; the second time, stop at once."""
            if not self.should_exit:
                self.should_exit = True
                dispatcher.drain()
                return
            self.force_exit = self.stopped  # a third one doesn't even wait for what is cut off here
            self.stopped = True
            engine.kill()
            for connection in tuple(self.server_state.connections):
                if connection.transport is not None:
                    connection.transport.abort()

    # It warns of every piece that is written to a client that has just gone away.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    hosts = None if arguments.socket is not None else hosts_of(*listening.url_of(listener))
    engine, now = session.start(), int(time.time())
    thinks, takes_effort = engine.info.thinks, session.takes_effort
    served = Served(session.name, session.options, thinks, takes_effort, now)
    config = uvicorn.Config(
        make_app(served, dispatcher, token, hosts), http="h11", ws="none", lifespan="off",
        log_config=None, log_level="error", access_log=False, server_header=False,
        proxy_headers=False,
    )  # fmt: skip
    server = Server(config)
    server.run(sockets=[listener])
    return INTERRUPTED if server.stopped else 0
