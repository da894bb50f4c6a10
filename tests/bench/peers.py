"""`localseek bench` beside llama-bench and llama-server of the same llama.cpp: run by hand.

    python tests/bench/peers.py --llama-bench PATH --llama-server PATH MODEL.gguf… [--quick]
        [--gpu [--cpu-experts N]]

In turns, round after round: ours, llama-bench with the same file, threads, prompt and tokens, and
llama-server, without drafts and with `--spec-type draft-mtp` at 1 to 4, on the prompts that ours
answered, at temperature 0, timed by itself. Prints tables: our plain speeds as multiples of
llama-bench's, and what drafts bring each program over its own plain decoding; ratios are medians
of the rounds' own. Says first whether both builds use the same processor features.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from localseek.gguf.info import read_info  # noqa: E402 - the path above comes first

DEPTHS = (1, 2, 3, 4)
START_S, ANSWER_S = 300.0, 1800.0
FEATURE = re.compile(r"(\w+) = (\d+)")
Rounds = dict[str, list[float]]


def ours(path: Path, options: argparse.Namespace, drafting: bool) -> dict[str, Any]:
    """Run our bench for one round in a process of its own."""
    parts = ["prompt", "decode", "pipe", "drafts"]
    words = [sys.executable, "-m", "localseek", "bench", str(path), "--json", "--runs", "1"]
    words += ["--threads", str(options.threads), "--tokens", str(options.tokens)]
    words += ["--prompt-tokens", str(options.prompt_tokens)]
    words += [word for part in parts for word in ("--only", part)]
    words += [] if drafting else ["--mtp", "off"]
    if options.cpu_experts is not None:
        words += ["--cpu-experts", str(options.cpu_experts)]
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    found: dict[str, Any] = json.loads(run(words, {"PYTHONPATH": paths}))
    return found


def run(words: list[str], more: dict[str, str] | None = None) -> str:
    """Run a process and give what it printed; ends with its last words if it fails."""
    done = subprocess.run(
        words, env={**os.environ, **(more or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{words[:3]} failed: {done.stderr[-2000:]}")
    return done.stdout


def placed(options: argparse.Namespace) -> list[str]:
    """Give llama.cpp's words for what ours decides by itself: all on a GPU but for experts."""
    words = ["-ngl", "99"] if options.gpu else []
    # llama.cpp counts from the first layer, ours from the last: N must mean all.
    return words + ([] if options.cpu_experts is None else ["-ncmoe", str(options.cpu_experts)])


def llama_bench(path: Path, options: argparse.Namespace) -> tuple[float, float]:
    """Run llama-bench once; give tokens a second of reading and of decoding."""
    words = [options.llama_bench, "-m", str(path), "-t", str(options.threads), "-r", "1"]
    words += ["-p", str(options.prompt_tokens), "-n", str(options.tokens), "-o", "json"]
    words += placed(options)
    found = {one["n_gen"] > 0: one["avg_ts"] for one in json.loads(run(words))}
    return found[False], found[True]


