"""What was drafted and accepted in one answer, counted by position.

Takes each step's counts, gives the statistics that users see.
"""

from localseek.events import DraftStats


class DraftCounter:
    """Counts what was drafted and accepted, by position."""

    def __init__(self) -> None:
        self.steps = 0
        self.tokens = 0
        self.drafted: list[int] = []
        self.accepted: list[int] = []

    def count(self, drafted: int, accepted: int) -> None:
        """Take one verification step: how many tokens were drafted, how many of them accepted."""
        self.steps += 1
        self.tokens += accepted + 1
        while len(self.drafted) < drafted:
            self.drafted.append(0)
            self.accepted.append(0)
        for position in range(drafted):
            self.drafted[position] += 1
            self.accepted[position] += position < accepted

    def stats(self) -> DraftStats | None:
        """Give the statistics, or None when nothing was drafted."""
        if not self.steps:
            return None
        pairs = zip(self.accepted, self.drafted, strict=True)
        return DraftStats(
            steps=self.steps,
            drafted=sum(self.drafted),
            accepted=sum(self.accepted),
            accepted_by_position=[round(a / d, 4) for a, d in pairs],
            mean_depth=round(sum(self.drafted) / self.steps, 3),
            tokens_per_step=round(self.tokens / self.steps, 3),
        )
