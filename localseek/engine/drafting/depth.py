"""How many tokens to draft in each step: decided by measured time and measured acceptance.

Takes what each step cost and what became of its drafts, gives for the next step whether to draft,
when to stop, and how many drafts to verify. A draft is worth the tokens it is expected to yield
less those that could be decoded in the time it takes, at the best rate that is known (renewal
reward: the policy that is best at the rate it reaches is the best one). What does not pay is tried
again from a small allowance of time; between tries the draft layer sleeps, since feeding it has a
price, too. Knows nothing about models or contexts.
"""

from collections.abc import Iterator

from localseek.engine.drafting.acceptance import Acceptance
from localseek.engine.drafting.costs import FIRST_TIMES, Costs
from localseek.engine.drafting.draft_policy import DOZE, HINDSIGHT, Step
from localseek.engine.drafting.learnt import Learnt
from localseek.engine.drafting.trying import Trying
from localseek.engine.drafting.worth import Worth
from localseek.options import MAX_DEPTH

ALLOWANCE = 0.007  # share of the time that may be lost to trying what is not best
PURSE_STEPS = 12.0  # plain steps that the allowance holds at the start and at most
FIRST_STEPS = 4  # plain steps before the first draft: the first few still warm up
TRIES = 2  # steps in which a depth is tried; the first often pays for a new graph
FAST_TRIES = 12  # of a model whose graphs take as long to build as to compute
FRESH_TOKENS = 96  # what was tried within so many tokens is known
WELL_KNOWN = 8  # times after which a depth need not be tried for its time more often than that
STALE_TOKENS = 1024  # a time that was measured longer ago is measured again
PLAN_STEPS = 8  # a plan is good for so many steps
DOUBT = 0.9  # of the measured times; drafts that would not pay even at these are hopeless
ROW_SHARE = 0.05  # of a plain step: hidden rows that take less are as good as free
NAP = 32  # tokens after which drafts that did not pay are tried again, if the allowance lasts
LONG_SLEEP = 4096  # tokens after which hopeless drafts are
PATIENCE = 4  # naps in a row, then the layer sleeps on when an answer begins
FAST_S = 0.003  # seconds of a plain step below which thinking about drafts takes a share of it
FAST_CRUISE = 31  # steps of such a model that are then taken without thinking, if all goes well
GOOD = 0.9  # acceptance at each position that is well enough for that
THINKING_S = 1e-4  # seconds that thinking takes beside a model that fills the processor's caches
CRUISE = 11  # steps of such a model without, where thinking yields less than it takes
MISSES = 2  # rejected first drafts, beside those that are to be expected, that end it
WAKING_TRIES = 6  # after a nap, where feeding the layer is too dear to gather rows for hindsight
LONG_AGO = -(10**9)  # tokens
ASLEEP = -1  # drafts verified by a step without the draft layer
CLOSE, CLOSE_TOKENS = 0.85, 256  # of the best rate, on devices: timed again soon, it costs little
POOR, POOR_TOKENS = 0.7, 4096  # of it: no error of its time makes it the best one


