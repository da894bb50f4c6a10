"""Start the engine child: leave the network first, then load everything else.

`python -m localseek.engine [--remote HOST:PORT]… [--remote-timeout S]` is what `client.Child`
starts. Only a bridge to the workers that it names stays outside.
"""

import argparse
import os
from typing import NoReturn

from localseek.engine.child.faults import keep_words_out_of_tracebacks
from localseek.system.airgap import isolate
from localseek.system.dumps import keep_memory_private


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
    from localseek.engine.child.worker import main as work  # noqa: PLC0415  (starts threads: numpy)

    work(reachable, remotes)


if __name__ == "__main__":
    main()
