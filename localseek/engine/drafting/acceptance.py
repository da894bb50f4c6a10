"""How often drafts are right: by position in the draft and by how sure the draft layer was.

Takes trials (position, the draft's probability, right or not) of drafts all of whose predecessors
were right. Forgets exponentially, so that the present text counts. With times it gives rates.
"""

import itertools
from bisect import bisect_right

from localseek.engine.drafting.times import Times

EDGES = (0.3, 0.5, 0.7, 0.85, 0.95)  # of the bins of the draft layer's own probability
MEMORY = 16.0  # trials that count; a text turns within a few sentences
UNKNOWN, GUESSES = 0.8, 2.0  # acceptance before any trial (V3: 0.85), and what it weighs in trials


# What a bin is taken for before it has trials.
MIDDLES = [(low + high) / 2 for low, high in itertools.pairwise((0.0, *EDGES, 1.0))]


class Position:
    """Trials of one position in a draft."""

    __slots__ = ("accepted", "bin_accepted", "bin_trials", "guesses", "shares", "trials")

    def __init__(self) -> None:
        self.trials, self.accepted, self.guesses = 0.0, 0.0, GUESSES
        self.shares = [1 / len(MIDDLES)] * len(MIDDLES)  # how often each bin comes
        self.bin_trials = [GUESSES] * len(MIDDLES)
        self.bin_accepted = [GUESSES * middle for middle in MIDDLES]

    def count(self, accepted: bool) -> None:
        """Take one trial whose probability is not known; older ones lose weight."""
        keep = 1 - 1 / MEMORY
        self.trials = self.trials * keep + 1
        self.accepted = self.accepted * keep + accepted
        self.guesses *= keep

    def learn(self, probability: float, accepted: bool) -> None:
        """Take one trial."""
        self.count(accepted)
        chosen = bisect_right(EDGES, probability)
        pace = 1 / self.trials
        self.shares = [share * (1 - pace) for share in self.shares]
        self.shares[chosen] += pace
        keep = 1 - 1 / (2 * MEMORY)  # it changes less with the text than how often it comes
        self.bin_trials[chosen] = self.bin_trials[chosen] * keep + 1
        self.bin_accepted[chosen] = self.bin_accepted[chosen] * keep + accepted

    def bins(self) -> list[tuple[float, float]]:
        """Give (acceptance, share) of each bin, the best first."""
        columns = zip(self.bin_accepted, self.bin_trials, self.shares, strict=True)
        return sorted(((right / trials, share) for right, trials, share in columns), reverse=True)


class Acceptance:
    """Acceptance at each position of a draft, counted from 1, if all before were right."""

    def __init__(self, positions: int) -> None:
        self.positions = [Position() for _ in range(positions)]

    def at(self, position: int) -> Position:
        """Give the trials of a position."""
        return self.positions[position - 1]

    def mean(self, position: int) -> float:
        """Give the acceptance at a position; of an unknown one, that of the one before."""
        expected = UNKNOWN
        for at in self.positions[:position]:
            expected = (at.accepted + at.guesses * expected) / (at.trials + at.guesses)
        return expected

    def given(self, position: int, probability: float) -> float:
        """Give the acceptance of a draft that was made with this probability."""
        at, chosen = self.positions[position - 1], bisect_right(EDGES, probability)
        return at.bin_accepted[chosen] / at.bin_trials[chosen]

    def tokens(self, depth: int, certain_after: int | None = None) -> float:
        """Give the tokens of a step that verifies `depth` drafts, E[depth] = 1 + a1 + a1 a2 + ….

        Those at positions beyond `certain_after` are taken to be right.
        """
        expected = chain = 1.0
        for position in range(1, depth + 1):
            if certain_after is None or position <= certain_after:
                chain *= self.mean(position)
            expected += chain
        return expected


def rates(times: Times, acceptance: Acceptance) -> list[float]:
    """Give the tokens a second of the common clock by depth, up to the greatest one measured."""
    drafting = (
        acceptance.tokens(depth) / times.step(depth) for depth in range(1, times.measured() + 1)
    )
    return [1 / times.decoding(), *drafting]
