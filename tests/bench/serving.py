"""`localseek serve` beside llama-server: tokens a second that several clients get; run by hand.

    python tests/bench/serving.py MODEL.gguf… --llama-server PATH [--threads 2] [--stream]

Both servers have the model loaded and take turns: as many clients as `--clients` says ask 32
questions over HTTP, for 64 tokens at temperature 0. Connections stay, but not after streams, since
llama-server closes them then. Answers that end earlier count as they are. Prints tokens a second of
each and milliseconds of processor time a token, which other programs disturb less, as medians over
the rounds, and the ratio of the medians. `--mtp off` leaves our drafts out, which
llama-server does not make here.
"""

import argparse
import contextlib
import http.client
import json
import queue
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import psutil  # noqa: E402
from programs import Server, find_modules  # noqa: E402 - the path above comes first

CONTEXT = 4096
PATH = "/v1/chat/completions"


@dataclass(frozen=True)
class Place:
    """Where a server listens, and what it wants to be told."""

    pid: int
    host: str
    port: int
    token: str = ""

    def cpu_s(self) -> float:
        """Give the processor time that its processes have taken."""
        server = psutil.Process(self.pid)
        times = [one.cpu_times() for one in (server, *server.children(recursive=True))]
        return sum(one.user + one.system for one in times)


def question(number: int) -> str:
    """Give a problem whose answer is longer than 64 tokens, another one each time."""
    return f"{8471 + 13 * number} * {613 + 7 * number}"


def ours(path: Path, options: argparse.Namespace, stack: contextlib.ExitStack) -> Place:
    """Start localseek's server."""
    command = [sys.executable, "-m", "localseek", "serve", "-m", str(path), "--port", "0", "--json"]
    command += ["--parallel", str(options.clients), "--ctx", str(CONTEXT), "--mtp", options.mtp]
    command += ["--threads", str(options.threads)]
    process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    stack.callback(process.terminate)
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    place = urlsplit(ready["address"])
    return Place(process.pid, str(place.hostname), int(place.port or 0), ready["token"])


def theirs(path: Path, options: argparse.Namespace, stack: contextlib.ExitStack) -> Place:
    """Start a llama-server."""
    words = [options.llama_server, "-m", str(path), "-c", str(CONTEXT), "-t", str(options.threads)]
    server = Server([*words, "--no-webui", "--jinja"], options.clients)
    stack.callback(server.close)
    place = urlsplit(server.url)
    return Place(server.pid, str(place.hostname), int(place.port or 0))


def turn(place: Place, options: argparse.Namespace, first: int) -> tuple[float, float]:
    """Let the clients ask all questions; give tokens a second and processor time a token in ms."""
    numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(first, first + options.requests):
        numbers.put(number)
    counts: list[int] = []

    def client() -> None:
        connection = http.client.HTTPConnection(place.host, place.port, timeout=600)
        with contextlib.closing(connection), contextlib.suppress(queue.Empty):
            while True:
                counts.append(ask(connection, place, options, numbers.get_nowait()))

    threads = [threading.Thread(target=client) for _ in range(options.clients)]
    before, started = place.cpu_s(), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    assert len(counts) == options.requests
    return sum(counts) / seconds, 1e3 * (place.cpu_s() - before) / sum(counts)


def ask(
    connection: http.client.HTTPConnection, place: Place, options: argparse.Namespace, number: int
) -> int:
    """Ask one question; give the number of tokens of its answer."""
    body: dict[str, object] = {
        "messages": [{"role": "user", "content": question(number)}], "temperature": 0,
        "max_tokens": options.tokens,
    }  # fmt: skip
    if options.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    head = {"Content-Type": "application/json", "Authorization": f"Bearer {place.token}"}
    connection.request("POST", PATH, json.dumps(body), head)
    response = connection.getresponse()
    text = response.read().decode()
    assert response.status == 200, text
    if options.stream:
        connection.close()  # the next request opens it again
        text = text.split("data: ")[-2]
    return int(json.loads(text)["usage"]["completion_tokens"])


def main() -> None:
    """Measure each model."""
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("models", nargs="+", type=Path)
    add("--llama-server", required=True)
    add("--threads", type=int, default=2)
    add("--clients", type=int, default=4)
    add("--requests", type=int, default=32)
    add("--tokens", type=int, default=64)
    add("--rounds", type=int, default=3)
    add("--mtp", default="auto")
    add("--stream", action="store_true")
    options = parser.parse_args()
    find_modules(ROOT)
    for path in options.models:
        with contextlib.ExitStack() as stack:
            places = [make(path, options, stack) for make in (ours, theirs)]
            found: list[list[tuple[float, float]]] = [[], []]
            for place in places:  # warm, and not counted
                turn(place, options, 0)
            for number in range(1, options.rounds + 1):
                for place, turns in zip(places, found, strict=True):
                    turns.append(turn(place, options, number * options.requests))
        for what, index in (("tok/s", 0), ("ms of processor time a token", 1)):
            mine, other = ([one[index] for one in turns] for turns in found)
            middle, beside = statistics.median(mine), statistics.median(other)
            rounds = " ".join(f"{a:.3g}/{b:.3g}" for a, b in zip(mine, other, strict=True))
            ratio = f"{middle / beside:.2f} ({rounds})"
            print(f"{path.name}: {middle:.3g} and {beside:.3g} {what}, {ratio}")


if __name__ == "__main__":
    main()
