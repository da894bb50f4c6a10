"""A machine and a text on which drafting policies are tried: simulated times, no model.

A `Machine` says what each part of a step costs (with noise), a text how likely each draft is
right and how sure the draft layer is of it. `Simulation` runs a policy as the decoder does.
"""

import random
from dataclasses import dataclass

from localseek.engine.drafting.draft_policy import DepthPolicy, Step

MAX_DEPTH = 4


@dataclass(frozen=True)
class Machine:
    """Costs of a step in seconds: `verify[k]` for k drafts, then those of the draft layer.

    `row`: what a hidden row adds to every step, `verify` does not hold it. `changing`: what each of
    the first steps adds that verify another number than the one before: a graph is built again, on
    GPUs also captured.
    """

    verify: tuple[float, ...]
    first: float
    next: float
    catch_up: float = 0.0
    noise: float = 0.0
    row: float = 0.0
    changing: tuple[float, ...] = ()


@dataclass(frozen=True)
class Text:
    """Acceptance by position; `sure`: how well the draft's probability tells good from bad."""

    acceptance: tuple[float, ...]
    sure: float = 0.0


BARE = Machine((1.0, 1.9, 2.7, 3.2, 3.8), 0.55, 0.6, 0.19)
TINY = Machine((1.0, 1.35, 1.8, 2.2, 2.7), 0.55, 0.6, 0.19)
DENSE = Machine((1.0, 1.02, 1.05, 1.25, 1.3), 0.03, 0.03, 0.003)
SPARSE = Machine((1.0, 1.45, 1.85, 2.2, 2.5), 0.08, 0.07, 0.01)
GPU_EXPERTS = Machine((1.0, 1.75, 2.4, 3.0, 3.5), 0.03, 0.03, 0.002)
FLAT = Machine((1.0, 1.01, 1.02, 1.03, 1.04), 0.02, 0.02, 0.002)
STEPPED = Machine((1.0, 1.5, 1.5, 1.5, 1.5), 0.02, 0.02, 0.002)
NEAR = Machine((1.0, 1.05, 1.1, 1.3, 1.35), 0.2, 0.2, 0.003, row=0.2)
# As measured on an H200: all of a model there, and with its experts in memory.
GPU = Machine((1.0, 1.11, 1.32, 1.45, 1.6), 0.13, 0.26, 0.003, row=0.05, changing=(1.8, 2.2))
GPU_MOE = Machine((1.0, 1.25, 1.5, 1.7, 1.9), 0.13, 0.2, 0.003, row=0.1, changing=(1.0, 1.8))
FAR = Machine((1.0, 1.05, 1.1, 1.15, 1.2), 1.3, 1.3, 0.003, row=0.3)
MACHINES = {
    "bare": BARE, "tiny": TINY, "dense": DENSE, "sparse": SPARSE, "experts on the CPU": GPU_EXPERTS,
    "flat": FLAT, "stepped": STEPPED, "near worker": NEAR, "far worker": FAR,
    "GPU": GPU, "GPU, experts in memory": GPU_MOE,
}  # fmt: skip

CODE = Text((0.97, 0.9, 0.85, 0.8))
PROSE = Text((0.55, 0.35, 0.25, 0.2))
NANO = Text((0.99, 0.4, 0.3, 0.2))
NOTHING = Text((0.0, 0.0, 0.0, 0.0))
TEXTS = {"code": CODE, "prose": PROSE, "nano": NANO, "never accepted": NOTHING}


def best_rate(machine: Machine, text: Text) -> float:
    """Give the tokens a second of the best fixed depth, 0 included."""
    rates, tokens, accepted, drafting = [1 / machine.verify[0]], 1.0, 1.0, machine.first
    for depth in range(1, MAX_DEPTH + 1):
        accepted *= text.acceptance[depth - 1]
        tokens += accepted
        rates.append(tokens / (machine.verify[depth] + machine.row + drafting))
        drafting += machine.next
    return max(rates)


