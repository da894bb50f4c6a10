"""Ours beside llama-bench and llama-server of the same llama.cpp: run by hand.

    python tests/bench/peers.py --llama-bench PATH --llama-server PATH MODEL.gguf… [--quick]
        [--only plain|drafts] [--gpu [--cpu-experts N]]

All have the model loaded, and take turns of about a second: our prompts and decoding and
llama-bench's, then answers at temperature 0 to the same prompts, ours and llama-server's, without
drafts and with each depth; beside each of these of ours, once with the automatic depth. So a
machine that others use, too, is slow for all alike. Ratios are taken within a round; their medians
and quartiles are told. All are started several times, as where in memory a model comes to lie makes
some per cent of difference; later starts know what drafting learnt in the first. Says first whether
both builds use the same processor features.
"""

import argparse
import contextlib
import os
import re
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from programs import ROOM, LlamaBench, Ours, Server, find_modules, spread  # noqa: E402

from localseek.bench.questions import built_in  # noqa: E402 - the path above comes first
from localseek.engine.process.measurement import Measured  # noqa: E402
from localseek.gguf.info import read_info  # noqa: E402
from localseek.options import Mtp  # noqa: E402

DEPTHS: tuple[Mtp, ...] = (1, 2, 3, 4)
FEATURE = re.compile(r"(\w+) = (\d+)")
WARM_UP = -1
Speeds = dict[str, list[float]]


def placed(options: argparse.Namespace) -> list[str]:
    """Give llama.cpp's words for what ours decides by itself: all on a GPU but for experts."""
    words = ["-ngl", "99"] if options.gpu else []
    # llama.cpp counts from the first layer, ours from the last: N must mean all.
    return words + ([] if options.cpu_experts is None else ["-ncmoe", str(options.cpu_experts)])


def llama_bench(path: Path, options: argparse.Namespace, prompt: int, tokens: int) -> LlamaBench:
    """Start llama-bench for one of its tests."""
    words = [options.llama_bench, "-m", str(path), "-t", str(options.threads)]
    words += ["-p", str(prompt), "-n", str(tokens), *placed(options)]
    return LlamaBench(words, options.rounds)


def server(path: Path, options: argparse.Namespace, depth: Mtp, *more: str) -> Server:
    """Start llama-server with so many drafts at most."""
    words = [options.llama_server, "-m", str(path), "-t", str(options.threads)]
    words += ["-c", str(context(options)), *placed(options), *more]
    words += ["-fit", "off"] if options.gpu else []
    words += (
        ["--spec-type", "draft-mtp", "--spec-draft-n-max", str(depth)] if depth != "off" else []
    )
    return Server(words)


def context(options: argparse.Namespace) -> int:
    """Give the context that all get."""
    return int(options.prompt_tokens + options.tokens + ROOM)


def features(text: str) -> dict[str, str]:
    """Read the processor features out of llama.cpp's system info."""
    return dict(FEATURE.findall(text.partition("CPU :")[2]))


def compare_builds(path: Path, options: argparse.Namespace, system: str) -> str:
    """Say in one line whether both use the same features of the processor."""
    with contextlib.closing(server(path, options, "off", "--verbosity", "4")) as one:
        theirs = features(next((line for line in one.log.splitlines() if "CPU :" in line), ""))
    mine = features(system)
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


