"""Jobs run by a scheduler, and the same jobs run one at a time by the decoder, in this process."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from localseek.engine.decoding.decoder import Decoder, Outcome
from localseek.engine.decoding.lanes import Lanes
from localseek.engine.decoding.scheduler import Scheduler
from localseek.engine.decoding.sequence import Job
from localseek.engine.decoding.text_stream import TextStream
from localseek.engine.decoding.thinking import Bounds, answer
from localseek.engine.drafting.depth import DepthController
from localseek.engine.drafting.draft_policy import DepthPolicy, FixedDepth
from localseek.engine.drafting.shared_depth import SharedDepth
from localseek.engine.llama import AbortFlag, Context, Model, SamplerOptions
from localseek.events import AnswerDelta, Event, Failed, Finished, ReasoningDelta
from localseek.nano import prompts

from .margins import CLEAR, Watched


@dataclass
class Task:
    question: str
    limit: int = 400
    budget: int | None = None
    temperature: float = 0.0
    seed: int = 0
    top_p: float = 0.95
    stop: tuple[str, ...] = ()
    past: tuple[tuple[str, str], ...] = ()

    def tokens(self, model: Model) -> list[int]:
        return model.tokenize(prompts.prompt(self.question, self.past))

    def sampler(self, model: Model) -> Watched:
        options = SamplerOptions(temperature=self.temperature, top_p=self.top_p, seed=self.seed)
        return Watched(model, options)


@dataclass
class Told:
    """All that came of a task."""

    events: list[Event] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(e.text for e in self.events if isinstance(e, ReasoningDelta | AnswerDelta))

    @property
    def end(self) -> Finished:
        assert sum(isinstance(e, Finished | Failed) for e in self.events) == 1
        assert isinstance(self.events[-1], Finished), self.events[-1]
        return self.events[-1]


def alone(model: Model, task: Task, n_ctx: int = 2048) -> str:
    """Answer a task by itself, without drafts."""
    return watched_alone(model, task, n_ctx)[0]


def surely_alone(model: Model, task: Task) -> str:
    """Answer a task by itself where every token of the answer leads clearly."""
    text, sampler = watched_alone(model, task)
    assert sampler.least_lead > CLEAR, f"{task}: a lead of {sampler.least_lead:.2f} only"
    return text


def watched_alone(model: Model, task: Task, n_ctx: int = 2048) -> tuple[str, Watched]:
    target, told = Context(model, n_ctx, 1), Told()
    sampler, stream = task.sampler(model), TextStream(told.events.append, True, task.stop)
    answer(
        Decoder(model, target, None), task.tokens(model), sampler, Bounds(task.limit, task.budget),
        stream, lambda: False, lambda _done, _cached: None, Outcome(),
    )  # fmt: skip
    stream.finish()
    sampler.close()
    target.close()
    return told.text, sampler


class Group:
    """A scheduler over a context of its own; a context manager."""

    def __init__(
        self, model: Model, parallel: int, mtp: str | int | Callable[[], DepthPolicy] = "off",
        n_ctx: int = 2048,
    ) -> None:  # fmt: skip
        self.model, self.abort = model, AbortFlag()
        self.target = Context(model, n_ctx, 1, abort=self.abort, sequences=parallel)
        self.lanes = None if mtp == "off" else Lanes(model, self.target, 1, parallel)
        if not callable(mtp):
            depth = int(mtp) if mtp not in ("off", "auto") else 0
            mtp = DepthController if mtp == "auto" else partial(FixedDepth, depth)
        self.cancelled: set[int] = set()
        self.scheduler = Scheduler(
            model, self.target, parallel, self.lanes, SharedDepth(mtp),
            self.cancelled.__contains__,
        )  # fmt: skip
        self.told: list[Told] = []
        self.samplers: list[Watched] = []
        self.log: list[tuple[int, Event]] = []

    def add(self, task: Task) -> int:
        number, told = len(self.told), Told()
        self.told.append(told)

        def send(event: Event) -> None:
            told.events.append(event)
            self.log.append((number, event))

        self.samplers.append(task.sampler(self.model))
        job = Job(
            number, task.tokens(self.model), self.samplers[-1],
            TextStream(send, True, task.stop), Bounds(task.limit, task.budget), send,
        )  # fmt: skip
        self.scheduler.add(job)
        return number

    def run(self, steps: int = 100_000) -> None:
        while self.scheduler.busy and steps:
            self.scheduler.step()
            steps -= 1

    def __enter__(self) -> "Group":
        return self

    def __exit__(self, *_: object) -> None:
        if self.lanes:
            self.lanes.close()
        self.target.close()
