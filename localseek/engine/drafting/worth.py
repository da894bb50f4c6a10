"""Whether one draft more pays, and how many to verify, by the probabilities of those made.

Everything is counted in tokens: a draft yields as many as it is probably right, and costs those
that could be decoded at the best rate in the time that it takes. What is asked in every step is
looked up, as a model leaves nothing of Python in the processor's caches.
"""

from collections.abc import Sequence

from localseek.engine.drafting.acceptance import Acceptance
from localseek.engine.drafting.times import Times
from localseek.options import MAX_DEPTH

NEVER = 2.0  # a probability that is not reached


class Worth:
    """What drafts are worth at a rate in tokens a second, with the times and acceptance of now."""

    def __init__(self, times: Times, acceptance: Acceptance, rate: float) -> None:
        self._acceptance = acceptance
        measured = times.measured()
        verifying = [0.0] * (MAX_DEPTH + 1)
        if times.verify[0].count:
            verifying = [times.decoding(), *map(times.verifying, range(1, MAX_DEPTH + 1))]
        self._making = [rate * times.drafting(at) for at in range(MAX_DEPTH + 1)]
        self._verifying = [0.0, *(
            rate * (verifying[at] - verifying[at - 1]) for at in range(1, MAX_DEPTH + 1)
        )]  # fmt: skip
        self._least = [self._least_that_pays(at, measured) for at in range(1, MAX_DEPTH + 1)]

    def deeper(self, probabilities: Sequence[float]) -> bool:
        """Tell whether to draft one more token after those with these probabilities."""
        drafted, chance = len(probabilities), 1.0
        if drafted >= MAX_DEPTH or self._least[drafted] > 1.0:
            return False
        for position, probability in enumerate(probabilities, 1):
            chance *= self._acceptance.given(position, probability)
        return chance >= self._least[drafted]

    def keep(self, probabilities: Sequence[float]) -> int:
        """Give how many of the drafted tokens to verify."""
        best, most, value, chance = 0, 0.0, 0.0, 1.0
        for position, probability in enumerate(probabilities, 1):
            chance *= self._acceptance.given(position, probability)
            value += chance - self._verifying[position]
            if value > most:
                best, most = position, value
        return best

    def _least_that_pays(self, position: int, measured: int) -> float:
        """Give the least probability that all before are right with which a draft there pays.

        Either alone, if it is verified only when it is good enough: of the bins of probability the
        best ones, as many as make it cheapest. Or together with those that follow it.
        """
        least = NEVER
        if position > measured:
            return least
        share = right = 0.0
        for accepted, part in self._acceptance.at(position).bins():
            share, right = share + part, right + part * accepted
            if right > 0:
                cost = self._making[position] + share * self._verifying[position]
                least = min(least, cost / right)
        cost, gain, chain = 0.0, 0.0, 1.0
        for at in range(position, measured + 1):
            cost += self._making[at] + self._verifying[at]
            chain *= self._acceptance.mean(at)
            gain += chain
            if gain > 0:
                least = min(least, cost / gain)
        return least