class Server:
    """A llama-server on loopback, one slot, with so many drafts at most (0: none)."""

    def __init__(
        self, path: Path, options: argparse.Namespace, depth: int, log: Path, *more: str
    ) -> None:  # fmt: skip
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        # A proxy that the environment names has no business on loopback.
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        words = [options.llama_server, "-m", str(path), "--host", "127.0.0.1", "--port", str(port)]
        context = options.prompt_tokens + options.tokens + 64  # as ours
        words += ["-t", str(options.threads), "-np", "1", "-c", str(context), "--offline"]
        words += ["--spec-type", "draft-mtp", "--spec-draft-n-max", str(depth)] if depth else []
        words += [*placed(options), *(["-fit", "off"] if options.gpu else []), *more]
        self.log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(words, stdout=file, stderr=file)

    def wait(self) -> None:
        """Wait until the model is loaded; ends with the log's last lines if it never is."""
        deadline = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                self._open(f"{self.url}/health", timeout=5).read()
                return
            time.sleep(0.1)
        raise SystemExit(f"llama-server did not start: {self.log.read_text()[-2000:]}")

    def answer(self, prompt: list[int], tokens: int) -> dict[str, Any]:
        """Let it answer; give its own timings."""
        request = {
            "prompt": prompt, "n_predict": tokens, "temperature": 0.0, "cache_prompt": False,
            "samplers": ["top_k"], "top_k": 1,
        }  # fmt: skip
        data = json.dumps(request).encode()
        head = {"Content-Type": "application/json"}
        asked = urllib.request.Request(f"{self.url}/completion", data, head)
        timings: dict[str, Any] = json.loads(self._open(asked, timeout=ANSWER_S).read())["timings"]
        return timings

    def speed(self, texts: list[dict[str, Any]]) -> tuple[float, int, int]:
        """Answer what ours answered; give tokens a second, drafted and accepted tokens.

        The first token of an answer belongs to the reading, as in ours.
        """
        tokens, seconds, drafted, accepted = 0, 0.0, 0, 0
        for text in texts:
            timings = self.answer(text["prompt_tokens"], text["generated"])
            tokens += timings["predicted_n"] - 1
            seconds += timings["predicted_ms"] / 1e3
            drafted += timings.get("draft_n", 0)
            accepted += timings.get("draft_n_accepted", 0)
        return tokens / seconds, drafted, accepted

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def serving(
    path: Path, options: argparse.Namespace, depths: list[int]
) -> Iterator[dict[int, Server]]:
    """Run a server for each depth: an idle one takes memory, no time."""
    servers: dict[int, Server] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for depth in depths:
                servers[depth] = Server(path, options, depth, Path(folder) / f"{depth}.log")
                servers[depth].wait()
            yield servers
        finally:
            for server in servers.values():
                server.close()


def features(text: str) -> dict[str, str]:
    """Read the processor features out of llama.cpp's system info."""
    return dict(FEATURE.findall(text.partition("CPU :")[2]))


def compare_builds(path: Path, options: argparse.Namespace, system: str) -> str:
    """Say in one line whether both use the same features of the processor."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(path, options, 0, Path(folder) / "log", "--verbosity", "4")
        try:
            server.wait()
        finally:
            server.close()
        log = server.log.read_text(errors="replace")
    mine = features(system)
    line = next((one for one in log.splitlines() if "CPU :" in one), "")
    theirs = features(line)
    if not theirs:
        return "llama-server printed no system info: builds not compared"
    differ = sorted(
        f"{name} ({mine.get(name, '0')} here, {theirs.get(name, '0')} there)"
        for name in mine.keys() | theirs.keys()
        if mine.get(name, "0") != theirs.get(name, "0")
    )
    if differ:
        return "THE BUILDS DIFFER, the comparison means little: " + ", ".join(differ)
    return "both builds use: " + " ".join(sorted(name for name, on in mine.items() if on != "0"))


def measure(path: Path, options: argparse.Namespace) -> tuple[Rounds, str]:
    """Take all in turns; give the speeds by program and way, and what was accepted."""
    drafting = read_info(path).nextn_layers > 0
    depths = [0, *(DEPTHS if drafting else ())]
    speeds: Rounds = {}
    counts = {depth: [0, 0] for depth in depths}
    own_shares: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        speeds.setdefault(name, []).append(value)

    with serving(path, options, depths) as servers:
        found = ours(path, options, drafting)  # warms up, and tells the prompts
        told = compare_builds(path, options, found["system"])
        print(f"{path.stem}: {told}", file=sys.stderr, flush=True)
        for server in servers.values():
            server.speed(found["texts"])

        def ours_now() -> None:
            one = ours(path, options, drafting)
            add("ours prompt", one["prompt"]["off"]["tps"]["median"])
            if drafting:
                add("ours prompt, drafts on", one["prompt"]["on"]["tps"]["median"])
            add("ours decode", one["decode"]["tps"]["median"])
            for way, values in one["drafts"].items():
                add(f"ours {way}", values["tps"]["median"])
                own_shares[way] = values["acceptance"]
            for way, values in one["pipe"].items():
                add(f"ours {way}, as users get it", values["tps"]["median"])

        def bench_now() -> None:
            prompt, decode = llama_bench(path, options)
            add("llama-bench prompt", prompt)
            add("llama-bench decode", decode)

        def server_now(depth: int) -> None:
            speed, drafted, accepted = servers[depth].speed(found["texts"])
            add(f"llama-server {depth or 'off'}", speed)
            counts[depth][0] += drafted
            counts[depth][1] += accepted

        turns: list[Callable[[], None]] = [ours_now, bench_now]
        turns += [lambda depth=depth: server_now(depth) for depth in depths]  # type: ignore[misc]
        for number in range(options.rounds):
            print(f"{path.stem}: round {number + 1} of {options.rounds}", file=sys.stderr)
            for turn in reversed(turns) if number % 2 else turns:
                turn()
    shares = ", ".join(f"{d}: {a / n:.2f}" for d, (n, a) in counts.items() if n)
    mine = ", ".join(f"{way}: {share}" for way, share in own_shares.items() if share)
    theirs = f"accepted by llama-server, of all drafts: {shares}"
    return speeds, f"{theirs}\nours by position: {mine}"


def ratio(speeds: Rounds, name: str, base: str) -> tuple[float, float, float]:
    """Give median, least and most of the rounds' own quotients."""
    found = [value / other for value, other in zip(speeds[name], speeds[base], strict=True)]
    return statistics.median(found), min(found), max(found)


