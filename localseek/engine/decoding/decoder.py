"""From prompt tokens to generated tokens: one sequence, with or without drafts.

Reuses what the cache already holds of the prompt. Every token that leaves here was chosen by the
sampler from the trunk's own logits; drafts only decide how many are verified at once. Knows
nothing about text.
"""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from localseek.engine.drafting.draft import Drafter
from localseek.engine.drafting.draft_counter import DraftCounter
from localseek.engine.drafting.draft_policy import DOZE, SURE, DepthPolicy, FixedDepth, Step
from localseek.engine.llama import Aborted, Batch, Context, Model, Sampler
from localseek.errors import LocalseekError
from localseek.events import FinishReason


@dataclass
class Outcome:
    """How a generation went; complete once its iterator is exhausted."""

    reason: FinishReason = "stop"
    cached: int = 0
    read: int = 0  # tokens of the prompt that were run, the cached ones not counted
    prompt_seconds: float = 0.0
    generated: int = 0
    drafts: DraftCounter = field(default_factory=DraftCounter)


def common_prefix(a: list[int], b: list[int]) -> int:
    """Give how many tokens two lists have in common from the start."""
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return index
    return min(len(a), len(b))


class Decoder:
    """A target context, a drafter if the model has one, and what the cache holds."""

    def __init__(
        self, model: Model, target: Context, drafter: Drafter | None,
        policy: DepthPolicy | None = None,
    ) -> None:  # fmt: skip
        self.model, self.target, self.drafter = model, target, drafter
        self.policy = policy or FixedDepth(0)
        self.cached: list[int] = []
        self._batch = Batch(target.n_batch)
        self._ends = model.stops
        self._active: Drafter | None = None  # the drafter, if this answer wants it
        self._after_s = 0.0  # what the policy took after the last step: part of the next
        if drafter:
            target.give_hidden(False)

    def state_bytes(self) -> int:
        """Give the size of what both caches hold."""
        drafted = self.drafter.context.state_bytes() if self.drafter else 0
        return self.target.state_bytes() + drafted

    def forget(self) -> None:
        """Empty both caches."""
        self.target.trim(0)
        if self.drafter:
            self.drafter.trim(0)
        self.cached = []

    def generate(
        self, prompt: list[int], sampler: Sampler, limit: int, cancelled: Callable[[], bool],
        progress: Callable[[int, int], None], outcome: Outcome, group_s: float = 0.0,
        ends: frozenset[int] | None = None,
    ) -> Generator[list[int], None, None]:  # fmt: skip
        """Yield new tokens, at most `limit` in all, without the ending token.

        They come step by step, or gathered over `group_s` seconds. `prompt` is not empty and
        shorter than the context; `ends` are the tokens that end it, None: the model's own. Calls
        `progress` with tokens read and tokens reused. Fills `outcome`; the reason is `length` when
        the limit or the end of the context was reached, `cancelled` also when the context's abort
        flag was set.
        """
        self._ends = self.model.stops if ends is None else ends
        self._engage(self.drafter if self.drafter and self.policy.start() else None)
        group: list[int] = []
        try:
            yield from self._generate(
                prompt, sampler, limit, cancelled, progress, outcome, group, group_s
            )
        except Aborted:
            outcome.reason = "cancelled"
            self._recover()
        except LocalseekError:  # no token fits the answer's grammar, for one
            self._recover()
            raise
        if group:
            outcome.generated += len(group)
            yield group

    def _recover(self) -> None:
        """Make both caches hold what is known of them, after a step that was not finished."""
        if not self.target.trim(len(self.cached)):
            self.forget()
        elif self._active:
            self._active.recover()

    def _generate(
        self, prompt: list[int], sampler: Sampler, limit: int, cancelled: Callable[[], bool],
        progress: Callable[[int, int], None], outcome: Outcome, group: list[int], group_s: float,
    ) -> Generator[list[int], None, None]:  # fmt: skip
        """Do what `generate` does; what is left in `group` was generated and not yielded."""
        started = time.perf_counter()
        try:
            read = self._read_prompt(prompt, cancelled, progress, outcome)
        finally:
            outcome.prompt_seconds = time.perf_counter() - started
        if not read:
            outcome.reason = "cancelled"
            return
        self.target.check_numbers(-1)
        room = min(limit, self.target.n_ctx - len(prompt))
        choose = sampler.chooser(self.target)
        fresh, ended, due = [sampler.sample(self.target, -1)], "", 0.0
        if self._active:
            self._active.accept(fresh, self._active.carry[None])
        while True:
            if len(fresh) > 1 or room <= 1 or fresh[0] in self._ends:
                fresh, ended = self._cut(fresh, room)
            group += fresh
            room -= len(fresh)
            if ended:
                outcome.reason = "stop" if ended == "end" else "length"
                return
            if cancelled():
                outcome.reason = "cancelled"
                return
            if time.perf_counter() >= due:
                outcome.generated += len(group)
                yield group[:]
                group.clear()
                due = time.perf_counter() + group_s
            if self._active:
                fresh = self._step(self._active, fresh[-1], sampler, outcome)
            else:
                earlier = len(group)
                fresh = [self._plain(fresh[-1], choose, group, room - 1, due)]
                room -= len(group) - earlier

    def _engage(self, drafter: Drafter | None) -> None:
        """Let the drafter take part or not; hidden rows are not even computed without one."""
        if self.drafter and drafter is not self._active:
            self.target.give_hidden(drafter is not None)
            if drafter is None:
                self.drafter.trim(0)
        self._active = drafter

    def _cut(self, fresh: list[int], room: int) -> tuple[list[int], str]:
        for index, token in enumerate(fresh):
            if token in self._ends:
                return fresh[:index], "end"
            if index >= room:
                return fresh[:index], "limit"
        return fresh, "limit" if len(fresh) >= room else ""

    def _read_prompt(
        self, prompt: list[int], cancelled: Callable[[], bool],
        progress: Callable[[int, int], None], outcome: Outcome,
    ) -> bool:  # fmt: skip
        """Read what of the prompt the cache does not hold; False when cancelled."""
        drafter = self._active
        # The last token is always read again: its logits are needed. A drafter also needs the
        # hidden row before the first token that is new to it, so one token more is read again.
        keep = min(common_prefix(self.cached, prompt), len(prompt) - 1)
        carried = drafter is None or drafter.trim(keep)
        if drafter and not carried:
            keep = drafter.length - 1
        if not self.target.trim(keep):
            keep = 0
            if drafter:
                carried = drafter.trim(0)
        outcome.cached = keep
        del self.cached[keep:]
        progress(keep, keep)
        for start in range(keep, len(prompt), self.target.n_batch):
            if cancelled():
                return False
            part = prompt[start : start + self.target.n_batch]
            self._batch.fill(part, start)
            self.target.decode(self._batch)
            self.cached += part
            outcome.read += len(part)
            if drafter:
                rows = self.target.hidden(len(part))
                if start == keep and not carried:
                    drafter.carry[:] = rows[0]
                    part, rows = part[1:], rows[1:]
                drafter.observe(part, rows)
            progress(len(self.cached), keep)
        return True

    def _plain(
        self, last: int, choose: Callable[[], int], group: list[int], most: int, due: float
    ) -> int:  # fmt: skip
        """Decode one by one from `last` on until `due`, an ending token, or the layer wakes.

        Gives the newest token; those before it, at most `most`, went to `group`. A large model
        leaves nothing of Python in the processor's caches: what is done for each token is kept
        small (68 → 45 µs beside a model of 0.7 B; 9 → 7 beside nano).
        """
        batch, decode, clock = self._batch, self.target.decode, time.perf_counter
        cached, ends = self.cached, self._ends
        sleeper, slept = self.drafter if self.policy.asleep else None, 0
        began = clock()
        batch.put((last,), len(cached))
        while True:
            decode(batch)
            cached.append(last)
            last = choose()
            now = clock()
            ends_here = now >= due or most <= 0 or last in ends
            if sleeper:
                slept += 1
                if slept == DOZE or ends_here:
                    self.policy.slept(now - began, slept)
                    slept = 0
                    if not self.policy.asleep:
                        self._engage(sleeper)
                        sleeper.begin_at(len(cached) + 1)
                        return last
            if ends_here:
                return last
            group.append(last)
            most -= 1
            began = now
            batch.change(last, len(cached))

    def _step(
        self, drafter: Drafter, last: int, sampler: Sampler, outcome: Outcome
    ) -> list[int]:  # fmt: skip
        """Verify a draft after `last`, and give the tokens that the sampler chose."""
        began = time.perf_counter()
        if self.policy.compares and self.target.takes_back:
            self._compare(last)
            began = time.perf_counter()
        step = Step(waiting=drafter.waiting)
        drafted, probabilities = self._draft(drafter, step)
        kept = drafted[: self.policy.keep(probabilities)] if drafted else drafted
        self._batch.put((last, *kept), len(self.cached))
        self.target.decode(self._batch)
        fresh = [sampler.sample(self.target, 0)]
        while len(fresh) <= len(kept) and fresh[-1] == kept[len(fresh) - 1]:
            if fresh[-1] in self._ends:
                break
            fresh.append(sampler.sample(self.target, len(fresh)))
        accepted = len(fresh) - 1
        self.cached.append(last)
        if kept:
            self.cached += kept[:accepted]
            if accepted < len(kept):
                self.target.trim(len(self.cached))
        drafter.accept(fresh, self.target.hidden(len(fresh)))
        outcome.drafts.count(len(kept), accepted)
        step.drafted, step.verified, step.tokens = len(drafted), len(kept), len(fresh)
        step.trials = [
            (probability, token == came)
            for probability, token, came in zip(probabilities, drafted, fresh, strict=False)
        ]
        ended = time.perf_counter()
        step.verify_s = ended - began - step.first_s - step.next_s + self._after_s
        self.policy.learn(step)
        if self.policy.asleep:
            self._engage(None)
        self._after_s = time.perf_counter() - ended
        return fresh

    def _compare(self, last: int) -> None:
        """Let the policy know what a plain step takes with hidden rows and without.

        The step after `last` is run and taken back; after a change the first ones pay for a graph.
        """
        seconds = []
        try:
            for rows in (True, False, False, False):
                self.target.give_hidden(rows)
                began = time.perf_counter()
                self._batch.put((last,), len(self.cached))
                self.target.decode(self._batch)
                self.target.likeliest(0)
                seconds.append(time.perf_counter() - began)
                self.target.trim(len(self.cached))
        finally:
            self.target.give_hidden(True)
        self.policy.compare(seconds[0], seconds[-1])

    def _draft(self, drafter: Drafter, step: Step) -> tuple[list[int], list[float]]:
        """Give drafted tokens and their probabilities, as many as the policy wants."""
        room = self.target.n_ctx - len(self.cached) - 1
        if room < 1 or not self.policy.begin(drafter.waiting):
            return [], []
        started = time.perf_counter()
        weigh, deep = self.policy.weighs, self.policy.deeper([SURE])
        token, probability, step.hindsight = drafter.first(weigh, deep)
        drafted, probabilities = [token], [probability]
        begun = time.perf_counter()
        while deep and len(drafted) < room and self.policy.deeper(probabilities):
            token, probability = drafter.next(token, weigh)
            drafted.append(token)
            probabilities.append(probability)
        drafter.end()
        step.first_s, step.next_s = begun - started, time.perf_counter() - begun
        return drafted, probabilities