class Simulation:
    """One policy on one machine; the clock goes on from text to text."""

    def __init__(self, policy: DepthPolicy, machine: Machine, seed: int = 1) -> None:
        self.policy, self.machine, self.random = policy, machine, random.Random(seed)
        self.clock, self.tokens, self.waiting = 0.0, 0, 1
        self.slowness = 1.0
        self.depths: list[int] = []  # drafts verified in each step
        self._same = 0  # steps in a row that verified as many

    def run(self, text: Text, tokens: int) -> float:
        """Decode so many tokens of a text; give the tokens a second."""
        clock, before = self.clock, self.tokens
        if self.policy.start():
            self.waiting = max(self.waiting, 1)
        while self.tokens - before < tokens:
            self.step(text)
        return (self.tokens - before) / (self.clock - clock)

    def until_asleep(self, text: Text, most: int = 4000) -> None:
        """Decode until the draft layer sleeps."""
        for _ in range(most):
            if self.policy.asleep:
                return
            self.step(text)
        raise AssertionError(f"the draft layer is still awake after {most} steps")

    def step(self, text: Text) -> None:
        """Run one step as the decoder does."""
        step, machine = Step(waiting=self.waiting), self.machine
        if self.policy.asleep:
            seconds = self._time(machine.verify[0]) + self._changing(0)
            self.policy.slept(seconds)
            self.waiting = 0
            self.tokens += 1
            self.clock += seconds
            self.depths.append(0)
            return
        if self.policy.compares:
            times = [self._time(machine.verify[0] + row) for row in (machine.row, 0, 0, 0)]
            self.policy.compare(times[0], times[-1])
            self.clock += sum(times)
        right: list[bool] = []
        sure: list[float] = []
        if self.policy.begin(self.waiting):
            step.first_s = self._time(
                machine.first + machine.catch_up * (self.waiting if self.waiting > 5 else 0)
            )
            if self.waiting > 5:
                for _ in range(min(self.waiting - 1, 16)):
                    good = self.random.random() < text.acceptance[0]
                    step.hindsight.append((self._sure(text, 0, good), good))
            while len(right) < MAX_DEPTH and self.policy.deeper(sure):
                good = self.random.random() < text.acceptance[len(right)]
                sure.append(self._sure(text, len(right), good))
                right.append(good)
                if len(right) > 1:
                    step.next_s += self._time(machine.next)
            self.waiting = 0
        step.drafted, step.verified = len(right), self.policy.keep(sure)
        while step.tokens <= step.verified and right[step.tokens - 1]:
            step.tokens += 1
        step.verify_s = self._time(machine.verify[step.verified] + machine.row)
        step.verify_s += self._changing(step.verified)
        step.trials = list(zip(sure, right, strict=True))[: step.tokens]
        self.waiting += step.tokens
        self.tokens += step.tokens
        self.clock += step.first_s + step.next_s + step.verify_s
        self.depths.append(step.verified)
        self.policy.learn(step)

    def _changing(self, verified: int) -> float:
        """Give what the step pays for verifying another number than those before."""
        alike = bool(self.depths) and self.depths[-1] == verified
        self._same = self._same + 1 if alike else 0
        extra = self.machine.changing[self._same : self._same + 1]
        return extra[0] if extra else 0.0

    def _sure(self, text: Text, position: int, good: bool) -> float:
        """Give the draft layer's probability: the mean, drawn towards the truth by `sure`."""
        mean = text.acceptance[position]
        return mean + text.sure * ((0.99 if good else 0.2) - mean)

    def _time(self, seconds: float) -> float:
        noise = self.random.expovariate(1.0) * self.machine.noise
        if self.machine.noise and self.random.random() < 0.02:
            noise += 5 * self.random.random()  # something else ran
        return seconds * self.slowness * (1 + noise)
