"""Hours of use by script, on the real engine: run by hand.

    python tests/bench/soak.py [--minutes 120] [--home FOLDER] [--report FILE.json]

One round: a conversation and a cancelled answer through the Python API, a batch with several at
once, another model in the same engine and back, `ask`, `chat`, `batch` and `history` as verbs, a
new conversation in the app with a switch of models and a stopped answer, and clients of one
`serve`, some of whom leave in the middle. A client (this process, the app in it) and `serve` run
from the first round to the last with their engines. After each round all are measured at rest. It
fails when the memory of one has grown by more than 5 % and a megabyte after the warm-up (a fifth
of the rounds, ten at least), or when file descriptors, threads, processes or unfinished files are
left, or the history is not whole.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import http.client
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import psutil
from textual.pilot import Pilot

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from converters import ConvertOptions, convert  # noqa: E402 - the path above comes first
from localseek import Conversation, Engine, nano  # noqa: E402
from localseek.commands import app as app_verb  # noqa: E402
from localseek.options import GenerationOptions  # noqa: E402
from localseek.store.history.history import History  # noqa: E402
from localseek.store.history.vault import Vault  # noqa: E402
from tui.app import LocalseekApp  # noqa: E402
from tui.ports import Ports  # noqa: E402

GROWTH, SLACK_BYTES = 0.05, 1 << 20
WARM_ROUNDS = 10  # at least: until then Textual's caches fill up
LONG = "Write all the numbers: " + "7 " * 300
TOKEN = "soak"
UNFINISHED = (".partial", ".new", ".tmp")
KEPT = 12  # conversations; more are deleted, so that lists and files stay as long as they are


@dataclass(frozen=True)
class Sample:
    """What one process holds at rest."""

    rss: int
    descriptors: int
    threads: int
    children: int


def measure(pid: int) -> Sample:
    process = psutil.Process(pid)
    with process.oneshot():
        return Sample(
            process.memory_info().rss, process.num_fds(), process.num_threads(),
            len(process.children()),
        )  # fmt: skip


class Soak:
    """A client and a server that live on, and one round of use after the other."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.models = []
        for kind in ("Q8_0", "F16"):
            path = home / "models" / f"nano-{kind}.gguf"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                convert(nano.CHECKPOINT, path, ConvertOptions(type=kind))
            self.models.append(str(path))
        self.engine = Engine(self.models[0], threads=1, prompt_cache=True)
        self.engine.load()
        words = ("serve", "--port", "0", "--json", "-m", self.models[0], "--parallel", "3")
        self.server = self._verb(*words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.server.stdout is not None
        self.address = json.loads(self.server.stdout.readline())["address"]
        self.written = 0  # conversations that were saved

    def close(self) -> None:
        self.engine.close()
        self.server.send_signal(signal.SIGINT)
        self.server.wait(30)
        assert self.server.stdout is not None
        self.server.stdout.close()

    def round(self, number: int) -> None:
        """Use everything but the app once."""
        self._api(number)
        self._batch_of_the_api(number)
        self._switch()
        self._verbs(number)
        self._clients(number)
        self._tidy()

    def watched(self) -> dict[str, int]:
        """Give the processes that live from the first round to the last."""
        (served,) = psutil.Process(self.server.pid).children()
        return {"client": os.getpid(), "server": self.server.pid, "its engine": served.pid}

    def _api(self, number: int) -> None:
        chat = Conversation(self.engine, temperature=0)
        for prompt in (f"What is {number} + 257?", "And 5 more?", LONG):
            assert chat.ask(prompt, max_tokens=60).finish_reason != "failed"
        with self.engine.stream(LONG, temperature=1.0) as answer:
            next(iter(answer))
            answer.cancel()
        dropped = self.engine.stream(LONG)
        del dropped

    def _batch_of_the_api(self, number: int) -> None:
        with Engine(self.models[1], threads=1, parallel=3) as engine:
            sums = [f"{number} + {row}" for row in range(6)]
            replies = list(engine.batch(sums, max_tokens=40, temperature=0))
            assert len(replies) == 6 and not any(reply.error for _, reply in replies)
            batch = engine.batch([LONG] * 6)
            next(iter(batch))
            batch.cancel()

    def _switch(self) -> None:
        """Close the engine, ask another one with the other model, and come back."""
        for model in (self.models[1], self.models[0]):
            self.engine.close()
            self.engine = Engine(model, threads=1, prompt_cache=True)
            assert self.engine.reply("9 * 8", temperature=0).answer == "9 × 8 = 72"

    def _verbs(self, number: int) -> None:
        model = ("-m", self.models[number % 2], "--threads", "1")
        self._done("ask", "-q", "--save", f"What is {number} + 1?", *model)
        self._done("ask", "-q", "--continue", "And 2 more?", *model)
        said = f"{number} + 3\n/retry\n{number} + 4\n".encode()
        self._done("chat", "-q", *model, stdin=said)
        self.written += 2
        source, output = self.home / "in.jsonl", self.home / "out.jsonl"
        rows = [json.dumps({"prompt": f"{number} + {row}", "max_tokens": 40}) for row in range(5)]
        source.write_text("\n".join(rows))
        self._done("batch", str(source), str(output), "--parallel", "2", "--restart", *model)
        assert output.read_text().count("\n") == 5
        self._done("history", "list")
        self._done("history", "search", "more")
        self._done("models", "list")
        program = self._verb("ask", "-q", "--save", LONG, *model, stdout=subprocess.PIPE)
        assert program.stdout is not None
        program.stdout.read(1)
        program.send_signal((signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[number % 3])
        program.communicate(timeout=60)
        self.written += 1

    def _clients(self, number: int) -> None:
        for leaves in (False, True, False):
            host = self.address.removeprefix("http://").removesuffix("/v1")
            connection = http.client.HTTPConnection(host, timeout=60)
            with contextlib.closing(connection):
                messages = [{"role": "user", "content": f"{number} + 8"}]
                fields = {"model": "default", "messages": messages, "stream": leaves}
                head = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
                connection.request("POST", "/v1/chat/completions", json.dumps(fields), head)
                answer = connection.getresponse()
                assert answer.status == 200, answer.read()
                answer.read(10 if leaves else None)

    def _tidy(self) -> None:
        """Keep as many conversations as at the start, and check that all are whole."""
        with History() as history:
            known = sorted(one.id for one in history.conversations(archived=None))
            assert known and max(known) == self.written, f"{max(known)} of {self.written} are there"
            for one in known:
                assert history.all_messages(one)
            gone = [str(one) for one in known[:-KEPT]]
        if gone:
            self._done("history", "delete", *gone)

    def _verb(self, *words: str, **streams) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "localseek", *words], stdin=subprocess.DEVNULL,
            env={**os.environ, "LOCALSEEK_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}, **streams,
        )  # fmt: skip

    def _done(self, *words: str, stdin: bytes = b"") -> None:
        done = subprocess.run(
            [sys.executable, "-m", "localseek", *words], input=stdin, capture_output=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{words}: {done.stderr.decode()}"


class Screen:
    """The app as a user drives it, one conversation a round."""

    def __init__(self, soak: Soak) -> None:
        self._soak = soak
        chosen, vault = GenerationOptions(soak.models[0]), Vault()
        ports = Ports(
            prepare=partial(app_verb.prepare, chosen, vault), history=vault.open, vault=vault,
            look_around=partial(app_verb.look_around, chosen),
        )  # fmt: skip
        self.app = LocalseekApp(chosen, ports)

    async def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, self.app.state
            await asyncio.sleep(0.02)

    async def _ready(self) -> None:
        await self._until(lambda: self.app.state.model.phase == "ready")

    async def _send(self, pilot: Pilot[None], text: str) -> None:
        self.app.chat.prompt.focus()
        self.app.chat.prompt.put(text)
        await pilot.press("enter")

    def _ended(self, count: int) -> bool:
        turns = self.app.state.turns
        return len(turns) == count and turns[-1].phase in ("done", "stopped")

    async def round(self, pilot: Pilot[None], number: int) -> None:
        """Talk, switch the model, stop an answer, look at the help and the list."""
        await self._ready()
        await pilot.press("ctrl+n")
        await self._send(pilot, f"What is {number} + 12?")
        await self._until(lambda: self._ended(1))
        await self._send(pilot, f"/model {self._soak.models[number % 2]}")
        await self._ready()
        await self._send(pilot, "And 7 more?")
        await self._until(lambda: self._ended(2))
        await self._send(pilot, LONG)
        await self._until(lambda: len(self.app.state.turns) == 3)
        await pilot.press("escape")
        await self._until(lambda: self._ended(3))
        for key in ("f1", "escape", "ctrl+r", "escape"):
            await pilot.press(key)
            await pilot.pause()
        await self._until(lambda: not self.app.busy)
        self._soak.written += 1


def growth(values: list[int]) -> tuple[float, float]:
    """Give medians of a fifth of the rounds: those after the warm-up, and the last ones."""
    fifth = max(1, len(values) // 5)
    warm = min(max(fifth, WARM_ROUNDS), len(values) - fifth)
    return statistics.median(values[warm : warm + fifth]), statistics.median(values[-fifth:])


def left_behind(home: Path, before: set[int]) -> list[str]:
    """Name processes and unfinished files that nobody needs any more."""
    found = [str(path) for path in home.rglob("*") if path.name.endswith(UNFINISHED)]
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = " ".join(process.info["cmdline"] or ())
        if process.pid not in before and "localseek" in words and _at_home(process, home):
            found.append(f"process {process.pid}: {words[:80]}")
    return found


def _at_home(process: psutil.Process, home: Path) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.pid != os.getpid() and process.environ().get("LOCALSEEK_HOME") == str(home)
    return False


def report(samples: dict[str, list[Sample]], seconds: float) -> list[str]:
    """Print a table, give what is wrong."""
    wrong = []
    rounds = len(next(iter(samples.values())))
    print(f"\n{rounds} rounds in {seconds / 60:.1f} minutes")
    print("process       RSS then       now  growth  descriptors  threads  children")
    for name, taken in samples.items():
        then, now = growth([one.rss for one in taken])
        cells = []
        for field in ("descriptors", "threads", "children"):
            old, new = growth([getattr(one, field) for one in taken])
            cells.append(f"{old:g} → {new:g}")
            if new > old:
                wrong.append(f"{name}: {field} grew from {old:g} to {new:g}")
        grown = now / then - 1
        print(f"{name:12} {then / 1e6:7.1f}MB {now / 1e6:7.1f}MB {grown:7.1%}  {'  '.join(cells)}")
        if grown > GROWTH and now - then > SLACK_BYTES:
            wrong.append(f"{name}: memory grew by {grown:.1%}")
    return wrong


async def soaked(soak: Soak, seconds: float, pause: Path | None) -> dict[str, list[Sample]]:
    """Go round and round; give what was measured after each."""
    samples, busy, number = dict[str, list[Sample]](), 0.0, 0
    screen = Screen(soak)
    async with screen.app.run_test(size=(100, 30)) as pilot:
        while busy < seconds:
            while pause and pause.exists():
                await asyncio.sleep(3)
            began = time.monotonic()
            number += 1
            await screen.round(pilot, number)
            await asyncio.to_thread(soak.round, number)
            gc.collect()
            await asyncio.sleep(0.5)  # what ends by itself has ended
            for name, pid in soak.watched().items():
                samples.setdefault(name, []).append(measure(pid))
            busy += time.monotonic() - began
            rss = "  ".join(f"{name} {one[-1].rss / 1e6:.1f}MB" for name, one in samples.items())
            print(f"round {number:4}  {busy / 60:6.1f} min  {rss}", file=sys.__stdout__, flush=True)
    screen.app.close_session()
    return samples


def main() -> int:
    """Soak, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--home", type=Path, help="a folder to begin in (default: a new one)")
    parser.add_argument("--report", type=Path, help="write all samples here, as JSON")
    parser.add_argument("--pause", type=Path, help="wait between rounds while this file exists")
    arguments = parser.parse_args()
    home = arguments.home or Path(tempfile.mkdtemp(prefix="localseek-soak-"))
    os.environ["LOCALSEEK_HOME"] = str(home)
    before, soak = set(psutil.pids()), Soak(home)
    began = time.monotonic()
    try:
        samples = asyncio.run(soaked(soak, arguments.minutes * 60, arguments.pause))
    finally:
        soak.close()
    wrong = report(samples, time.monotonic() - began) + left_behind(home, before)
    with contextlib.closing(sqlite3.connect(home / "history" / "history.sqlite3")) as database:
        (sound,) = database.execute("PRAGMA integrity_check").fetchone()
    if sound != "ok":
        wrong.append(f"the history is not whole: {sound}")
    if arguments.report:
        values = {name: [asdict(one) for one in taken] for name, taken in samples.items()}
        arguments.report.write_text(json.dumps(values))
    print("\n".join(wrong) if wrong else "Nothing grew, nothing is left, the history is whole.")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
