"""How often drafts are accepted: by position in the draft and by how sure the draft layer was.

Takes trials (position, the draft's probability, accepted or not), gives probabilities of
acceptance. Forgets exponentially, so that the present text counts. Knows nothing about time.
"""

from bisect import bisect_right
from collections.abc import Callable

EDGES = (0.3, 0.5, 0.7, 0.85, 0.95)  # bins of the draft layer's own probability
MIDDLES = (0.15, 0.4, 0.6, 0.78, 0.9, 0.98)
MEMORY = 16.0  # trials that count; half of the weight is on the last 11
BIN_MEMORY = 32.0  # a bin's acceptance changes less with the text than how often it comes
GUESS_WEIGHT = 2.0  # trials that a first guess is worth; it is forgotten like them
SMALLEST = 1e-9  # unit of shares; then they are counted in a new one
UNKNOWN = 0.8  # acceptance of first drafts of which nothing is known; V3 reaches 0.85


class Position:
    """Trials of one position in a draft."""

    __slots__ = ("accepted", "bin_accepted", "bin_trials", "guess", "parts", "trials", "unit")

    def __init__(self) -> None:
        bins = len(MIDDLES)
        self.trials, self.accepted = 0.0, 0.0
        self.guess = GUESS_WEIGHT  # what an expectation still weighs
        self.parts, self.unit = [1.0] * bins, 1 / bins  # how often each bin comes, in units
        self.bin_trials = [GUESS_WEIGHT] * bins
        self.bin_accepted = [GUESS_WEIGHT * middle for middle in MIDDLES]

    def learn(self, probability: float, accepted: bool) -> None:
        """Take one trial; older ones lose weight."""
        self.count(accepted)
        chosen = bisect_right(EDGES, probability)
        pace = 1 / min(self.trials, MEMORY)
        if pace == 1 or self.unit < SMALLEST:
            self.parts, self.unit = [part * self.unit * (pace < 1) for part in self.parts], 1.0
        else:  # all shrink alike
            self.unit *= 1 - pace
        self.parts[chosen] += pace / self.unit
        keep = 1 - 1 / BIN_MEMORY
        self.bin_trials[chosen] = self.bin_trials[chosen] * keep + 1
        self.bin_accepted[chosen] = self.bin_accepted[chosen] * keep + accepted

    def count(self, accepted: bool) -> None:
        """Take one trial whose probability is not known."""
        keep = 1 - 1 / MEMORY
        self.trials = self.trials * keep + 1
        self.accepted = self.accepted * keep + accepted
        self.guess *= keep

    def given(self, index: int) -> float:
        """Give the acceptance of drafts whose probability lies in a bin."""
        return self.bin_accepted[index] / self.bin_trials[index]


class Acceptance:
    """Acceptance at each position of a draft, counted from 1, if all before were accepted."""

    def __init__(self, positions: int) -> None:
        self.positions = [Position() for _ in range(positions)]

    def learn(self, position: int, probability: float, accepted: bool) -> None:
        """Take one trial at a position all of whose predecessors were accepted."""
        self.positions[position - 1].learn(probability, accepted)

    def count(self, position: int, accepted: bool) -> None:
        """Take such a trial of a draft whose probability is not known."""
        self.positions[position - 1].count(accepted)

    def mean(self, position: int) -> float:
        """Give the acceptance at a position; of an unknown one, that of the one before."""
        expected = UNKNOWN
        for at in self.positions[:position]:
            expected = (at.accepted + at.guess * expected) / (at.trials + at.guess)
        return expected

    def given(self, position: int, probability: float) -> float:
        """Give the acceptance of a draft that was made with this probability."""
        return self.positions[position - 1].given(bisect_right(EDGES, probability))

    def gain(self, position: int, before: float, price: float) -> float:
        """Give the tokens that a draft at `position` is worth if only good ones are verified.

        `before` is the probability that all drafts before it are accepted, `price` the tokens
        that could be decoded in the time that verifying it takes.
        """
        return self._over_bins(position, lambda given: before * given - price)

    def loss(self, position: int, before: float, price: float) -> float:
        """Give the tokens that are lost if drafts at `position` are verified, good or not."""
        return self._over_bins(position, lambda given: price - before * given)

    def _over_bins(self, position: int, value: Callable[[float], float]) -> float:
        """Give the mean over bins of what their acceptance is worth where that is something."""
        at = self.positions[position - 1]
        return at.unit * sum(
            part * max(0.0, value(at.given(index)))
            for index, part in enumerate(at.parts)
            if part > 0.0
        )
