"""What the engine adds to llama_decode for each token, events and pipe included: run by hand.

    python tests/bench/overhead.py MODEL.gguf [--threads 1] [--rounds 9]

For nano's arithmetic at temperature 0, the client's wall-clock time from the end of the prompt to
the end of the answer, less the time that the engine spent inside llama_decode over the same stretch
(a clock around that call alone). Prints microseconds a token, medians over the rounds, for plain
decoding, fixed draft depths and automatic ones in turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

QUESTIONS = ("981 * 87", "4077 + 3098 + 617", "(512 - 77) * 6", "9163 / 7", "347 * 28")
CONTEXT = 1024
SETTINGS: tuple[Any, ...] = ("off", "auto", 1, 2)


def child(report: Path) -> None:
    """Be the engine, with a clock around llama_decode; write its seconds after each answer."""
    import llama_cpp.llama_cpp as lib

    from localseek.engine.child import worker
    from localseek.engine.process import protocol
    from localseek.events import Finished, PromptProgress

    decode, encode = lib.llama_decode, protocol.encode_event
    spent = begun = 0.0

    def timed(handle: Any, batch: Any) -> int:
        nonlocal spent
        started = time.perf_counter()
        status = decode(handle, batch)
        spent += time.perf_counter() - started
        return int(status)

    def noting(number: int, event: Any) -> bytes:
        nonlocal begun
        if isinstance(event, PromptProgress) and event.done == event.total:
            begun = spent
        if isinstance(event, Finished):
            report.write_text(str(spent - begun))
        return encode(number, event)

    lib.llama_decode, protocol.encode_event = timed, noting
    sys.exit(worker.main("a benchmark"))


class Timed:
    """An engine with a setting for drafts, and where its child reports."""

    def __init__(self, model: str, threads: int, mtp: Any) -> None:
        from localseek import Engine
        from localseek.engine.process import client
        from localseek.options import LoadOptions

        self.report = Path(tempfile.mkstemp(suffix=".seconds")[1])
        command = [sys.executable, __file__, "--child", str(self.report)]
        client.program = lambda: command
        self.engine = Engine.of(LoadOptions(model, CONTEXT, threads, mtp=mtp))
        self.engine.load()

    def answer(self, question: str) -> tuple[float, float, int]:
        """Give the seconds of an answer after its prompt, those in llama_decode, and its tokens."""
        from localseek.events import Finished, PromptProgress
        from localseek.options import Message, Request, Sampling

        request = Request((Message("user", question),), Sampling(temperature=0.0), max_tokens=400)
        started = ended = 0.0
        tokens = 0
        for event in self.engine.generate(request):
            if isinstance(event, PromptProgress) and event.done == event.total:
                started = time.perf_counter()
            if isinstance(event, Finished):
                ended, tokens = time.perf_counter(), event.stats.generated_tokens
        return ended - started, float(self.report.read_text()), tokens


def main() -> None:
    """Time each setting in turns."""
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    engines = {mtp: Timed(arguments.model, arguments.threads, mtp) for mtp in SETTINGS}
    added: dict[Any, list[float]] = {mtp: [] for mtp in engines}
    inside: dict[Any, list[float]] = {mtp: [] for mtp in engines}
    for number in range(arguments.rounds + 1):
        for mtp, timed in engines.items():
            found = [timed.answer(question) for question in QUESTIONS]
            if number:  # the first round warms up
                tokens = sum(count for _, _, count in found)
                added[mtp].append(sum(all_ - own for all_, own, _ in found) / tokens * 1e6)
                inside[mtp].append(sum(own for _, own, _ in found) / tokens * 1e6)
    for mtp, timed in engines.items():
        timed.engine.close()
        timed.report.unlink()
        print(f"--mtp {mtp}: llama_decode {statistics.median(inside[mtp]):.0f} us/token, "
              f"added {statistics.median(added[mtp]):.1f} "
              f"({min(added[mtp]):.1f} to {max(added[mtp]):.1f})")  # fmt: skip


if __name__ == "__main__":
    main()
