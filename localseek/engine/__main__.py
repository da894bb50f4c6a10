"""Start the engine child: leave the network, hear what is wanted, close the rest, load llama.cpp.

`python -m localseek.engine [--remote HOST:PORT]… [--remote-timeout S]` is what `client.Child`
starts. Only a bridge to the workers that it names stays outside. No thread is started before all
layers are tried: each would stay outside of those that come later.
"""

import argparse
import os
import select
import signal
import sys
import threading
from typing import NoReturn

from localseek.airgap import layers
from localseek.airgap.visible import view_of
from localseek.engine.child.faults import keep_words_out_of_tracebacks
from localseek.engine.child.pipes import private_pipes
from localseek.engine.process import protocol
from localseek.options import LoadOptions
from localseek.system.dumps import keep_memory_private


def _end_with_client(pipe: int, started: threading.Event) -> None:
    """End at once if the client does while this loads; later that is the worker's to see to."""
    end = select.poll()
    end.register(pipe, 0)  # that the other side has closed is always told
    end.poll()
    if not started.is_set():
        os._exit(0)


def main() -> NoReturn:
    """Run the child until its client is done with it; Ctrl-C is the client's to handle."""
    parser = argparse.ArgumentParser(prog="localseek.engine")
    parser.add_argument("--remote", action="append", default=[])
    parser.add_argument("--remote-timeout", type=float, default=0.0)
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_memory_private()  # first: a bridge is a copy of this process
    keep_words_out_of_tracebacks()
    os.umask(0o077)  # nothing that it writes is anybody else's
    # 1. Networks and other programs.
    bridge = None
    if arguments.remote:
        from localseek.engine.process.bridge import Bridge  # noqa: PLC0415  (most engines need none)

        os.environ["GGML_NO_BACKTRACE"] = "1"  # a lost worker is not a fault to trace
        bridge = Bridge(arguments.remote, arguments.remote_timeout)
    left = layers.leave(bridged=bridge is not None)
    remotes = tuple(bridge.open()) if bridge else ()
    # 2. The first message says which model; all other files are closed.
    source, sink = private_pipes()
    first = source.readline()
    if not first:
        sys.exit()  # the client is gone
    locked = _history_locked()
    ports = tuple(int(remote.local.rpartition(":")[2]) for remote in remotes)
    narrowed = layers.narrow(left, view_of(_options(first), ports))
    # 3. The work.
    started = threading.Event()
    watched = (source.fileno(), started)
    threading.Thread(target=_end_with_client, args=watched, daemon=True).start()
    from localseek.engine.child.worker import main as work  # noqa: PLC0415  (starts threads: numpy)
    from localseek.engine.loading.surroundings import Surroundings  # noqa: PLC0415

    started.set()
    work(source, sink, first, Surroundings(narrowed, remotes, locked))


def _options(first: bytes) -> LoadOptions:
    """Give the load options of a message, those of no model if it has none."""
    message = protocol.decode(first)
    return protocol.decode_load(message) if "model" in message else LoadOptions()


def _history_locked() -> bool:
    """Tell whether the history is encrypted, while it can be seen."""
    from localseek.store.history.cipher import is_encrypted  # noqa: PLC0415  (a file's first bytes)
    from localseek.store.history.leftovers import history_file  # noqa: PLC0415
    from localseek.system import paths  # noqa: PLC0415

    return is_encrypted(history_file(paths.home()))


if __name__ == "__main__":
    main()
