"""The verb `batch` beside llama-server with as many clients, and beside itself one by one.

    python tests/bench/batch.py MODEL.gguf --llama-server PATH [--parallel 8] [--rows 200]

All rows have one system prompt of about 300 tokens and a short question each, temperature 0. Each
turn is a whole run of the verb, timed from when its engine is ready, as llama-server is. Ratios are
taken within a round. Run by hand.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from programs import Server, find_modules  # noqa: E402 - the path above comes first

SYSTEM = "Answer in one short sentence, and show what you carry. " * 25
CELLS = 1024  # tokens of context a row


def questions(count: int) -> list[str]:
    """Give so many questions, all of them different."""
    return [f"What is {17 * number % 900} + {31 * number % 700}?" for number in range(count)]


def ours(options: argparse.Namespace, parallel: int, folder: Path) -> float:
    """Run the verb on new files; give tokens a second."""
    source, target = folder / "in.jsonl", folder / "out.jsonl"
    rows = [json.dumps({"prompt": one}) + "\n" for one in questions(options.rows)]
    source.write_text("".join(rows))
    words = [sys.executable, "-m", "localseek", "batch", str(source), str(target), "--restart",
             "--json", "-q", "-m", str(options.model), "--system", SYSTEM, "--temperature", "0",
             "--max-tokens", str(options.limit), "--threads", str(options.threads),
             "--parallel", str(parallel), "--ctx", str(CELLS * parallel)]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ)
    summary = json.loads(done.stdout)
    assert summary["answered"] == options.rows, done.stderr[-500:]
    return float(summary["tokens_per_second"])


def theirs(options: argparse.Namespace, server: Server, pool: ThreadPoolExecutor) -> float:
    """Let llama-server answer the same; give tokens a second."""
    started = time.perf_counter()
    tokens = sum(pool.map(lambda one: server.chat(one, options.limit, SYSTEM), questions(
        options.rows
    )))  # fmt: skip
    return tokens / (time.perf_counter() - started)


def main() -> None:
    """Take turns and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama-server", required=True)
    parser.add_argument("--drafts", action="store_true", help="let llama-server draft, too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--limit", type=int, default=64, help="tokens a row")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    find_modules(ROOT)
    words = [options.llama_server, "-m", str(options.model), "-c", str(CELLS * options.parallel),
             "-t", str(options.threads), "--kv-unified", "--jinja"]  # fmt: skip
    words += ["--spec-type", "draft-mtp", "--spec-draft-n-max", "1"] if options.drafts else []
    speeds: dict[str, list[float]] = {"batch": [], "llama-server": [], "one by one": []}
    server, pool = Server(words, options.parallel), ThreadPoolExecutor(options.parallel)
    try:
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(options.rounds):
                speeds["batch"].append(ours(options, options.parallel, Path(folder)))
                speeds["llama-server"].append(theirs(options, server, pool))
                speeds["one by one"].append(ours(options, 1, Path(folder)))
    finally:
        server.close()
    for name, found in speeds.items():
        ratios = [a / b for a, b in zip(speeds["batch"], found, strict=True)]
        rates = ", ".join(f"{one:,.0f}" for one in found)
        print(f"{name}: {rates} tok/s; batch has {statistics.median(ratios):.2f} of it")


if __name__ == "__main__":
    main()
