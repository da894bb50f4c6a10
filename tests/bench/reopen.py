"""Time to the first token of a long conversation, read again and put back from disk: run by hand.

    python tests/bench/reopen.py MODEL.gguf [--tokens 4000] [--runs 5]

Each run reads a conversation in an engine that ends, and asks a second question in another one
that finds the saved sequence; a third engine, never interrupted, says what the second answer must
be. Loads are outside the clock. Prints medians, their ratio and the size on disk.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from localseek.engine.client import Engine  # noqa: E402 - the path above comes first
from localseek.engine.protocol import LoadOptions, Message, Request, Sampling  # noqa: E402
from localseek.events import AnswerDelta, Failed, Finished, ReasoningDelta  # noqa: E402
from localseek.sequences import SequenceStore  # noqa: E402

QUESTION = "How many people were on the train?"
SENTENCE = "The train left the station at seven, and {} people were on it. "


def ask(engine: Engine, request: Request) -> tuple[float, str, Finished]:
    """Return the seconds to the first text, the whole text and the last event."""
    started, seconds, text = time.monotonic(), 0.0, ""
    for event in engine.generate(request):
        if isinstance(event, ReasoningDelta | AnswerDelta):
            seconds = seconds or time.monotonic() - started
            text += event.text
        if isinstance(event, Failed):
            raise SystemExit(f"{event.message} {event.hint}")
    assert isinstance(event, Finished)
    return seconds, text, event


def running(options: LoadOptions) -> Engine:
    engine = Engine(options)
    engine.load()
    return engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    text = "".join(SENTENCE.format(n) for n in range(arguments.tokens // 16))
    greedy = Sampling(temperature=0.0)
    first = Request((Message("user", text),), greedy, max_tokens=32)
    pairs: list[tuple[float, float]] = []
    for _ in range(arguments.runs):
        with tempfile.TemporaryDirectory() as home:
            os.environ["LOCALSEEK_HOME"] = home
            options = LoadOptions(
                arguments.model, ctx=arguments.tokens + 1024, threads=arguments.threads
            )
            kept = replace(options, prompt_cache=True)
            with running(kept) as engine:
                read, answer, _ = ask(engine, first)
            (saved,) = SequenceStore().list()
            turns = (*first.messages, Message("assistant", answer), Message("user", QUESTION))
            second = replace(first, messages=turns)
            with running(kept) as engine:
                back, found, finished = ask(engine, second)
            with running(options) as engine:
                ask(engine, first)
                expected = ask(engine, second)[1]
        stats = finished.stats
        print(
            f"{stats.prompt_tokens} tokens: read {read:.2f} s, put back {back:.3f} s"
            f" ({stats.cached_tokens} from {saved.size_bytes / 1e6:.0f} MB), answer"
            f" {'as' if found == expected else 'NOT as'} without the interruption",
            flush=True,
        )
        pairs.append((read, back))
    read, back = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(b / r for r, b in pairs)
    print(f"{Path(arguments.model).name}: read {read:.2f} s, put back {back:.3f} s, {ratio:.1%}")


if __name__ == "__main__":
    main()