class Comparison:
    """One model in all programs; `speeds` holds a value of each round by program and way."""

    def __init__(
        self, path: Path, options: argparse.Namespace, stack: contextlib.ExitStack
    ) -> None:
        info = read_info(path)
        self.drafting = info.nextn_layers > 0
        self.speeds: Speeds = {}
        self._options, self._questions = options, built_in(info)
        self._texts: dict[int, list[tuple[tuple[int, ...], int]]] = {}  # round → prompts, lengths
        mtp: Mtp = "auto" if self.drafting else "off"
        sizes = (options.threads, context(options))
        self.ours = self.plain = Ours(path, *sizes, mtp, options.cpu_experts)
        stack.callback(self.ours.close)
        if self.drafting and options.only != "drafts":
            self.plain = Ours(path, *sizes, "off", options.cpu_experts)
            stack.callback(self.plain.close)
        self._benches: dict[str, LlamaBench] = {}
        if options.only != "drafts":
            for name, tested in (
                ("prompt", (options.prompt_tokens, 0)),
                ("decode", (0, options.tokens)),
            ):
                self._benches[name] = llama_bench(path, options, *tested)
                stack.callback(self._benches[name].close)
        self.servers: dict[Mtp, Server] = {}
        if options.only != "plain":
            for way in ("off", *(DEPTHS if self.drafting else ())):
                self.servers[way] = server(path, options, way)
                stack.callback(self.servers[way].close)

    def run(self, show: Callable[[str], None]) -> None:
        """Take all in turns after a warm-up; there and back again, so that none is always first."""
        steps: list[Callable[[int], None]] = [partial(self._plain, name) for name in self._benches]
        if self.drafting:
            steps.append(self._prompts)
        for way in self.servers:
            steps += [partial(self._ours, way), partial(self._server, way)]
        for number in range(WARM_UP, self._options.rounds):
            show("warm-up" if number == WARM_UP else f"{number + 1} of {self._options.rounds}")
            for step in reversed(steps) if number % 2 and number != WARM_UP else steps:
                step(number)
        for name, bench in self._benches.items():
            self.speeds[f"llama-bench {name}"] = bench.speeds()

    def _add(self, name: str, number: int, value: float) -> None:
        if number != WARM_UP:
            self.speeds.setdefault(name, []).append(value)

    def _plain(self, name: str, number: int) -> None:
        """Read a prompt or decode; the first run of a turn counts for neither program."""
        options, seed = self._options, number + 1
        ours_first = number % 2 == 1
        if number != WARM_UP and not ours_first:
            self._benches[name].turn()
        speed = 0.0
        for _ in range(2):
            if name == "prompt":
                speed = self.plain.prompt(options.prompt_tokens, seed, False)
            else:
                speed = self.plain.decode(options.tokens, seed)
        if number != WARM_UP and ours_first:
            self._benches[name].turn()
        self._add(f"ours {name}", number, speed)

    def _prompts(self, number: int) -> None:
        """Read a prompt with drafts off and on."""
        for way in (False, True) if number % 2 else (True, False):
            speed = self.ours.prompt(self._options.prompt_tokens, number + 1, way)
            self._add(f"ours prompt, drafts {'on' if way else 'off'}", number, speed)

    def _ours(self, way: Mtp, number: int) -> None:
        """Answer in one way, and right before or after with the automatic depth.

        What another program has left in the processor's caches is first cleared by an answer that
        does not count.
        """
        ways = {f"ours {way}": way}
        if self.drafting:
            ways[f"ours auto beside {way}"] = "auto"
            self._answer("off", number)
        for name, one in reversed(ways.items()) if number % 2 else ways.items():
            found = self._answer(one, number)
            self._add(name, number, found.tokens / found.seconds)

    def _answer(self, way: Mtp, number: int) -> Measured:
        start = max(number, 0) % len(self._questions)
        questions = self._questions[start:] + self._questions[:start]
        found = self.ours.text(way, self._options.tokens, questions, number)
        self._texts[number] = list(zip(found.prompts, found.generated, strict=True))
        return found

    def _server(self, way: Mtp, number: int) -> None:
        """Let it answer what ours answers in the same round."""
        if number not in self._texts:  # its turn comes first
            self._answer("off", number)
        self._add(f"llama-server {way}", number, self.servers[way].speed(self._texts[number]))


def ratio(speeds: Speeds, name: str, base: str) -> tuple[float, float, float]:
    """Give the median and the quartiles of the rounds' own quotients."""
    return spread([a / b for a, b in zip(speeds[name], speeds[base], strict=True)])


def row(speeds: Speeds, name: str, base: str) -> str:
    """Give a row: median speed, and ratio to the base with its quartiles."""
    middle, low, high = ratio(speeds, name, base)
    return (
        f"| {name} | {statistics.median(speeds[name]):,.1f} | {middle:.3f} | {low:.2f}–{high:.2f} |"
    )


