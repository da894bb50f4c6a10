"""How many tokens to draft in each step: the depth with the most tokens a second, as measured.

A step that drafts k tokens takes T[k] seconds (`Times.step`) and yields E[k] = 1 + a1 + a1 a2 + …
tokens, aj being how often the draft at position j is right if those before it are. Every few steps
the depth with the best rate E[k] / T[k] is chosen; 0 is one of them, and then the draft layer
sleeps. Where the layer's own probabilities tell good drafts from bad ones, each draft is made, and
verified, only if it is expected to yield more tokens than the best rate gives in the time it takes.
A depth that is not used is tried for a few steps when it could be better than what is, or when its
time is old; a sleeping layer wakes for a look at the text. What such tries lose is taken from an
allowance, a small share of all time: while that is used up, nothing is tried.
"""

import math
from collections.abc import Sequence
from statistics import median_low

from localseek.engine.drafting.acceptance import Acceptance, rates
from localseek.engine.drafting.draft_policy import HINDSIGHT, Step, Trial
from localseek.engine.drafting.learnt import Learnt
from localseek.engine.drafting.times import RECENT, Part, Times
from localseek.engine.drafting.worth import Worth
from localseek.options import MAX_DEPTH

PLAN_STEPS = 8  # a plan is good for so many steps; four times as many where nothing is weighed
FAST_S = 0.003  # of a plain step; below, weighing a draft (0.1 ms) takes more than it gives
MARGIN = 0.03  # of what drafts yield that a change must gain: estimates differ so by chance
ALLOWANCE = 0.007  # share of the time that may be lost to tries
PURSE_STEPS = 8  # plain steps that the allowance holds at most: a dozen tries, or one on a GPU
TRIES = 2  # steps of a try that are timed
RETRY = 48  # tokens after which what could be better is tried again, and a sleeping layer wakes
# Tokens in which the purse fills, after which what is hopeless, or was known, is tried again.
STALE = round(PURSE_STEPS / ALLOWANCE)
LONG_AGO = -(10**9)  # tokens


