"""Serve this machine's devices through llama.cpp's RPC: the process behind `localseek worker`.

`python -m localseek.engine.child.serving HOST:PORT THREADS [DEVICE]…` serves until its standard
input ends. It is a process of its own because llama.cpp's server never returns, and a client that
sends nonsense can end it.
"""

import os
import sys
import threading

from localseek.engine.llama import serve, start_backend
from localseek.errors import UsageError

WRONG_USE = 2  # exit status


def _watch() -> None:
    """End with whoever started this."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    """Serve; ends the process when llama.cpp could not, for the watching thread holds its input."""
    address, threads, *names = sys.argv[1:]
    threading.Thread(target=_watch, daemon=True).start()
    start_backend()
    status = 1
    try:
        serve(address, int(threads), names)
    except UsageError as error:
        print(error.message, file=sys.stderr, flush=True)
        status = WRONG_USE
    os._exit(status)


if __name__ == "__main__":
    main()
