"""Many requests answered 1, 2, 4, 8 at once, without and with drafts; run by hand.

    python tests/bench/batching.py MODEL.gguf… --threads 2 [--llama-server PATH]

For each number, all programs have the model loaded and take turns: they answer the same eight
prompts at temperature 0, as many at once as the number says. Ours are whole engines, pipe and
events included; llama-server has as many slots (`-np`, cells shared), and drafts of one token where
the model has a layer for them. Prints tokens a second and ratios taken within a round, as medians.
"""

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from programs import Server, find_modules, spread  # noqa: E402 - the path above comes first

from localseek import Engine  # noqa: E402
from localseek.gguf.info import read_info  # noqa: E402
from localseek.options import LoadOptions, Message, Mtp, Request, Sampling  # noqa: E402

QUESTIONS = (
    "981 * 87", "4077 + 3098 + 617", "(512 - 77) * 6", "9163 / 7", "347 * 28", "999 * 99",
    "62 * 17", "813 * 45",
)  # fmt: skip
CONTEXT = 4096
Turn = Callable[[], float]  # answers all and gives tokens a second


def ours(
    path: Path, parallel: int, mtp: Mtp, options: argparse.Namespace, stack: contextlib.ExitStack
) -> Turn:
    """Load an engine."""
    engine = Engine.of(LoadOptions(str(path), CONTEXT, options.threads, mtp, parallel=parallel))
    stack.callback(engine.close)
    engine.load()
    requests = [
        Request((Message("user", question),), Sampling(temperature=0.0), options.limit)
        for question in QUESTIONS
    ]

    def turn() -> float:
        started, tokens = time.perf_counter(), 0
        for _, reply in engine.generate_all(enumerate(requests)):
            assert reply.stats is not None, reply.error
            tokens += reply.stats.generated_tokens
        return tokens / (time.perf_counter() - started)

    return turn


def theirs(
    path: Path, parallel: int, drafts: bool, options: argparse.Namespace,
    stack: contextlib.ExitStack,
) -> Turn:  # fmt: skip
    """Start a llama-server."""
    words = [options.llama_server, "-m", str(path), "-c", str(CONTEXT)]
    words += ["-t", str(options.threads), "--kv-unified", "--jinja"]
    words += ["--spec-type", "draft-mtp", "--spec-draft-n-max", "1"] if drafts else []
    server = Server(words, parallel)
    stack.callback(server.close)
    pool = stack.enter_context(ThreadPoolExecutor(len(QUESTIONS)))

    def turn() -> float:
        started = time.perf_counter()
        tokens = sum(pool.map(lambda question: server.chat(question, options.limit), QUESTIONS))
        return tokens / (time.perf_counter() - started)

    return turn


def compare(path: Path, parallel: int, options: argparse.Namespace) -> dict[str, list[float]]:
    """Take turns; give the speeds of all rounds but a first one by program."""
    drafts = read_info(path).nextn_layers > 0
    with contextlib.ExitStack() as stack:
        turns = {"plain": ours(path, parallel, "off", options, stack)}
        if drafts:
            turns["drafts"] = ours(path, parallel, "auto", options, stack)
        if options.llama_server:
            turns["llama-server"] = theirs(path, parallel, False, options, stack)
        if options.llama_server and drafts:
            turns["llama-server, drafts"] = theirs(path, parallel, True, options, stack)
        speeds: dict[str, list[float]] = {name: [] for name in turns}
        for number in range(-1, options.rounds):
            for name in list(turns)[:: -1 if number % 2 else 1]:
                speed = turns[name]()
                if number >= 0:
                    speeds[name].append(speed)
    return speeds


def main() -> None:
    """Compare each file and print a table of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--llama-server", default="")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=int, default=64, help="tokens a row (default: 64)")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--parallel", type=int, nargs="+", default=[1, 2, 4, 8])
    options = parser.parse_args()
    find_modules(ROOT)
    for path in options.models:
        print(f"\n{path.stem}\n\n| at once | | tok/s | of ours, plain | quartiles |")
        print("|---|---|---|---|---|")
        for parallel in options.parallel:
            speeds = compare(path, parallel, options)
            for name, values in speeds.items():
                ratios = [a / b for a, b in zip(values, speeds["plain"], strict=True)]
                middle, low, high = spread(ratios)
                print(
                    f"| {parallel} | {name} | {statistics.median(values):,.0f} | {middle:.2f} "
                    f"| {low:.2f}–{high:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
