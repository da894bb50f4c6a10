"""Speed measured at the decoder, in the engine child: the loop that every answer goes through.

Takes tasks, gives results. `prompt` and `decode` do what llama-bench calls pp and tg, with the
same kind of tokens (random ones, BOS first) from an empty cache. `text` answers at temperature 0:
whether drafts are accepted depends on the text. Knows nothing about rounds, ratios or pipes.
"""

import hashlib
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from localseek.engine.decoding.decoder import Outcome
from localseek.engine.decoding.thinking import GROUP_SECONDS
from localseek.engine.drafting.depth import DepthController
from localseek.engine.drafting.draft_counter import DraftCounter
from localseek.engine.drafting.draft_policy import DepthPolicy, FixedDepth
from localseek.engine.llama import Sampler, SamplerOptions
from localseek.engine.loading.loaded import Loaded
from localseek.engine.process.measurement import Measured, Task
from localseek.options import Message, Mtp, Request, Sampling

if TYPE_CHECKING:
    from localseek.engine.llama import Context

GREEDY = Sampling(temperature=0.0, repeat_penalty=1.0)
MEMORY = {"VmHWM": "peak", "RssFile": "file", "RssAnon": "own"}  # of /proc/self/status, in kB


class Rambler(Sampler):
    """Chooses as a greedy sampler does, then gives a random token that ends nothing."""

    def __init__(self, loaded: Loaded, seed: int, tokens: int) -> None:
        super().__init__(loaded.model, SamplerOptions(temperature=0.0))
        chance, ends = random.Random(seed), loaded.model.stops
        some = [token for token in range(loaded.model.n_vocab) if token not in ends]
        self.next = iter(chance.choices(some, k=tokens)).__next__  # made before it is timed

    def sample(self, context: "Context", row: int) -> int:
        """Give the next random token, after the work of choosing one."""
        super().sample(context, row)
        return self.next()

    def chooser(self, context: "Context") -> Callable[[], int]:
        """Make a function that does the same with row 0, over and over."""
        choose, give = context.first_likeliest(), self.next

        def chosen() -> int:
            choose()
            return give()

        return chosen


class Benchmark:
    """Runs tasks on a loaded model. Its automatic policy learns from one task to the next."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded, self._decoder = loaded, loaded.decoder
        own = loaded.decoder.policy
        self._auto = own if isinstance(own, DepthController) else DepthController()

    def run(self, task: Task, cancelled: Callable[[], bool]) -> Measured:
        """Measure; raises what the decoder raises, ModelError for a prompt that is too long."""
        if task.kind == "question":
            return self._question(task)
        if task.kind == "memory":
            return Measured(memory=process_memory())
        self._decoder.policy = self._policy(task.mtp)
        if task.kind == "drafting":
            return Measured()
        return self._text(task, cancelled) if task.kind == "text" else self._random(task, cancelled)

    def _policy(self, mtp: Mtp) -> DepthPolicy:
        return self._auto if mtp == "auto" else FixedDepth(0 if mtp == "off" else int(mtp))

    def _random(self, task: Task, cancelled: Callable[[], bool]) -> Measured:
        """Read or decode random tokens."""
        model = self._loaded.model
        sampler, outcome = Rambler(self._loaded, task.seed, task.tokens + 1), Outcome()
        first = model.bos if model.add_bos else sampler.next()
        reading = task.kind == "prompt"
        prompt = [first, *(sampler.next() for _ in range(task.tokens - 1))] if reading else [first]
        self._decoder.forget()
        try:
            started = time.perf_counter()
            limit = 1 if reading else task.tokens
            for _ in self._decoder.generate(
                prompt, sampler, limit, cancelled, _ignore, outcome, GROUP_SECONDS
            ):
                pass
            seconds = time.perf_counter() - started
        finally:
            sampler.close()
        done = outcome.read if reading else outcome.generated
        return Measured(done, seconds, outcome.reason == "cancelled")

    def _text(self, task: Task, cancelled: Callable[[], bool]) -> Measured:
        """Answer questions; the first token of each answer belongs to the reading."""
        drafts, reason = DraftCounter(), ""
        tokens, seconds = 0, 0.0
        prompts, generated, digest = [], [], hashlib.sha256()
        for question in task.questions:
            prompt, outcome = self._prompt(question), Outcome(drafts=drafts)
            wanted = task.tokens - tokens + 1
            found, took = self._answer(prompt, wanted, cancelled, outcome)
            prompts.append(tuple(prompt))
            generated.append(len(found))
            digest.update(repr(found).encode())
            tokens += max(len(found) - 1, 0)
            seconds += took
            reason = outcome.reason
            if reason == "cancelled" or tokens >= task.tokens:
                break
        steps = drafts.steps + max(tokens - drafts.tokens, 0)  # those without the layer give one
        return Measured(
            tokens, seconds, reason == "cancelled", steps, tuple(drafts.drafted),
            tuple(drafts.accepted), tuple(prompts), tuple(generated), digest.hexdigest(),
        )  # fmt: skip

    def _prompt(self, question: str) -> list[int]:
        return self._loaded.prompt(Request((Message("user", question),))).tokens

    def _answer(
        self, prompt: list[int], limit: int, cancelled: Callable[[], bool], outcome: Outcome
    ) -> tuple[list[int], float]:
        """Give the tokens of an answer, and the seconds from the first one on."""
        sampler = self._loaded.sampler(Request((), GREEDY), opened=False)
        self._decoder.forget()
        found: list[int] = []
        started = 0.0
        try:
            for group in self._decoder.generate(
                prompt, sampler, limit, cancelled, _ignore, outcome, GROUP_SECONDS
            ):
                if not found:
                    started = time.perf_counter()
                found += group
            return found, time.perf_counter() - started if found else 0.0
        finally:
            sampler.close()

    def _question(self, task: Task) -> Measured:
        """Find the longest question of sums whose prompt has at most `tokens` tokens."""

        def text(sums: int) -> str:
            lines = (f"{a} + {task.seed} = {a + task.seed}" for a in range(1, sums + 1))
            return f"({task.seed}) Is all of this right? " + ", ".join(lines)

        def length(sums: int) -> int:
            return len(self._loaded.model.tokenize(text(sums)))

        frame = len(self._prompt(text(1))) - length(1)  # what the template adds
        low, high = 1, max(1, task.tokens)  # a sum has one token at the least
        while low < high:
            middle = (low + high + 1) // 2
            fits = length(middle) + frame <= task.tokens
            low, high = (middle, high) if fits else (low, middle - 1)
        return Measured(text=text(low))


def process_memory() -> dict[str, int]:
    """Give what this process takes in bytes: its peak, and now pages of files and its own.

    Only the peak where the system has no /proc.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"peak": peak * (1 if sys.platform == "darwin" else 1024)}
    values = dict(line.split(":", 1) for line in lines)
    return {
        name: int(values[key].split()[0]) * 1024 for key, name in MEMORY.items() if key in values
    }


def _ignore(_done: int, _cached: int) -> None:
    """Progress within one measurement is nobody's."""
