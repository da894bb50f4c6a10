"""Time to the first token of a long conversation, read again and put back from disk: run by hand.

    python tests/bench/reopen.py MODEL.gguf [--tokens 4000] [--runs 3]

Each run reads a conversation in one engine and asks a second question in another, which finds the
saved sequence; the first, which was never interrupted, then says what the second answer must be.
Loads are outside the clock. Prints medians, their ratio and the size on disk.
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

from localseek import Engine  # noqa: E402 - the path above comes first
from localseek.events import AnswerDelta, Failed, Finished, ReasoningDelta  # noqa: E402
from localseek.options import LoadOptions, Message, Request, Sampling  # noqa: E402
from localseek.store.sequences import SequenceStore  # noqa: E402

ROOM = 256  # tokens for two answers and a question
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
    engine = Engine.of(options)
    engine.load()
    return engine


def sentence_tokens(options: LoadOptions) -> float:
    """Give how many tokens a sentence of the conversation has for this model."""
    with running(options) as engine:
        counts = [
            ask(engine, Request((Message("user", conversation(n)),), max_tokens=1))[2]
            .stats.prompt_tokens
            for n in (20, 10)
        ]  # fmt: skip
    return (counts[0] - counts[1]) / 10


def conversation(sentences: int) -> str:
    return "".join(SENTENCE.format(n) for n in range(100, 100 + sentences))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--mtp", choices=("auto", "off"), default="auto")
    arguments = parser.parse_args()
    pairs: list[tuple[float, float]] = []
    for _ in range(arguments.runs):
        with tempfile.TemporaryDirectory() as home:
            os.environ["LOCALSEEK_HOME"] = home
            options = LoadOptions(
                arguments.model, ctx=arguments.tokens + ROOM, threads=arguments.threads,
                mtp=arguments.mtp, prompt_cache=True,
            )  # fmt: skip
            short = replace(options, ctx=1024, prompt_cache=False)
            text = conversation(int(arguments.tokens / sentence_tokens(short)))
            first = Request((Message("user", text),), Sampling(temperature=0.0), max_tokens=32)
            store = SequenceStore()
            with running(options) as uninterrupted:
                read, answer, _ = ask(uninterrupted, first)
                while not store.list():  # it appears whole, and soon
                    time.sleep(0.01)
                (saved,) = store.list()
                turns = (*first.messages, Message("assistant", answer), Message("user", QUESTION))
                second = replace(first, messages=turns, max_tokens=100)
                with running(options) as engine:
                    back, found, finished = ask(engine, second)
                store.clear()
                expected = ask(uninterrupted, second)[1]
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