class DepthController:
    """Chooses the depth, 0…MAX_DEPTH, with the most tokens a second.

    Lives as long as a loaded model: what it has learnt serves the next request.
    """

    def __init__(self, compares: bool = False, settling: int = 0) -> None:
        """Begin without knowledge.

        `compares`: hidden rows may have a price. `settling`: steps that a change of depth slows
        down; with any, all steps are of one depth, whatever the probabilities of their drafts.
        """
        self.weighs, self.compares, self.asleep = False, False, False
        self.hopeless = False  # no draft could pay, even if right
        self.times, self.acceptance = Times(), Acceptance(MAX_DEPTH)
        self.depth, self._rate = 0, 0.0  # the best that is known, with its rate
        self._target = 0  # the depth of the present steps: the best one, or one on trial
        self._worth = Worth(self.times, self.acceptance, 0.0)
        self._may_compare, self._compared, self._settling = compares, False, settling
        self._steps: list[Step] = []  # that nothing was learnt from yet
        self._left = PLAN_STEPS // 2  # of the plan; the first steps are plain, and still warm up
        self._trying, self._waking = False, False
        self._alike, self._verified = 0, 0  # of the last step, and how many before were like it
        self._unlike = 0  # weighed steps that were not of the best depth
        self._purse = 0.0  # seconds of the common clock that may be lost to tries
        self._tokens = 0
        self._timed = [LONG_AGO] * (MAX_DEPTH + 1)  # when each depth was last timed, in tokens
        self._heard = [LONG_AGO] * (MAX_DEPTH + 1)  # when a draft at each position was last judged
        self._sleep_left, self._naps = 0, 0  # tokens; naps in a row
        self._slept: list[float] = []  # seconds of plain steps that nothing was learnt from yet

    # What the decoder asks.

    def start(self) -> bool:
        """Tell whether the draft layer is wanted in the answer that begins.

        It is, so that it knows the prompt, unless it has failed twice in a row.
        """
        self._learn()
        if self.asleep and not self.hopeless and self._naps < 2 and self._purse > 0:
            self.asleep = False
        self._trying = self._waking = False
        if self._rate:
            self._left = 0
        return not self.asleep

    def begin(self, waiting: int) -> bool:
        """Tell whether to draft; `waiting` rows must be taken in before."""
        if self._waking and not self._target:
            if waiting <= HINDSIGHT:
                return False
            self.weighs = True  # one decode then tells how right the last drafts would have been
            self._target, self._left = 1, 1
        if self._left <= 0:
            self._learn()
            if not self.times.verify[0].count:
                return False  # the steps so far did something else, too
            self._plan()
        self._left -= 1
        return self._target > 0

    def deeper(self, probabilities: list[float]) -> bool:
        """Tell whether to draft one more token after those with these probabilities."""
        drafted = len(probabilities)
        if self._trying or not self.weighs:
            return drafted < self._target
        return self._worth.deeper(probabilities)

    def keep(self, probabilities: list[float]) -> int:
        """Give how many of the drafted tokens to verify."""
        if self._trying or not self.weighs:
            return len(probabilities)
        best = self._worth.keep(probabilities)
        self._unlike += not best == len(probabilities) == self.depth
        return best

    def learn(self, step: Step) -> None:
        """Take what the step did; it is looked at with others, before the next plan."""
        self._steps.append(step)

    def slept(self, seconds: float, steps: int = 1) -> None:
        """Take plain steps; wake the draft layer when it may be tried again."""
        self._tokens += steps
        self._sleep_left -= steps
        self._slept.append(seconds)
        self._save(steps * seconds)
        if len(self._slept) < PLAN_STEPS and self._sleep_left > 0:
            return
        times = self.times
        part = times.plain if times.plain.count else times.verify[0]
        times.learn(part, median_low(self._slept), in_use=True)
        self._slept.clear()
        self._verified = -1  # another graph: it gives no hidden rows
        if self._sleep_left > 0:
            return
        if self._purse <= 0 and not self.hopeless:
            self._sleep_left = RETRY
            return
        if self.hopeless:  # perhaps the machine is another one by now; so long a sleep pays for it
            self._timed = [LONG_AGO] * (MAX_DEPTH + 1)
            if self._rate:  # else it has slept from the beginning, and its first plan does so
                self._purse = PURSE_STEPS / self._rate
        self.asleep, self.hopeless, self._waking, self._target = False, False, True, 0

    def compare(self, with_rows: float, without: float) -> None:
        """Take the seconds of a plain step with hidden rows and without."""
        self.compares, self._compared = False, True
        if without < (1 - MARGIN) * with_rows:
            seconds = self.times.verifying(0) * without / with_rows
            self.times.plain = Part(seconds, 1)
            self.times.plain.recent.append(seconds)

    # What is kept for the next start.

    def follow(self, other: "DepthController") -> None:
        """Give up what a controller of fewer sequences has: hopeless for these, it is for more."""
        if other.hopeless:
            self.asleep = self.hopeless = True
            self._sleep_left = other._sleep_left

    def learnt(self) -> Learnt | None:
        """Give what the next start may begin with, if that is something yet."""
        self._learn()
        if not self.times.measured():
            return None
        return Learnt(
            self.times, self.acceptance, tuple(self._tokens - at for at in self._timed),
            self._naps, max(self._sleep_left, 0) if self.hopeless else 0, self._compared,
        )  # fmt: skip

    def recall(self, known: Learnt) -> None:
        """Begin with what another controller learnt of the same model on the same machine."""
        self.times, self.acceptance, self._naps = known.times, known.acceptance, known.naps
        self._compared = known.compared
        self.compares = self._may_compare and not known.compared
        self._rate = max(rates(self.times, self.acceptance))
        self._purse = 1 / self._rate  # enough for one try, if one is due
        self.asleep = self.hopeless = known.sleep_left > 0 and not self.compares
        self._sleep_left = min(known.sleep_left, STALE)
        self._timed = [-age for age in known.ages]
        self._left = 0

    # Learning.

    def _learn(self) -> None:
        """Learn from the steps that were only noted."""
        samples: dict[int, list[float]] = {}
        firsts, nexts, lost = [], [], 0.0
        needed = max(self._settling, int(self._trying))  # the first of a try builds a graph
        for step in self._steps:
            self._alike = self._alike + 1 if step.verified == self._verified else 0
            self._verified = step.verified
            settled = self._alike >= needed
            seconds = step.first_s + step.next_s + step.verify_s
            self._tokens += step.tokens
            self._save(seconds)
            if self._trying or self._waking or not settled:
                lost += seconds / self.times.speed - step.tokens / self._rate if self._rate else 0.0
            if settled:
                samples.setdefault(step.verified, []).append(step.verify_s)
            if step.drafted and step.waiting <= MAX_DEPTH + 1 and (settled or not self._settling):
                firsts.append(step.first_s)
            if step.drafted > 1:
                nexts.append(step.next_s / (step.drafted - 1))
            for trial in step.hindsight:
                self.judge([trial])
            self.judge(step.trials)
        self._steps.clear()
        most = PURSE_STEPS / 2 / self._rate if self._rate else 0.0  # it may have been interrupted
        self._purse -= max(0.0, min(lost, most))
        times = self.times
        for part, found in ((times.first, firsts), (times.next, nexts)):
            if found:
                times.learn(part, median_low(found), in_use=False)
        for depth, found in samples.items():
            in_use = not self._trying and depth == self.depth
            times.learn(times.verify[depth], median_low(found), in_use)
            self._timed[depth] = self._tokens

    def judge(self, trials: Sequence[Trial]) -> None:
        """Learn which drafts of one sequence were right; `trials` by position, from 1."""
        for position, (probability, accepted) in enumerate(trials, 1):
            self._heard[position] = self._tokens
            if self.weighs:
                self.acceptance.at(position).learn(probability, accepted)
            else:
                self.acceptance.at(position).count(accepted)

    def _save(self, seconds: float) -> None:
        """Fill the purse a little."""
        most = PURSE_STEPS / self._rate if self._rate else 0.0
        self._purse = min(self._purse + ALLOWANCE * seconds / self.times.speed, most)

    # Planning.

    def _plan(self) -> None:
        """Choose the best depth, and whether another one is tried first."""
        begins, self._trying, self._waking = not self._rate, False, False
        known = rates(self.times, self.acceptance)
        stays = 1 + MARGIN * (1 - 1 / self.acceptance.tokens(self.depth))
        worth = [rate * (stays if k == self.depth else 1.0) for k, rate in enumerate(known)]
        self.depth = worth.index(max(worth))
        self._rate = known[self.depth]
        if begins:
            self._purse, self.compares = PURSE_STEPS / self._rate, self._may_compare
        tried = self._worth_trying(known) if self._purse > 0 else None
        if tried is not None:
            self._target, self._trying, self.weighs = tried, True, False
            slow = self._rate * FAST_S / self.times.speed  # steps; a fast one shows little alone
            self._left = max(self._settling, 1) + max(TRIES, math.ceil(slow))
            return
        may_weigh = not self._settling and self.times.decoding() * self.times.speed > FAST_S
        self._worth = Worth(self.times, self.acceptance, self._rate)
        if not self.depth and not (may_weigh and self._worth.deeper([])):
            self._sleep()
            return
        self._naps = 0
        self._target = max(self.depth, 1)
        # A look at probabilities costs time: without, while they change nothing.
        alike = self.weighs and self._unlike <= PLAN_STEPS // 8 and self.depth > 0
        self.weighs, self._unlike = may_weigh and not alike, 0
        self._left = PLAN_STEPS if self.weighs else 4 * PLAN_STEPS

    def _worth_trying(self, known: list[float]) -> int | None:
        """Give a depth that could be the best, or whose time is old; `known` are rates."""
        ages = [self._tokens - at for at in self._heard]
        heard = next((at for at in range(1, MAX_DEPTH + 1) if ages[at] > RETRY), MAX_DEPTH + 1) - 1
        for depth in range(min(len(known), MAX_DEPTH) + 1):
            if depth == self.depth:
                continue
            age, samples = self._tokens - self._timed[depth], self.times.verify[depth].count
            if depth > self.depth and self._could_pay(depth, heard):
                wait = float(RETRY)
            elif samples:
                poor = known[depth] < self._rate * 2 / 3  # no error of its time makes it the best
                wait = STALE * min(1.0, samples / RECENT) ** 2 * (4 if poor else 1)
            else:
                continue
            if age > wait:
                return depth
        return None

    def _could_pay(self, depth: int, certain_after: int) -> bool:
        """Tell whether a depth has the best rate if drafts beyond a position are right."""
        tokens = self.acceptance.tokens(depth, certain_after)
        return tokens / self.times.step(depth) > self._rate

    def _sleep(self) -> None:
        """Let the draft layer sleep, for long if no draft could pay."""
        known = self.times.verify[1].count > 1
        could = any(self._could_pay(depth, 0) for depth in range(1, MAX_DEPTH + 1))
        self.asleep, self.hopeless = True, known and not could
        self._sleep_left = STALE if self.hopeless else RETRY
        self._target, self.weighs = 0, False
        self._naps += 1
