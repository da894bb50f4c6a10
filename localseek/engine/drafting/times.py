"""What the parts of a decoding step take on this machine, learnt from measured times.

A machine that becomes slower or faster as a whole (another program, a warmer chip, a longer
context) moves one common factor; only what is left over moves the estimate of a part. So times that
were measured long ago can be compared with those of now. Knows nothing about tokens.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from statistics import median_low

from localseek.options import MAX_DEPTH

RECENT = 5  # samples whose median is the estimate of a part that is young or only tried
FAR = 0.2  # a deviation (as a logarithm) that shows that such a part is not as it was
COMMON = 0.3  # of a deviation is at once taken for the whole machine's
OWN = 0.03  # of it, for the part's own: a tenth, so that the common factor moves first


@dataclass(slots=True)
class Part:
    """One part's estimate in seconds of the common clock, and how many samples it has."""

    seconds: float = 0.0
    count: int = 0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))


class Times:
    """Seconds of a step's parts.

    `verify[k]` decodes k drafted tokens and one more, sampling and bookkeeping included; `first`
    drafts one token, `next` one more; `plain` decodes one token and gives no hidden row, where that
    was found to be cheaper than `verify[0]`.
    """

    def __init__(self) -> None:
        self.speed = 1.0  # seconds that now pass for a second of the estimates
        self.verify = [Part() for _ in range(MAX_DEPTH + 1)]
        self.first, self.next, self.plain = Part(), Part(), Part()

    def learn(self, part: Part, seconds: float, in_use: bool) -> None:
        """Take a sample; only that of a part that is `in_use` tells the speed of the machine.

        One that is far off replaces what was known of a part that is not.
        """
        seen = max(seconds, 1e-9) / self.speed
        deviation = math.log(seen / part.seconds) if part.count else 0.0
        if in_use and part.count >= RECENT:
            part.seconds *= math.exp(OWN * deviation)
            self.speed *= math.exp(COMMON * deviation)
            return
        if not in_use and abs(deviation) > FAR:
            part.count = 0
            part.recent.clear()
        part.count += 1
        part.recent.append(seen)
        part.seconds = median_low(part.recent)

    def measured(self) -> int:
        """Give the greatest depth up to which verifying was measured."""
        depth = 0
        while depth < MAX_DEPTH and self.verify[depth + 1].count:
            depth += 1
        return depth

    def verifying(self, depth: int) -> float:
        """Give the seconds of a step that verifies `depth` drafted tokens.

        Fewer never take longer: an estimate above that of a greater depth was interrupted. Where
        nothing was measured, a token adds what the last measured one added.
        """
        known = self.measured()
        if depth <= known:
            return min(part.seconds for part in self.verify[depth:] if part.count)
        last = self.verifying(known)
        return last + (depth - known) * (last - self.verifying(known - 1) if known else 0.0)

    def decoding(self) -> float:
        """Give the seconds of a plain step while the draft layer sleeps."""
        with_rows = self.verifying(0)
        return min(with_rows, self.plain.seconds) if self.plain.count else with_rows

    def drafting(self, position: int) -> float:
        """Give the seconds that drafting the token at `position` (from 1) takes."""
        return self.next.seconds if position > 1 and self.next.count else self.first.seconds

    def step(self, depth: int) -> float:
        """Give the seconds of a step that drafts and verifies `depth` tokens, T[depth]."""
        drafting = sum(self.drafting(position) for position in range(1, depth + 1))
        return self.verifying(depth) + drafting
