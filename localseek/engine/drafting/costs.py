"""What the parts of a decoding step cost on this machine, learnt from their measured times.

Takes seconds, gives estimates that can be compared with each other. A machine that becomes slower
or faster as a whole (another program, a warmer chip, a longer context) moves one common factor;
only what is left over moves the estimate of a part. Knows nothing about tokens or drafts' worth.
"""

import math
from collections import deque
from dataclasses import dataclass, field

from localseek.options import MAX_DEPTH

STEEPEST = 0.4  # the most that a deviation (as a logarithm) counts: the step was interrupted
COMMON_SHARE = 0.2  # of a deviation is at once taken for the whole machine's
OWN_SHARE = 0.02  # of it, for the part's own, once the part is well known
GROWN = 16  # times after which a part is known well enough to tell the machine's speed by it
FIRST_TIMES = 4  # of the first so many measured times the shortest counts
RECENT = 7  # times whose median counts while a part is young or on trial
FAR = 0.2  # a deviation on trial that shows that the part is not as it was
TRUST_LEFT = 2  # times that such a part counts as measured


@dataclass(slots=True)
class Part:
    """One part's estimate in seconds of the common clock, and how often it was measured.

    `trust` counts the times since the estimate was last found to be far off.
    """

    seconds: float = 0.0
    count: int = 0
    trust: int = 0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))

    def set(self, seconds: float) -> None:
        """Take an estimate as if it had been measured often enough to be used."""
        self.seconds, self.count, self.trust = seconds, FIRST_TIMES, FIRST_TIMES
        self.recent.clear()
        self.recent.extend([seconds] * FIRST_TIMES)


class Costs:
    """Times of a step's parts: `verify[k]` checks k drafted tokens (k + 1 rows, sampling and
    bookkeeping included), `first` drafts one token, `next` one more, `catch_up` takes one waiting
    token into the draft cache, `plain` decodes one token and gives no hidden row, `change` is what
    each of the first steps adds that verify another number than before.
    """

    def __init__(self) -> None:
        self.speed = 1.0  # seconds that now pass for a second of the estimates
        self.verify = [Part() for _ in range(MAX_DEPTH + 1)]
        self.first, self.next, self.catch_up, self.plain = Part(), Part(), Part(), Part()
        self.change = Part()

    def learn(self, part: Part, seconds: float, tried: bool = False) -> None:
        """Take one measured time of a part.

        `tried`: of one that is seldom measured, or small; then the machine's speed is not doubted.
        """
        seen = max(seconds, 1e-9) / self.speed
        part.recent.append(seen)
        part.count += 1
        part.trust += 1
        if part.count <= FIRST_TIMES:
            part.seconds = min(part.recent)
            return
        deviation = max(-STEEPEST, min(STEEPEST, math.log(seen / part.seconds)))
        if tried or part.count <= GROWN:
            if abs(deviation) > FAR:
                part.trust = min(part.trust, TRUST_LEFT)
            part.seconds = sorted(part.recent)[(len(part.recent) - 1) // 2]
        else:
            part.seconds *= math.exp(OWN_SHARE * deviation)
            self.speed *= math.exp(COMMON_SHARE * deviation)

    def forget_unsure(self) -> None:
        """Forget the times of depths that were measured too seldom to be sure of."""
        self.verify = [part if part.count >= FIRST_TIMES else Part() for part in self.verify]

    def measured(self) -> int:
        """Give the greatest depth up to which verifying was measured."""
        depth = 0
        while depth < MAX_DEPTH and self.verify[depth + 1].count:
            depth += 1
        return depth

    def verifying(self, depth: int) -> float:
        """Give the seconds of a step that verifies `depth` drafted tokens.

        Fewer never cost more: an estimate above that of a greater depth is an interrupted one.
        Where nothing was measured, a token adds what the last measured one added, and hidden rows
        cost nothing.
        """
        if not self.verify[0].count:
            return self.plain.seconds
        known = self.measured()
        if depth <= known:
            return min(part.seconds for part in self.verify[depth:] if part.count)
        added = self.verifying(known) - self.verifying(known - 1) if known else 0.0
        return self.verifying(known) + (depth - known) * added

    def decoding(self) -> float:
        """Give the seconds of a plain step for which the draft layer is not even fed."""
        with_rows = self.verifying(0)
        return min(with_rows, self.plain.seconds) if self.plain.count else with_rows

    def drafting(self, position: int) -> float:
        """Give the seconds that drafting the token at `position` (from 1) takes."""
        if position == 1:
            return self.first.seconds
        return self.next.seconds if self.next.count else self.first.seconds
