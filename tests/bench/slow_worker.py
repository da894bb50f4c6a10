"""Time drafting against plain decoding where layers are computed at a worker that is far away.

Takes a GGUF file with an MTP layer (trunks.py makes some) and delays in milliseconds. A worker runs
on loopback behind a proxy that passes every byte on that much later, so that each trip there and
back takes so much longer, as over a slow link; bytes on the way do not wait for each other. Prints
the median speed of plain decoding, and the others as ratios of times in turns. All is loaded again
for a second start, which begins with what drafting learnt in the first. Run by hand:

    python tests/bench/slow_worker.py dense.gguf --delay 1 --delay 5 --delay 20
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from localseek import Engine  # noqa: E402 - the path above comes first
from localseek.engine.process.rpc import connect  # noqa: E402
from localseek.events import AnswerDelta, Failed, Finished, ReasoningDelta  # noqa: E402
from localseek.options import Fixed, LoadOptions, Message, Mtp, Request, Sampling  # noqa: E402
from tests.engine.workers import serving  # noqa: E402

QUESTIONS = ("981 * 87", "4077 + 3098 + 617", "(512 - 77) * 6", "9163 / 7", "347 * 28")
CHUNK = 1 << 20


class SlowLink:
    """A proxy on loopback that leads to a worker and passes bytes on later."""

    def __init__(self, worker: str, delay_s: float) -> None:
        self._worker, self._delay_s = worker, delay_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                inner = self._listener.accept()[0]
                inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                outer = connect(self._worker)
                outer.settimeout(None)
                self._pass(inner, outer, self._delay_s)
                self._pass(outer, inner, 0.0)

    def _pass(self, source: socket.socket, sink: socket.socket, delay_s: float) -> None:
        """Pass bytes one way on two threads: one notes when they came, one waits."""
        line: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

        def take() -> None:
            data = b"first"
            while data:
                with contextlib.suppress(OSError):
                    data = b""
                    data = source.recv(CHUNK)
                line.put((time.monotonic() + delay_s, data))

        def give() -> None:
            with contextlib.suppress(OSError):
                while True:
                    due, data = line.get()
                    time.sleep(max(0.0, due - time.monotonic()))
                    if not data:
                        break
                    sink.sendall(data)
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)

        for work in (take, give):
            threading.Thread(target=work, daemon=True).start()


def answer(engine: Engine, question: str, limit: int) -> tuple[float, str, Finished]:
    """Give decoded tokens a second, the text and the last event."""
    request = Request((Message("user", question),), Sampling(temperature=0.0), max_tokens=limit)
    text = ""
    for event in engine.generate(request):
        if isinstance(event, ReasoningDelta | AnswerDelta):
            text += event.text
        if isinstance(event, Failed):
            raise SystemExit(f"{event.message} {event.hint}")
    assert isinstance(event, Finished)
    return event.stats.decode_tps, text, event


@contextlib.contextmanager
def links(
    arguments: argparse.Namespace, delay_s: float, folder: Path
) -> Iterator[dict[str, LoadOptions]]:
    """Give what each way to draft is loaded with: a worker of its own, as it serves one."""
    with contextlib.ExitStack() as stack:
        found = {}
        for name in ("off", *dict.fromkeys(arguments.mtp)):
            worker, _ = stack.enter_context(serving(folder / f"{name}.log"))
            link = SlowLink(worker, delay_s)
            stack.callback(link.close)
            fixed = Fixed(remote=(link.address,), gpu_layers=arguments.gpu_layers)
            mtp: Mtp = "auto" if name == "auto" else "off" if name == "off" else int(name)
            found[name] = LoadOptions(
                arguments.model, 1024, arguments.threads, mtp, fixed=fixed, draft_memory=True
            )
        yield found


def measure(arguments: argparse.Namespace, ways: dict[str, LoadOptions], title: str) -> None:
    """Load all, ask the questions in turns and print a line."""
    speeds: dict[str, list[float]] = {}
    last: dict[str, Finished] = {}
    with contextlib.ExitStack() as stack:
        found = {name: stack.enter_context(Engine.of(options)) for name, options in ways.items()}
        for engine in found.values():
            engine.load()
            answer(engine, QUESTIONS[0], 1)  # weights are in memory then
        for number in range(arguments.answers):
            texts = set()
            for name, engine in found.items():
                question = QUESTIONS[number % len(QUESTIONS)]
                speed, text, last[name] = answer(engine, question, arguments.limit)
                speeds.setdefault(name, []).append(speed)
                texts.add(text)
            assert len(texts) == 1, "the texts differ"
    plain = speeds.pop("off")
    print(f"{title}: plain {statistics.median(plain):.1f} tok/s; " + ", ".join(
        # Of the whole run, tries included; its questions have the same tokens in each way.
        f"{name} {sum(1 / p for p in plain) / sum(1 / s for s in found):.3f} ("
        + " ".join(f"{s / p:.2f}" for s, p in zip(found, plain, strict=True)) + ")"
        for name, found in speeds.items()), flush=True)  # fmt: skip
    for name, finished in last.items():
        if draft := finished.stats.draft:
            print(f"  {name}: {draft.accepted_by_position}, mean depth {draft.mean_depth}")


def main() -> None:
    """Measure each delay."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--delay", type=float, action="append", metavar="MS", help="default: 5")
    parser.add_argument("--mtp", action="append", metavar="auto|N", help="default: auto")
    parser.add_argument("--gpu-layers", type=int, help="layers at the worker (default: all)")
    parser.add_argument("--answers", type=int, default=5)
    parser.add_argument("--starts", type=int, default=2, help="later ones know the first's times")
    parser.add_argument("--limit", type=int, default=200, metavar="TOKENS")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    arguments.mtp = arguments.mtp or ["auto"]
    stem = Path(arguments.model).stem
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LOCALSEEK_HOME"] = folder
        for delay_ms in arguments.delay or [5.0]:
            with links(arguments, delay_ms / 1e3, Path(folder)) as ways:
                for start in range(1, arguments.starts + 1):
                    measure(arguments, ways, f"{stem}, {delay_ms:g} ms, start {start}")


if __name__ == "__main__":
    main()
