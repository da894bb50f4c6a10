"""A policy whose draft layer sleeps and wakes by the clock of steps."""

from localseek.engine.drafting.draft_policy import DOZE, FixedDepth, Step


class Alternating(FixedDepth):
    """Drafts so many steps, sleeps so many, and so on; compares once in each answer."""

    def __init__(self, depth: int, drafting: int, sleeping: int) -> None:
        super().__init__(depth)
        self._drafting, self._sleeping = drafting, sleeping
        self._left = drafting
        self.naps, self.compared, self.accepted_after = 0, 0, 0

    def start(self) -> bool:
        self.asleep, self.compares, self._left = False, True, self._drafting
        return True

    def compare(self, with_rows: float, without: float) -> None:
        assert with_rows > 0 and without > 0
        self.compares, self.compared = False, self.compared + 1

    def begin(self, waiting: int) -> bool:
        return waiting > 0  # the first step after a nap gives the first row

    def learn(self, step: Step) -> None:
        self._left -= 1
        if self.naps:
            self.accepted_after += step.tokens - 1
        if not self._left:
            self.asleep, self._left, self.naps = True, self._sleeping, self.naps + 1

    def slept(self, seconds: float, steps: int = 1) -> None:
        assert seconds > 0 and 1 <= steps <= DOZE
        self._left -= steps
        if self._left <= 0:
            self.asleep, self._left = False, self._drafting