def row(speeds: Rounds, name: str, base: str) -> str:
    """Give a row: median speed, and ratio to the base with its spread."""
    middle, low, high = ratio(speeds, name, base)
    return (
        f"| {name} | {statistics.median(speeds[name]):,.1f} | {middle:.3f} | {low:.2f}–{high:.2f} |"
    )


def show(path: Path, speeds: Rounds, accepted: str) -> None:
    """Print both tables of a model."""
    print(f"\n{path.stem}\n\n| | tok/s | of llama-bench | spread |\n|---|---|---|---|")
    print(row(speeds, "ours prompt", "llama-bench prompt"))
    print(row(speeds, "ours decode", "llama-bench decode"))
    added = [
        1e6 / mine - 1e6 / its
        for mine, its in zip(speeds["ours decode"], speeds["llama-bench decode"], strict=True)
    ]
    print(f"\nadded to llama-bench's token: {statistics.median(added):+.1f} µs")
    print("\n| | tok/s | of its own plain | spread |\n|---|---|---|---|")
    for name in speeds:
        program, _, way = name.partition(" ")
        if program == "llama-server" or (
            program == "ours" and way.split(",")[0] not in ("decode", "prompt")
        ):
            print(row(speeds, name, f"{program} off"))
    if "ours prompt, drafts on" in speeds:
        print(row(speeds, "ours prompt, drafts on", "ours prompt"))
    if "ours auto" in speeds:
        best = [
            max(some) for some in zip(*(speeds[f"ours {w}"] for w in ("off", *DEPTHS)), strict=True)
        ]
        share = statistics.median(a / b for a, b in zip(speeds["ours auto"], best, strict=True))
        middles = {w: ratio(speeds, f"ours {w}", "ours off")[0] for w in ("off", *DEPTHS, "auto")}
        most = max(middles[w] for w in ("off", *DEPTHS))
        their = max(ratio(speeds, f"llama-server {d}", "llama-server off")[0] for d in DEPTHS)
        auto = middles["auto"]
        print(f"\nautomatic: {auto / most:.3f} of the best of plain and fixed depths by medians")
        print(
            f"({share:.3f} of each round's best); speed-up {auto:.2f}, llama-server's {their:.2f}"
        )
        print(accepted)
    sys.stdout.flush()


def main() -> None:
    """Compare each file and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--llama-bench", required=True)
    parser.add_argument("--llama-server", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--gpu", action="store_true", help="put all on the GPU that there is")
    parser.add_argument(
        "--cpu-experts", type=int, metavar="N",
        help="keep the experts in memory; N is as many as there are layers, or more",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="one round of 32 and 64 tokens")
    options = parser.parse_args()
    # Ended from outside it leaves no server behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("peers.py was ended"))
    if options.quick:
        options.rounds, options.tokens, options.prompt_tokens = 1, 32, 64
    for path in options.models:
        speeds, accepted = measure(path, options)
        show(path, speeds, accepted)


if __name__ == "__main__":
    main()
