"""What drafting and verifying one token more is worth, at the rate and the times of a plan.

Takes the times and the rate, gives answers in tokens: what a draft is expected to yield less what
could be decoded in the time it takes. What is asked in every step is looked up, not computed, as
the model leaves nothing of this in the processor's caches. Knows nothing about when to plan or try.
"""

from localseek.engine.drafting.acceptance import Acceptance
from localseek.engine.drafting.costs import Costs
from localseek.options import MAX_DEPTH

HALVINGS = 6  # of the acceptances from 0 to 1 among which the least that pays is looked for
NEVER = 2.0  # an acceptance that is not reached
TOLERANCE = 0.08  # of what drafts take that their yield may seem to fall short before they end
CHANGE = 0.02  # of the rate that another depth must gain: each change builds a new graph


class Worth:
    """Times in seconds of the common clock by depth or position; `rate` in tokens a second."""

    def __init__(self) -> None:
        self.rate, self.base, self.measured = 0.0, 0.0, 0  # `base`: of a plain step
        self.verifying = [0.0] * (MAX_DEPTH + 1)
        self.drafting = [0.0] * (MAX_DEPTH + 1)
        self.rates = [0.0] * (MAX_DEPTH + 1)  # tokens a second, by depth
        self._prices = [0.0] * (MAX_DEPTH + 1)  # of verifying one more, in tokens
        self._feeding = 0.0  # of a hidden row, in tokens
        self._least = [NEVER] * (MAX_DEPTH + 1)  # by drafted tokens: see `deeper`

    def look_up(self, costs: Costs) -> None:
        """Note the times as they are now."""
        self.measured, self.base = costs.measured(), costs.decoding()
        self.verifying = [costs.verifying(depth) for depth in range(MAX_DEPTH + 1)]
        self.drafting = [0.0, *(costs.drafting(at) for at in range(1, MAX_DEPTH + 1))]

    def best(self, before: int, acceptance: Acceptance) -> tuple[int, float]:
        """Find the best depth if drafts are of mean quality, with its rate; `before` is the last.

        Drafts that are being made end only once they surely take more than they yield.
        """
        share, base = 1 - TOLERANCE if before else 1.0, self.base
        chosen, reached = 0, 1 / base
        self.rates[0] = 1 / self.verifying[0]
        expected, accepted, seconds, best = 1.0, 1.0, 0.0, 0.0
        for depth in range(1, self.measured + 1):
            accepted *= acceptance.mean(depth)
            expected += accepted
            seconds += self.drafting[depth]
            taken = seconds + self.verifying[depth]
            pays = (expected - 1) * base > share * (taken - base)
            self.rates[depth] = expected / taken
            rate = self.rates[depth] * (1 + CHANGE * (depth == before))
            if pays and rate > best:
                chosen, reached, best = depth, self.rates[depth], rate
        return chosen, reached

    def price(self, rate: float, acceptance: Acceptance) -> None:
        """Take the rate that is reached otherwise."""
        self.rate, verifying = rate, self.verifying
        for depth in range(1, MAX_DEPTH + 1):
            self._prices[depth] = rate * (verifying[depth] - verifying[depth - 1])
        self._feeding = rate * (verifying[0] - self.base)
        for drafted in range(1, self.measured):
            self._least[drafted] = self._least_that_pays(drafted, acceptance)
        for drafted in range(max(self.measured, 1), MAX_DEPTH + 1):
            self._least[drafted] = NEVER

    def _least_that_pays(self, drafted: int, acceptance: Acceptance) -> float:
        low, high = 0.0, 1.0
        if not self.pays(drafted, high, acceptance):
            return NEVER
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            if self.pays(drafted, middle, acceptance):
                high = middle
            else:
                low = middle
        return high

    def deeper(self, probabilities: list[float], acceptance: Acceptance) -> bool:
        """Tell whether to draft on after drafts with these probabilities."""
        accepted, least = 1.0, self._least[len(probabilities)]
        if least > 1.0:
            return False
        for position, probability in enumerate(probabilities, 1):
            accepted *= acceptance.given(position, probability)
        return accepted >= least

    def keep(self, probabilities: list[float], acceptance: Acceptance) -> int:
        """Give how many of the drafted tokens to verify."""
        best, most, value, accepted = 0, 0.0, 0.0, 1.0
        for position, probability in enumerate(probabilities, 1):
            accepted *= acceptance.given(position, probability)
            value += accepted - self._prices[position]
            if value > most:
                best, most = position, value
        return best

    def choosing(self, depth: int, acceptance: Acceptance) -> float:
        """Give the tokens a step that it yields to look at probabilities.

        Over always drafting `depth` tokens, at least one, and verifying all of them.
        """
        value, before = 0.0, 1.0
        for position in range(1, depth + 1):
            value += acceptance.loss(position, before, self._prices[position])
            before *= acceptance.mean(position)
        if depth < self.measured:
            more = self._prices[depth + 1] + self.rate * self.drafting[depth + 1]
            surely = before / max(acceptance.mean(depth), 1e-9) * acceptance.mean(depth + 1)
            value += acceptance.gain(depth, surely, more)
        return value

    def pays(self, drafted: int, accepted: float, acceptance: Acceptance) -> bool:
        """Tell whether to draft on after `drafted` tokens, all accepted with this probability."""
        first = drafted + 1
        value = 0.0 if drafted else -self._feeding
        drafting = self.rate * self.drafting[first]
        if value + acceptance.gain(first, accepted, self._prices[first]) > drafting:
            return True
        for position in range(first, self.measured + 1):
            accepted *= acceptance.mean(position)
            price = self._prices[position] + self.rate * self.drafting[position]
            value += accepted - price
            if value > 0:
                return True
        return False

    def promises(self, depth: int, acceptance: Acceptance, doubt: float = 1.0) -> bool:
        """Tell whether going deeper than `depth` would pay if all further drafts were right.

        `doubt` is the share of the measured times that may be the true ones.
        """
        accepted, value = 1.0, 0.0 if depth else -doubt * self._feeding
        for position in range(1, depth + 1):
            accepted *= acceptance.mean(position)
        for position in range(depth + 1, MAX_DEPTH + 1):
            price = self._prices[position] + self.rate * self.drafting[position]
            value += accepted - doubt * price
            if value > 0:
                return True
        return False
