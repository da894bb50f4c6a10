"""Time many requests answered 1, 2, 4, 8 at once, without and with drafts; run by hand.

    python tests/bench/batching.py MODEL.gguf… --threads 2 [--server llama-server]

Each figure is from the whole engine, pipe and events included, after the model is loaded: all rows
are in flight, as many at once as the column says. `--server` times llama-server with as many slots
(`-np`, cells shared) on the same prompts, without drafts, and with drafts of one token where the
model has a layer for them.
"""

import argparse
import contextlib
import json
import socket
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from localseek.engine.client import Engine
from localseek.engine.protocol import LoadOptions, Message, Request, Sampling
from localseek.events import Failed, Finished
from localseek.gguf.info import read_info

QUESTIONS = (
    "981 * 87", "4077 + 3098 + 617", "(512 - 77) * 6", "9163 / 7", "347 * 28", "999 * 99",
    "62 * 17", "813 * 45",
)  # fmt: skip
CONTEXT = 4096


def ours(path: Path, threads: int, parallel: int, mtp: str, limit: int) -> tuple[float, float]:
    """Give rows and tokens a second of the engine."""
    options = LoadOptions(str(path), CONTEXT, threads, mtp, parallel=parallel)
    with Engine(options) as engine:
        engine.load()
        requests = [
            Request((Message("user", question),), Sampling(temperature=0.0), limit)
            for question in QUESTIONS
        ]
        list(engine.generate(requests[0]))  # weights and graphs are warm then
        started, tokens, left = time.perf_counter(), 0, len(requests)
        for request in requests:
            engine.submit(request)
        while left:
            event = engine.next_event()[1]
            assert not isinstance(event, Failed), event
            if isinstance(event, Finished):
                tokens, left = tokens + event.stats.generated_tokens, left - 1
        seconds = time.perf_counter() - started
    return len(requests) / seconds, tokens / seconds


@contextlib.contextmanager
def server(binary: str, path: Path, threads: int, slots: int, mtp: str) -> Iterator[str]:
    """Run llama-server and give its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        binary, "-m", str(path), "-c", str(CONTEXT), "-t", str(threads), "-np", str(slots),
        "--kv-unified", "--port", str(port), "--no-webui", "--jinja",
    ]  # fmt: skip
    if mtp != "off":
        command += ["--spec-type", "draft-mtp", "--spec-draft-n-max", mtp]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health"):
                break
            assert process.poll() is None, "llama-server ended"
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()


def theirs(
    binary: str, path: Path, threads: int, slots: int, mtp: str, limit: int
) -> tuple[float, float]:  # fmt: skip
    """Give rows and tokens a second of llama-server."""

    def ask(question: str) -> int:
        body = {
            "messages": [{"role": "user", "content": question}], "temperature": 0,
            "max_tokens": limit, "cache_prompt": True,
        }  # fmt: skip
        request = urllib.request.Request(
            f"{address}/v1/chat/completions", json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request) as answer:
            return int(json.load(answer)["usage"]["completion_tokens"])

    with server(binary, path, threads, slots, mtp) as address:
        ask(QUESTIONS[0])
        with ThreadPoolExecutor(len(QUESTIONS)) as pool:
            started = time.perf_counter()
            tokens = sum(pool.map(ask, QUESTIONS))
            seconds = time.perf_counter() - started
    return len(QUESTIONS) / seconds, tokens / seconds


def main() -> None:
    """Print a table for each file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--limit", type=int, default=100, help="tokens of an answer")
    parser.add_argument("--parallel", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--server", default="", metavar="BINARY")
    arguments = parser.parse_args()
    for path in arguments.files:
        print(f"{path.stem}: rows/s and tok/s, {', '.join(map(str, arguments.parallel))} at once")
        drafts = bool(read_info(path).nextn_layers)
        names = ["plain", *(["drafts"] if drafts else [])]
        names += ["llama-server " + name for name in names] if arguments.server else []
        found: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for _ in range(arguments.rounds):
            for parallel in arguments.parallel:
                for name in names:
                    with_drafts = name.endswith("drafts")
                    if name.startswith("llama-server"):
                        measured = theirs(
                            arguments.server, path, arguments.threads, parallel,
                            "1" if with_drafts else "off", arguments.limit,
                        )  # fmt: skip
                    else:
                        measured = ours(
                            path, arguments.threads, parallel, "auto" if with_drafts else "off",
                            arguments.limit,
                        )  # fmt: skip
                    found.setdefault((name, parallel), []).append(measured)
        for name in names:
            cells = [
                "{:.2f} / {:.0f}".format(
                    *map(statistics.median, zip(*found[name, one], strict=True))
                )
                for one in arguments.parallel
            ]
            print(f"  {name}: {', '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
