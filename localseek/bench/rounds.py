"""The measurements of a bench, in turns: each round does all of them once.

A machine that becomes slower or faster meanwhile does so for all alike, and ratios are taken within
a round. Takes a loaded engine, fills `Findings`. Knows nothing about how they are shown.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from localseek import Engine
from localseek.bench.findings import WARM_UP, Answers, Findings, Series
from localseek.engine.process.measurement import Measured, Task
from localseek.errors import EngineError
from localseek.events import AnswerDelta, Failed, Finished, ReasoningDelta, Stats
from localseek.options import MAX_DEPTH, Message, Mtp, Request, Sampling

PARTS = ("load", "prompt", "decode", "drafts", "pipe", "first-token")


class Stopped(Exception):
    """The user has seen enough: no error, and what was found counts."""


@dataclass(frozen=True)
class Plan:
    """What to measure. `drafting` are the ways to draft: [] where the model has none."""

    prompt_tokens: int
    tokens: int
    runs: int
    questions: tuple[str, ...]
    parts: frozenset[str]
    drafting: tuple[Mtp, ...] = ()

    @property
    def ways(self) -> tuple[Mtp, ...]:
        """Give all ways to decode, plainly first."""
        return ("off", *self.drafting)

    @property
    def usual(self) -> tuple[Mtp, ...]:
        """Give plain decoding and what users get: the automatic depth, or the one they fixed."""
        return ("off", *self.drafting[-1:])


def ways_to_draft(mtp: Mtp) -> tuple[Mtp, ...]:
    """Give the ways to draft that --mtp leaves."""
    if mtp == "auto":
        return (*range(1, MAX_DEPTH + 1), "auto")
    return () if mtp == "off" else (mtp,)


@dataclass(frozen=True)
class Asked:
    """An answer's times in seconds, from the request on, and its statistics."""

    first_s: float
    seconds: float
    stats: Stats


class Rounds:
    """Runs a plan on an engine with a loaded model."""

    def __init__(
        self, engine: Engine, plan: Plan, findings: Findings, show: Callable[[str], None],
        stopped: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._engine, self._plan, self._findings = engine, plan, findings
        self._show, self._stopped = show, stopped

    def run(self) -> None:
        """Measure in a warm-up and `runs` rounds; raises Stopped and EngineError."""
        steps = self._steps()
        for number in range(WARM_UP, self._plan.runs):
            title = "warm-up" if number == WARM_UP else f"round {number + 1} of {self._plan.runs}"
            # There and back again: what grows steadily weighs the same on the first and the last.
            back = number > 0 and number % 2
            for name, step in reversed(steps) if back else steps:
                self._show(f"{title} · {name}")
                step(number)
            self._findings.memory = self._measure(Task("memory")).memory

    def _steps(self) -> list[tuple[str, Callable[[int], None]]]:
        plan = self._plan
        steps: list[tuple[str, Callable[[int], None]]] = []
        if "prompt" in plan.parts:
            steps.append(("reading a prompt", partial(self._prompt, "off")))
            if plan.drafting:
                steps.append(("reading a prompt, drafts on", partial(self._prompt, "on")))
        if "decode" in plan.parts:
            steps.append(("decoding", self._decode))
        if "drafts" in plan.parts or "pipe" in plan.parts:
            ways = plan.ways if "drafts" in plan.parts else plan.usual
            steps += [(f"answering, drafts {way}", partial(self._text, way)) for way in ways]
        if "pipe" in plan.parts:
            steps += [
                (f"answering through the pipe, drafts {way}", partial(self._pipe, way))
                for way in plan.usual
            ]
        if "first-token" in plan.parts:
            steps += [
                (f"first token, drafts {way}", partial(self._first_token, way))
                for way in plan.usual
            ]
        return steps

    def _measure(self, task: Task) -> Measured:
        found = self._engine.measure(task)
        if found.cancelled or self._stopped():
            raise Stopped
        return found

    def _prompt(self, way: str, number: int) -> None:
        mtp = self._plan.drafting[0] if way == "on" else "off"
        found = self._measure(Task("prompt", mtp, self._plan.prompt_tokens, number + 1))
        _put(self._findings.prompt, way, number, found.tokens / found.seconds)

    def _decode(self, number: int) -> None:
        found = self._measure(Task("decode", "off", self._plan.tokens, number + 1))
        self._findings.decode[number] = found.tokens / found.seconds

    def _questions(self, number: int) -> tuple[str, ...]:
        """Give the questions, each round beginning with another one."""
        start = max(number, 0) % len(self._plan.questions)
        return self._plan.questions[start:] + self._plan.questions[:start]

    def _text(self, way: Mtp, number: int) -> None:
        questions = self._questions(number)
        found = self._measure(Task("text", way, self._plan.tokens, 0, questions))
        if not found.tokens:
            raise EngineError("The model answered with nothing.", "Give a --prompt FILE.")
        _put(self._findings.text, str(way), number, found.tokens / found.seconds)
        self._findings.answers.setdefault(str(way), Answers()).add(number, found)
        if way == "off":
            known = {question for question, _, _ in self._findings.texts}
            told = zip(questions, found.prompts, found.generated, strict=False)
            self._findings.texts += [one for one in told if one[0] not in known]

    def _pipe(self, way: Mtp, number: int) -> None:
        """Answer as users are answered; time all but the reading of the prompt."""
        self._measure(Task("drafting", way))
        tokens, seconds = 0, 0.0
        for question in self._questions(number):
            asked = self._ask(question, self._plan.tokens - tokens + 1)
            read = asked.stats.prompt_tokens - asked.stats.cached_tokens
            seconds += asked.seconds - read / asked.stats.prompt_tps
            tokens += max(asked.stats.generated_tokens - 1, 0)
            if tokens >= self._plan.tokens:
                break
        if tokens:
            _put(self._findings.pipe, str(way), number, tokens / seconds)

    def _first_token(self, way: Mtp, number: int) -> None:
        """Ask a question that the cache knows nothing of."""
        seed = 2 * (number + 1) + (way != "off") + 100
        question = self._measure(Task("question", "off", self._plan.prompt_tokens, seed)).text
        self._measure(Task("drafting", way))
        asked = self._ask(question, 2)
        self._findings.first_token_prompt = asked.stats.prompt_tokens
        _put(self._findings.first_token, str(way), number, asked.first_s)

    def _ask(self, question: str, limit: int) -> Asked:
        """Let the engine answer as it answers users."""
        request = Request(
            (Message("user", question),), Sampling(temperature=0.0, repeat_penalty=1.0), limit
        )
        first = 0.0
        started = time.perf_counter()
        for event in self._engine.generate(request):
            if isinstance(event, Failed):
                raise EngineError(event.message, event.hint)
            elif isinstance(event, Finished):
                seconds = time.perf_counter() - started
                if event.reason == "cancelled" or self._stopped():
                    raise Stopped
                return Asked(first or seconds, seconds, event.stats)
            elif isinstance(event, AnswerDelta | ReasoningDelta) and not first:
                first = time.perf_counter() - started
        raise EngineError("The engine ended an answer without a word.")


def _put(where: dict[str, Series], way: str, number: int, value: float) -> None:
    where.setdefault(way, {})[number] = value
