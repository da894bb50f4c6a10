"""How many tokens to draft in each step: decided by measured time and measured acceptance.

Takes what each step cost and what became of its drafts, gives for the next step whether to draft,
when to stop, and how many drafts to verify. A draft is worth the tokens it is expected to yield
less those that could be decoded in the time it takes, at the best rate that is known (renewal
reward: the policy that is best at the rate it reaches is the best one). What does not pay is tried
again from a small allowance of time. Knows nothing about models or contexts.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from localseek.engine.acceptance import Acceptance
from localseek.engine.costs import FIRST_TIMES, MAX_DEPTH, Costs
from localseek.engine.draft_policy import Step

ALLOWANCE = 0.012  # share of the time that may be lost to trying what is not best
PURSE_STEPS = 12.0  # plain steps that the allowance holds at the start and at most
FIRST_STEPS = 4  # plain steps before the first draft: the first few still warm up
TRIES = 2  # steps in which a depth is tried; the first often pays for a new graph
FRESH_TOKENS = 48  # what was tried within so many tokens is known
STALE_TOKENS = 1024  # a time that was measured longer ago is measured again
PLAN_STEPS = 4  # a plan is good for so many steps
DOUBT = 0.9  # of the measured times; drafts that would not pay even at these are hopeless
RESTING = 16  # answers without the draft layer after that
LONG_AGO = -(10**9)  # tokens


@dataclass(slots=True)
class Trying:
    """A depth other than the best one, tried for a few steps; `forced`: all is verified."""

    depth: int
    steps: int
    forced: bool


class DepthController:
    """Chooses the depth, 0…MAX_DEPTH, with the most tokens a second.

    Lives as long as a loaded model: what it has learnt serves the next request.
    """

    weighs = True

    def __init__(self) -> None:
        self.costs, self.acceptance = Costs(), Acceptance(MAX_DEPTH)
        self.depth = 0  # the best that is known, if drafts are of mean quality
        self._rate = 0.0  # tokens a second of the common clock at the best depth
        self._drafts = False
        self._purse = 0.0  # seconds of the common clock
        self._tokens = 0
        self._tried = [LONG_AGO] * (MAX_DEPTH + 1)  # by position: when last on trial
        self._timed = [LONG_AGO] * (MAX_DEPTH + 1)  # by depth: when last measured
        self._plan_left = 0
        self._trying: Trying | None = None
        self.hopeless = False
        self._resting = 0  # answers until it is seen whether that is still so

    def start(self) -> bool:
        """Tell whether the draft layer is wanted: not in most answers once it is hopeless."""
        if self.hopeless:
            self._resting -= 1
            if self._resting > 0:
                return False
            self.hopeless = False
            self._timed = [LONG_AGO] * (MAX_DEPTH + 1)
        return True

    def begin(self, waiting: int) -> bool:
        """Tell whether to draft; `waiting` rows must be taken in before."""
        if self.costs.verify[0].count < FIRST_STEPS:
            return False
        if self._trying is None:
            self._plan_left -= 1
            if self._plan_left < 0:
                self._plan(waiting)
        return self._trying.depth > 0 if self._trying else self._drafts

    def deeper(self, probabilities: list[float]) -> bool:
        """Tell whether to draft one more token after those with these probabilities."""
        drafted = len(probabilities)
        if self._trying:
            return drafted < self._trying.depth
        if drafted == 0 or drafted >= self.costs.measured():
            return drafted == 0
        accepted = 1.0
        for position, probability in enumerate(probabilities, 1):
            accepted *= self.acceptance.given(position, probability)
        return self._pays(drafted, accepted)

    def keep(self, probabilities: list[float]) -> int:
        """Give how many of the drafted tokens to verify."""
        if self._trying and self._trying.forced:
            return len(probabilities)
        best, most, value, accepted = 0, 0.0, 0.0, 1.0
        for position, probability in enumerate(probabilities, 1):
            accepted *= self.acceptance.given(position, probability)
            value += accepted - self._price(position)
            if value > most:
                best, most = position, value
        return best

    def learn(self, step: Step) -> None:
        """Take what the step did."""
        costs, seconds = self.costs, step.first_s + step.next_s + step.verify_s
        self._tokens += step.tokens
        costs.learn(costs.verify[step.verified], step.verify_s)
        self._timed[step.verified] = self._tokens
        if step.drafted:
            if step.waiting <= MAX_DEPTH + 1 or not costs.first.count:
                costs.learn(costs.first, step.first_s)
            else:
                more = max(step.first_s - costs.first.seconds * costs.speed, 1e-9)
                costs.learn(costs.catch_up, more / step.waiting)
        if step.drafted > 1:
            costs.learn(costs.next, step.next_s / (step.drafted - 1))
        for probability, accepted in step.hindsight:
            self.acceptance.learn(1, probability, accepted)
        for position, (probability, accepted) in enumerate(step.trials, 1):
            self.acceptance.learn(position, probability, accepted)
            self._tried[position] = self._tokens
        self._pay(seconds / costs.speed, step)

    def _pay(self, seconds: float, step: Step) -> None:
        """Fill the purse a little, or take from it what a try has cost."""
        self._purse += ALLOWANCE * seconds
        if self.costs.verify[0].count == FIRST_STEPS and not step.drafted:
            self._purse = PURSE_STEPS * self.costs.verify[0].seconds
        if self._trying:
            lost = max(seconds - step.tokens / self._rate, 0.0)
            self._purse -= min(lost, self._most_lost() / TRIES)
            self._trying.steps -= 1
            if not self._trying.steps:
                self._trying, self._plan_left = None, 0
        self._purse = min(self._purse, PURSE_STEPS * self.costs.verify[0].seconds)

    def _plan(self, waiting: int) -> None:
        """Find the best depth and its rate; see whether another should be tried."""
        self._plan_left = PLAN_STEPS - 1
        self.depth, self._rate = 0, 1 / self.costs.verifying(0)
        expected, accepted, drafting = 1.0, 1.0, 0.0
        for depth in range(1, self.costs.measured() + 1):
            accepted *= self.acceptance.mean(depth)
            expected += accepted
            drafting += self.costs.drafting(depth)
            rate = expected / (drafting + self.costs.verifying(depth))
            if rate > self._rate:
                self.depth, self._rate = depth, rate
        self._drafts = self.depth > 0 or (self.costs.measured() > 0 and self._pays(0, 1.0))
        if not self._drafts and self.costs.verify[1].count >= FIRST_TIMES:
            self.hopeless = not self._promises(0, DOUBT)
            self._resting = RESTING
        for trying, loss in self._worth_trying(waiting):
            if loss <= self._purse:
                self._trying = trying
                return

    def _worth_trying(self, waiting: int) -> Iterator[tuple[Trying, float]]:
        """Give what should be tried, with the seconds that may be lost on it."""
        costs, rate = self.costs, self._rate
        catching_up = 0 if self._drafts else waiting * costs.catch_up.seconds
        # 1. Times that were measured too seldom, or too long ago, to be trusted.
        for depth in range(costs.measured() + 1):
            if depth == self.depth or not self._is_stale(depth):
                continue
            seconds = costs.verifying(depth) + sum(map(costs.drafting, range(1, depth + 1)))
            steps = 1 if costs.verify[depth].count >= FIRST_TIMES else TRIES
            loss = steps * max(seconds - 1 / rate, 0.0) + (catching_up if depth else 0)
            if steps == TRIES:  # what is hardly known may have been interrupted
                loss = min(loss, self._most_lost())
            yield Trying(depth, steps, forced=True), loss
        # 2. One draft more than now, if it could pay and nothing was heard of it lately.
        depth = self.depth + 1
        if depth > MAX_DEPTH or self._tokens - self._tried[depth] < FRESH_TOKENS:
            return
        forced = not costs.verify[depth].count
        if forced or self._promises(self.depth):
            # Hindsight over many rows is as good as tries.
            steps = TRIES if forced or waiting <= FRESH_TOKENS // 2 else 1
            loss = costs.drafting(depth) if costs.first.count else 1 / rate
            if forced:
                loss += costs.verifying(depth) - costs.verifying(self.depth)
            yield Trying(depth, steps, forced), steps * loss + catching_up

    def _most_lost(self) -> float:
        """Give the seconds that one try may be expected to lose, however slow it looked."""
        return PURSE_STEPS / 3 * self.costs.verifying(0)

    def _is_stale(self, depth: int) -> bool:
        known = min(self.costs.verify[depth].count, FIRST_TIMES) / FIRST_TIMES
        return self._tokens - self._timed[depth] > known * known * STALE_TOKENS

    def _price(self, position: int) -> float:
        """Give the tokens that could be decoded while one at `position` more is verified."""
        return self._rate * (self.costs.verifying(position) - self.costs.verifying(position - 1))

    def _pays(self, drafted: int, accepted: float) -> bool:
        """Tell whether to draft on after `drafted` tokens, all accepted with this probability."""
        first = drafted + 1
        drafting = self._rate * self.costs.drafting(first)
        if self.acceptance.gain(first, accepted, self._price(first)) > drafting:
            return True
        value = 0.0
        for position in range(first, self.costs.measured() + 1):
            accepted *= self.acceptance.mean(position)
            price = self._price(position) + self._rate * self.costs.drafting(position)
            value += accepted - price
            if value > 0:
                return True
        return False

    def _promises(self, depth: int, doubt: float = 1.0) -> bool:
        """Tell whether going deeper than `depth` would pay if all further drafts were right.

        `doubt` is the share of the measured times that may be the true ones.
        """
        accepted, value = 1.0, 0.0
        for position in range(1, depth + 1):
            accepted *= self.acceptance.mean(position)
        for position in range(depth + 1, MAX_DEPTH + 1):
            price = self._price(position) + self._rate * self.costs.drafting(position)
            value += accepted - doubt * price
            if value > 0:
                return True
        return False