class DepthController:
    """Chooses the depth, 0…MAX_DEPTH, with the most tokens a second.

    Lives as long as a loaded model: what it has learnt serves the next request.
    """

    def __init__(self, compares: bool = False, settling: int = 0) -> None:
        """Begin without knowledge.

        `compares`: hidden rows may have a price. `settling`: steps that a change of depth slows
        down; with any, all steps are of one depth, whatever the probabilities of their drafts.
        """
        self.weighs, self.compares = True, False
        self._may_compare, self._compared, self._settling = compares, False, settling
        self._verified, self._alike = 0, 0  # of the last step; how many before it verified as many
        self.costs, self.acceptance = Costs(), Acceptance(MAX_DEPTH)
        self.depth = 0  # the best that is known, if drafts are of mean quality
        self._worth = Worth()
        self._drafts = False
        self._purse = 0.0  # seconds of the common clock
        self._tokens = 0
        self._tried = [LONG_AGO] * (MAX_DEPTH + 1)  # by position: when last on trial
        self._timed = [LONG_AGO] * (MAX_DEPTH + 1)  # by depth: when last measured
        self._plan_left = 0
        self._steps: list[Step] = []  # that nothing was learnt from yet
        self._trying: Trying | None = None
        self._cruises, self._cruise_left, self._misses_left = False, 0, 0
        self.asleep, self.hopeless = False, False  # hopeless: no draft could pay, even if right
        self._sleep_left, self._naps = 0, 0  # tokens; naps in a row
        self._dozed = 0  # plain steps that nothing was learnt from yet
        self._surprise = False  # would it be if drafts did not pay, since they did?
        self._gathering = 0  # waiting rows before the first draft after a nap

    def follow(self, other: "DepthController") -> None:
        """Give up what a controller of fewer sequences has: hopeless for these, it is for more."""
        if other.hopeless:
            self.asleep = self.hopeless = True
            self._sleep_left = other._sleep_left

    def learnt(self) -> Learnt | None:
        """Give what the next start may begin with, if that is something yet."""
        self._digest()
        drafted = max(part.count for part in self.costs.verify[1:])
        if not self._worth.base or drafted < FIRST_TIMES:
            return None
        return Learnt(
            self.costs, self.acceptance, tuple(self._tokens - at for at in self._timed),
            max(self._purse, 0.0), self._compared, self._naps,
            max(self._sleep_left, 0) if self.hopeless else 0,
        )  # fmt: skip

    def recall(self, known: Learnt) -> None:
        """Begin with what another controller learnt of the same model on the same machine."""
        self.costs, self.acceptance, self._naps = known.costs, known.acceptance, known.naps
        self._compared = known.compared
        self.compares = self._may_compare = self._may_compare and not known.compared
        self.asleep = self.hopeless = known.sleep_left > 0 and not self.compares
        self._sleep_left = known.sleep_left
        self._timed = [-age for age in known.ages]
        if self._settling:  # a try that was cut short has timed changes only
            self.costs.forget_unsure()
        self._worth.look_up(self.costs)
        self._purse = min(known.purse, self._most_saved())

    def start(self) -> bool:
        """Tell whether the draft layer is wanted in the answer that begins.

        It is, so that it knows the prompt, unless it has failed again and again.
        """
        if self.asleep and not self.hopeless and self._naps < PATIENCE:
            self.asleep = self._purse < self._waking()
        self._gathering = self._plan_left = self._cruise_left = 0
        return not self.asleep

    def begin(self, waiting: int) -> bool:
        """Tell whether to draft; `waiting` rows must be taken in before."""
        self._cruises = self._cruise_left > 0
        if self._cruises:
            self.weighs = False
            self._cruise_left -= 1
            return True
        if self.costs.verify[0].count < FIRST_STEPS or waiting < self._gathering:
            return False
        if self._gathering:
            self._digest()
            steps = TRIES if self._gathering > 1 else WAKING_TRIES
            self._gathering, self._plan_left = 0, 0
            if self._worth.rate:
                self._trying = self._try(1, steps, forced=self.hopeless)
        if self._trying is None:
            self._plan_left -= 1
            if self._plan_left < 0:
                self._digest()
                self._plan(waiting)
        trying = self._trying
        blind = self._settling > 0 or (trying is not None and trying.blind)
        self.weighs = not blind or waiting > HINDSIGHT
        return trying.depth > 0 if trying else self._drafts

    def deeper(self, probabilities: list[float]) -> bool:
        """Tell whether to draft one more token after those with these probabilities."""
        drafted = len(probabilities)
        if self._trying or self._cruises or self._settling:
            return drafted < (self._trying.depth if self._trying else self.depth)
        return drafted == 0 or self._worth.deeper(probabilities, self.acceptance)

    def keep(self, probabilities: list[float]) -> int:
        """Give how many of the drafted tokens to verify."""
        if self._cruises or self._settling or (self._trying and self._trying.forced):
            return len(probabilities)
        return self._worth.keep(probabilities, self.acceptance)

    def learn(self, step: Step) -> None:
        """Take what the step did; much of it is looked at once for several steps."""
        if self._cruises:
            step.blind = True
            self._misses_left -= step.tokens == 1
            if self._misses_left < 0:
                self._cruise_left = 0
        self._steps.append(step)
        if self._trying and self._trying.blind:
            step.blind = not self.weighs
            if len(self._steps) < self._trying.steps:
                return
        if self._trying or self._settling or not self._worth.base or len(self._steps) >= PLAN_STEPS:
            self._digest()

    def _digest(self) -> None:
        """Learn from the steps that were only noted."""
        for step in self._steps:
            self._learn(step)
        self._steps.clear()

    def _learn(self, step: Step) -> None:
        self._alike = self._alike + 1 if step.verified == self._verified else 0
        self._verified = step.verified
        costs, seconds = self.costs, step.first_s + step.next_s + step.verify_s
        self._tokens += step.tokens
        if step.blind:
            for position in range(1, min(step.tokens, step.drafted) + 1):
                self.acceptance.count(position, position < step.tokens)
                self._tried[position] = self._tokens
            step.trials.clear()
        if step.blind and not self._trying:
            if not self._is_change(step):
                costs.learn(costs.verify[step.verified], step.verify_s)
                self._timed[step.verified] = self._tokens
            self._save(seconds / costs.speed)
            return
        changed, tried = self._is_change(step), self._trying is not None
        if not changed:
            costs.learn(costs.verify[step.verified], step.verify_s, tried)
            self._timed[step.verified] = self._tokens
        elif self._settling:
            more = step.verify_s - costs.verifying(step.verified) * costs.speed
            costs.learn(costs.change, max(more, 1e-9), tried=True)
        if step.drafted and not (changed and step.waiting <= MAX_DEPTH + 1):
            if step.waiting <= MAX_DEPTH + 1 or not costs.first.count:
                costs.learn(costs.first, step.first_s, tried=True)
            else:
                more = max(step.first_s - costs.first.seconds * costs.speed, 1e-9)
                costs.learn(costs.catch_up, more / step.waiting, tried=True)
        if step.drafted > 1:
            costs.learn(costs.next, step.next_s / (step.drafted - 1), tried=True)
        for probability, accepted in step.hindsight:
            self.acceptance.learn(1, probability, accepted)
        for position, (probability, accepted) in enumerate(step.trials, 1):
            self.acceptance.learn(position, probability, accepted)
            self._tried[position] = self._tokens
        self._pay(seconds / costs.speed, step)

    def _is_change(self, step: Step) -> bool:
        """Tell whether a step whose depth is known paid for a change, as only later ones don't.

        The first of a try did, for a new graph; with `settling` all that follow another depth.
        """
        trying = self._trying
        known = self.costs.verify[step.verified].count >= FIRST_TIMES
        begins = trying is not None and trying.steps > trying.timed
        return known and (begins or self._alike < self._settling)

    def slept(self, seconds: float, steps: int = 1) -> None:
        """Take plain steps; wake the draft layer when it may be tried again."""
        self._tokens += steps
        self._sleep_left -= steps
        self._dozed += steps
        self._verified = ASLEEP  # another graph: it gives no hidden rows
        if self._dozed < DOZE:
            return
        dozed, self._dozed = self._dozed, 0
        costs = self.costs
        # Unless hidden rows were found to be dear, it is a step like those with them.
        costs.learn(costs.plain if costs.plain.count else costs.verify[0], seconds)
        self._save(dozed * seconds / costs.speed)
        if self._sleep_left > 0:
            return
        if not self.hopeless and self._purse < self._waking():
            self._sleep_left = NAP // 2
        else:
            self.asleep, self._gathering = False, self._gathered()
            if self.hopeless:
                self._timed = [LONG_AGO] * (MAX_DEPTH + 1)

    def compare(self, with_rows: float, without: float) -> None:
        """Take the seconds of a plain step with hidden rows and without."""
        self.compares, self._may_compare, self._compared = False, False, True
        if without < (1 - ROW_SHARE) * with_rows:
            self.costs.plain.set(self.costs.verifying(0) * without / with_rows)

    def _waking(self) -> float:
        """Give the seconds that are lost on waking the layer for a try that comes to nothing."""
        costs, rows = self.costs, self._gathered()
        fed = self._worth.verifying[0] - self._worth.base
        if rows > 1:
            drafting = self._worth.drafting[1] + rows * costs.catch_up.seconds
        else:
            rows, drafting = rows + WAKING_TRIES, WAKING_TRIES * self._worth.drafting[1]
        return min(rows * fed + drafting + 3 * self._change(), self._most_saved())

    def _change(self) -> float:
        """Give the seconds that a change of the graph costs."""
        return self._settling * self.costs.change.seconds

    def _gathered(self) -> int:
        """Give how many rows are gathered after a nap before the first draft.

        Where they are all but free, as many as can be judged in hindsight; but none when it may
        have been a disturbance that ended the drafts.
        """
        dear = self._worth.verifying[0] > (1 + ROW_SHARE) * self._worth.base
        return 1 if dear or self._naps == 1 else HINDSIGHT + 1

    def _save(self, seconds: float) -> None:
        """Fill the purse a little."""
        self._purse = min(self._purse + ALLOWANCE * seconds, self._most_saved())

    def _most_saved(self) -> float:
        return PURSE_STEPS * self._worth.base

    def _pay(self, seconds: float, step: Step) -> None:
        """Fill the purse a little, or take from it what a try has cost."""
        if not self._worth.base and self.costs.verify[0].count >= FIRST_STEPS:
            self._worth.base = self.costs.decoding()
            self._purse, self.compares = self._most_saved(), self._may_compare
        lost = max(seconds - step.tokens / self._worth.rate, 0.0) if self._worth.rate else 0.0
        if self._trying:
            caught_up = step.waiting > MAX_DEPTH + 1  # that was expected to cost much
            self._purse -= min(lost, self._most_lost() / (1 if caught_up else TRIES))
            self._trying.steps -= 1
            if not self._trying.steps:
                self._trying, self._plan_left = None, 0
        elif self._alike < self._settling:  # back from a try
            self._purse -= min(lost, self._most_lost())
        elif not self._drafts:
            self._purse -= self._worth.verifying[0] - self._worth.base
        self._save(seconds)

    def _plan(self, waiting: int) -> None:
        """Find the best depth and its rate; see whether another should be tried."""
        self._plan_left = PLAN_STEPS - 1
        worth, acceptance = self._worth, self.acceptance
        worth.look_up(self.costs)
        self.depth, reached = worth.best(self.depth, acceptance)
        worth.price(reached, acceptance)
        mixed = worth.measured > 0 and not self._settling
        self._drafts = self.depth > 0 or (mixed and worth.pays(0, 1.0, acceptance))
        for trying, loss in self._worth_trying(waiting):
            if loss <= self._purse:
                self._trying = trying
                return
        if self._drafts:
            self._naps, self.hopeless, self._surprise = 0, False, True
            self._cruise(CRUISE if not self._is_fast() else FAST_CRUISE)
        elif self._surprise:
            self._surprise = False  # it may be a disturbance: plan once more
        else:
            known = self.costs.verify[1].count >= FIRST_TIMES
            self.hopeless = known and not self._worth.promises(0, self.acceptance, DOUBT)
            self._sleep_left = LONG_SLEEP if self.hopeless else NAP
            self.asleep = True
            self._purse -= self._change()
            self._naps += 1

    def _cruise(self, steps: int) -> None:
        """Take the next steps at the best depth without thinking, if that is worth it."""
        if not self.depth:
            return
        first = self.acceptance.mean(1)
        if self._is_fast():
            at = range(1, self.depth + 1)
            good = min(self.acceptance.mean(position) for position in at) >= GOOD
        else:
            thinking = self._worth.rate * THINKING_S / self.costs.speed  # in tokens
            chosen = self._worth.choosing(self.depth, self.acceptance)
            good = not self._settling and chosen < thinking
        if good:
            self._cruise_left, self._plan_left = steps, 0
            self._misses_left = MISSES - 1 + round(2 * steps * (1 - first))

    def _worth_trying(self, waiting: int) -> Iterator[tuple[Trying, float]]:
        """Give what should be tried, with the seconds that may be lost on it."""
        costs, rate = self.costs, self._worth.rate
        catching_up = 0 if self._drafts else waiting * costs.catch_up.seconds
        # 1. Times that were measured too seldom, or too long ago, to be trusted.
        for depth in range(self._worth.measured + 1):
            if depth == self.depth or not self._is_stale(depth):
                continue
            seconds = self._worth.verifying[depth] + sum(self._worth.drafting[: depth + 1])
            trying = self._try(depth, TRIES, forced=True)
            loss = trying.steps * max(seconds - 1 / rate, 0.0) + (catching_up if depth else 0)
            loss += 2 * self._change()  # there and back
            if costs.verify[depth].count < FIRST_TIMES:  # it may have been interrupted
                loss = min(loss, self._most_lost())
            yield trying, min(loss, self._most_saved())  # a full purse is for what looks dear, too
        # 2. One draft more than now, if it could pay and nothing was heard of it lately.
        depth = self.depth + 1
        if depth > MAX_DEPTH or self._tokens - self._tried[depth] < FRESH_TOKENS:
            return
        forced = not costs.verify[depth].count
        if forced or self._worth.promises(self.depth, self.acceptance):
            # Hindsight over many rows is as good as tries.
            steps = TRIES if forced or waiting <= FRESH_TOKENS // 4 else 1
            trying = self._try(depth, steps, forced)
            loss = self._worth.drafting[depth] if costs.first.count else 1 / rate
            if forced:
                loss += self._worth.verifying[depth] - self._worth.verifying[self.depth]
            yield trying, trying.steps * loss + catching_up + 2 * self._change()

    def _try(self, depth: int, steps: int, forced: bool) -> Trying:
        """Plan so many steps, or as many as a fast model needs to show its times."""
        if self._is_fast():
            return Trying(depth, FAST_TRIES, True, FAST_TRIES // 2, blind=True)
        return Trying(depth, steps + self._settling, forced, timed=max(steps - 1, 1))

    def _is_fast(self) -> bool:
        return self._worth.base * self.costs.speed < FAST_S

    def _most_lost(self) -> float:
        """Give the seconds that one try may be expected to lose, however slow it looked."""
        return self._most_saved() / 3

    def _is_stale(self, depth: int) -> bool:
        known = min(self.costs.verify[depth].trust, WELL_KNOWN) / WELL_KNOWN
        share, lasts = self._worth.rates[depth] / self._worth.rate, STALE_TOKENS
        if share < POOR:
            lasts = POOR_TOKENS
        elif share > CLOSE and self._settling:
            lasts = CLOSE_TOKENS
        return self._tokens - self._timed[depth] > known * known * lasts
