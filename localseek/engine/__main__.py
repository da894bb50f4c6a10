"""Start the engine child: leave the network first, then load everything else.

`python -m localseek.engine [--remote HOST:PORT]… [--remote-timeout S]` is what `client.Child`
starts. Only a bridge to the workers that it names stays outside.
"""

import argparse
import os
import select
import threading
from typing import NoReturn

from localseek.engine.child.faults import keep_words_out_of_tracebacks
from localseek.system.airgap import isolate
from localseek.system.dumps import keep_memory_private


def _end_with_client(started: threading.Event) -> None:
    """End at once if the client does while this loads; later that is the worker's to see to."""
    end = select.poll()
    end.register(0, 0)  # that the other side has closed is always told
    end.poll()
    if not started.is_set():
        os._exit(0)


def main() -> NoReturn:
    """Run the child until its client is done with it."""
    parser = argparse.ArgumentParser(prog="localseek.engine")
    parser.add_argument("--remote", action="append", default=[])
    parser.add_argument("--remote-timeout", type=float, default=0.0)
    arguments = parser.parse_args()
    keep_memory_private()  # first: a bridge is a copy of this process
    keep_words_out_of_tracebacks()
    os.umask(0o077)  # nothing that it writes is anybody else's
    bridge = None
    if arguments.remote:
        from localseek.engine.process.bridge import Bridge  # noqa: PLC0415  (most engines need none)

        os.environ["GGML_NO_BACKTRACE"] = "1"  # a lost worker is not a fault to trace
        bridge = Bridge(arguments.remote, arguments.remote_timeout)
    reachable = isolate(loopback=bridge is not None)
    remotes = bridge.open() if bridge else []
    started = threading.Event()
    threading.Thread(target=_end_with_client, args=(started,), daemon=True).start()
    from localseek.engine.child.worker import main as work  # noqa: PLC0415  (starts threads: numpy)

    started.set()
    work(reachable, remotes)


if __name__ == "__main__":
    main()