def show_plain(speeds: Speeds) -> None:
    """Print prompt and decode speed beside llama-bench's."""
    print("\n| | tok/s | of llama-bench | quartiles |\n|---|---|---|---|")
    for name in ("prompt", "decode"):
        print(row(speeds, f"ours {name}", f"llama-bench {name}"))
    added = statistics.median(
        1e6 / mine - 1e6 / its
        for mine, its in zip(speeds["ours decode"], speeds["llama-bench decode"], strict=True)
    )
    print(f"\nadded to llama-bench's token: {added:+.1f} µs")


def show_drafts(found: Comparison) -> None:
    """Print what drafts bring each program over its own plain decoding."""
    speeds = found.speeds
    print("\n| | tok/s | of its own plain | quartiles |\n|---|---|---|---|")
    for way in ("off", *DEPTHS):
        print(row(speeds, f"ours {way}", "ours off"))
    print(row(speeds, "ours auto beside off", "ours off"))
    for way in found.servers:
        print(row(speeds, f"llama-server {way}", "llama-server off"))
    print(row(speeds, "ours prompt, drafts on", "ours prompt, drafts off"))
    best = max(("off", *DEPTHS), key=lambda way: ratio(speeds, f"ours {way}", "ours off")[0])
    their = max(DEPTHS, key=lambda way: ratio(speeds, f"llama-server {way}", "llama-server off")[0])
    share, low, high = ratio(speeds, f"ours auto beside {best}", f"ours {best}")
    auto = ratio(speeds, "ours auto beside off", "ours off")[0]
    most = ratio(speeds, f"llama-server {their}", "llama-server off")[0]
    print(
        f"\nautomatic: {share:.3f} ({low:.2f}–{high:.2f}) of the best way, {best}; speed-up "
        f"{auto:.2f}, llama-server's {most:.2f} at {their}; beside it in tokens a second "
        f"{ratio(speeds, f'ours auto beside {their}', f'llama-server {their}')[0]:.2f}"
    )
    theirs = ", ".join(
        f"{way}: {one.accepted / one.drafted:.2f}"
        for way, one in found.servers.items() if one.drafted
    )  # fmt: skip
    mine = ", ".join(
        f"{way}: {' '.join(f'{a / n:.2f}' for a, n in zip(one.accepted, one.drafted, strict=True))}"
        for way, one in found.ours.answers.items() if one.drafted
    )  # fmt: skip
    print(f"accepted by llama-server after its last start, of all drafts: {theirs}")
    print(f"ours by position: {mine}")


def main() -> None:
    """Compare each file and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--llama-bench", required=True)
    parser.add_argument("--llama-server", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--starts", type=int, default=3, help="of all programs (default: 3)")
    parser.add_argument("--rounds", type=int, default=6, help="after each start (default: 6)")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--only", choices=("plain", "drafts"), help="one half of it")
    parser.add_argument("--gpu", action="store_true", help="put all on the GPU that there is")
    parser.add_argument(
        "--cpu-experts", type=int, metavar="N",
        help="keep the experts in memory; N is as many as there are layers, or more",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="one round of 32 and 64 tokens")
    options = parser.parse_args()
    # Ended from outside it leaves no server behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("peers.py was ended"))
    find_modules(ROOT)
    home = tempfile.TemporaryDirectory()  # later starts know what drafting learnt in the first
    os.environ["LOCALSEEK_HOME"] = home.name
    if options.quick:
        options.starts, options.rounds = 1, 1
        options.tokens, options.prompt_tokens = 32, 64
    for path in options.models:
        speeds: Speeds = {}
        for start in range(options.starts):
            with contextlib.ExitStack() as stack:
                found = Comparison(path, options, stack)
                if not start:
                    told = compare_builds(path, options, found.ours.system)
                    print(f"{path.stem}: {told}", file=sys.stderr, flush=True)
                found.run(lambda text: print(text, end=" ", file=sys.stderr, flush=True))
                print(file=sys.stderr)
            for name, values in found.speeds.items():
                speeds.setdefault(name, []).extend(values)
        found.speeds = speeds
        print(f"\n{path.stem}")
        if options.only != "drafts":
            show_plain(found.speeds)
        if found.drafting and options.only != "plain":
            show_drafts(found)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
