"""Serve this machine's devices through llama.cpp's RPC: the process behind `localseek worker`.

`python -m localseek.engine.serving HOST:PORT THREADS [DEVICE]…` serves until its standard input
ends. It is a process of its own because llama.cpp's server never returns, and a client that sends
nonsense can end it.
"""

import os
import sys
import threading

from localseek.engine.llama import serve, start_backend


def _watch() -> None:
    """End with whoever started this."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> int:
    """Serve; comes back only when llama.cpp could not."""
    address, threads, *names = sys.argv[1:]
    threading.Thread(target=_watch, daemon=True).start()
    start_backend()
    serve(address, int(threads), names)
    return 1


if __name__ == "__main__":
    sys.exit(main())
