"""The programs that `peers.py` compares, each loaded once and measured bit by bit.

None of them takes time while another is measured: ours and llama-servers are idle, llama-bench,
which cannot be told to wait, is stopped. Speeds are tokens a second. Knows nothing about turns.
"""

import contextlib
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from localseek import Engine
from localseek.bench.findings import Answers
from localseek.engine.process.measurement import Measured, Task
from localseek.options import Fixed, LoadOptions, Mtp

START_S, ANSWER_S = 300.0, 1800.0
RUN_BEGINS = re.compile(
    r"(generation|prompt) run \d+/\d+"
)  # what llama-bench says; not of warm-ups
ROOM = 64  # tokens of the context for what a template and drafts add


class Ours:
    """localseek's engine with a model, doing what `localseek bench` lets it do."""

    def __init__(
        self, path: Path, threads: int, context: int, mtp: Mtp, cpu_experts: int | None
    ) -> None:
        fixed = Fixed(cpu_experts=cpu_experts)
        self._engine = Engine.of(
            LoadOptions(str(path), context, threads, mtp, fixed=fixed, draft_memory=True)
        )
        self.info = self._engine.load()
        self.system: str = self._engine.facts().get("system", "")
        self.answers: dict[Mtp, Answers] = {}

    def prompt(self, tokens: int, seed: int, drafting: bool) -> float:
        """Read random tokens."""
        return _speed(
            self._engine.measure(Task("prompt", "auto" if drafting else "off", tokens, seed))
        )

    def decode(self, tokens: int, seed: int) -> float:
        """Decode random tokens."""
        return _speed(self._engine.measure(Task("decode", "off", tokens, seed)))

    def text(self, way: Mtp, tokens: int, questions: tuple[str, ...], number: int) -> Measured:
        """Answer until so many tokens are decoded, the first of each answer not counted."""
        found = self._engine.measure(Task("text", way, tokens, 0, questions))
        self.answers.setdefault(way, Answers()).add(number, found)
        return found

    def close(self) -> None:
        """End the engine."""
        self._engine.close()


def _speed(found: Measured) -> float:
    return found.tokens / found.seconds


class LlamaBench:
    """A llama-bench that repeats one test and is stopped but for its turns.

    A turn lets the run end that was interrupted, which does not count, then do one whole.
    """

    def __init__(self, words: list[str], turns: int) -> None:
        runs = 3 + 2 * turns
        self._process = subprocess.Popen(
            [*words, "-r", str(runs), "-o", "json", "--progress"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._begun = 0
        self._whole: list[int] = []  # runs, counted from 0
        self._go_on(2)

    def _go_on(self, runs: int) -> None:
        """Let it run until it has begun as many runs more."""
        assert self._process.stderr is not None
        self._process.send_signal(signal.SIGCONT)
        wanted, said = self._begun + runs, ""
        while self._begun < wanted:
            if not (line := self._process.stderr.readline()):
                raise SystemExit(f"llama-bench ended early: {said[-2000:]}")
            said += line
            self._begun += RUN_BEGINS.search(line) is not None
        self._process.send_signal(signal.SIGSTOP)

    def turn(self) -> None:
        """Let it measure; it tells what at the end."""
        self._whole.append(self._begun)  # the run after the one that is interrupted now
        self._go_on(2)

    def speeds(self) -> list[float]:
        """Let it end; give tokens a second of each turn."""
        self._process.send_signal(signal.SIGCONT)
        said, _ = self._process.communicate(timeout=ANSWER_S)
        samples: list[float] = json.loads(said)[0]["samples_ts"]
        return [samples[run] for run in self._whole]

    def close(self) -> None:
        """End it, stopped or not."""
        self._process.kill()
        self._process.wait()


class Server:
    """A llama-server on loopback with one slot or more; its log is deleted with it."""

    def __init__(self, words: list[str], slots: int = 1) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        # A proxy that the environment names has no business on loopback.
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        self._log = tempfile.NamedTemporaryFile(suffix=".log")  # noqa: SIM115 - closed with it
        self.drafted = self.accepted = 0
        self._process = subprocess.Popen(
            [*words, "--host", "127.0.0.1", "--port", str(port), "-np", str(slots), "--offline"],
            stdout=self._log, stderr=self._log,
        )  # fmt: skip
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    @property
    def log(self) -> str:
        """Give what it has printed until now."""
        return Path(self._log.name).read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Give its process number."""
        return self._process.pid

    def _wait(self) -> None:
        """Wait until the model is loaded; ends with the log's last lines if it never is."""
        deadline = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                self._open(f"{self.url}/health", timeout=5).read()
                return
            time.sleep(0.1)
        raise SystemExit(f"llama-server did not start: {self.log[-2000:]}")

    def _answer(self, prompt: tuple[int, ...], tokens: int) -> dict[str, Any]:
        """Let it answer; give its own timings."""
        request = {
            "prompt": prompt, "n_predict": tokens, "temperature": 0.0, "cache_prompt": False,
            "samplers": ["top_k"], "top_k": 1,
        }  # fmt: skip
        timings: dict[str, Any] = self.ask("completion", request)["timings"]
        return timings

    def chat(self, question: str, tokens: int, system: str = "") -> int:
        """Let it answer a question at temperature 0; give the number of tokens."""
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": question})
        request = {
            "messages": messages, "temperature": 0, "max_tokens": tokens, "cache_prompt": True,
        }  # fmt: skip
        return int(self.ask("v1/chat/completions", request)["usage"]["completion_tokens"])

    def ask(self, place: str, request: dict[str, Any]) -> dict[str, Any]:
        """Post a request, give its JSON."""
        data = json.dumps(request).encode()
        head = {"Content-Type": "application/json"}
        asked = urllib.request.Request(f"{self.url}/{place}", data, head)
        answer: dict[str, Any] = json.loads(self._open(asked, timeout=ANSWER_S).read())
        return answer

    def speed(self, texts: Iterable[tuple[tuple[int, ...], int]]) -> float:
        """Answer prompts with as many tokens as ours did; give tokens a second.

        The first token of an answer belongs to the reading, as in ours.
        """
        tokens, seconds = 0, 0.0
        for prompt, generated in texts:
            timings = self._answer(prompt, generated)
            tokens += timings["predicted_n"] - 1
            seconds += timings["predicted_ms"] / 1e3
            self.drafted += timings.get("draft_n", 0)
            self.accepted += timings.get("draft_n_accepted", 0)
        return tokens / seconds

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def spread(values: list[float]) -> tuple[float, float, float]:
    """Give the median and the quartiles of at least one value."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high


def find_modules(root: Path) -> None:
    """Let the engine's process, which is started from anywhere, import this tree."""
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(root), os.environ.get("PYTHONPATH")))
    )
