"""What the decoder asks a drafting policy in each step, and what it tells it afterwards.

`FixedDepth` is the policy of a user who set a depth; `depth.DepthController` decides by itself.
Knows nothing about models.
"""

from dataclasses import dataclass, field
from typing import Protocol

Trial = tuple[float, bool]  # the draft's probability, and whether it was accepted
DOZE = 4  # plain steps of which a policy that sleeps is told at once, at most
SURE = 1.0  # a draft's probability; a step has no second one that would not pay after such a first
HINDSIGHT = 16  # waiting tokens of which it is seen whether they would have been drafted


@dataclass(slots=True)
class Step:
    """What one decoding step did; times in seconds."""

    waiting: int = 0  # rows that the draft layer had to take in first
    drafted: int = 0
    verified: int = 0
    tokens: int = 1
    first_s: float = 0.0
    next_s: float = 0.0  # all drafts after the first together
    verify_s: float = 0.0
    trials: list[Trial] = field(default_factory=list)  # by position, from 1
    hindsight: list[Trial] = field(default_factory=list)  # of first drafts not made


class DepthPolicy(Protocol):
    """What the decoder asks in each step.

    `weighs`: the policy wants the probabilities of drafts. `compares`: it wants to know, once, what
    a step takes with hidden rows and without. `asleep`: drafts do not pay, so hidden rows are not
    even computed; such steps go to `slept`, all others to `learn`.
    """

    weighs: bool
    compares: bool
    asleep: bool

    def start(self) -> bool:
        """Tell whether the draft layer is wanted in the answer that begins."""

    def begin(self, waiting: int) -> bool:
        """Tell whether to draft; `waiting` rows must be taken in before."""

    def deeper(self, probabilities: list[float]) -> bool:
        """Tell whether to draft one more token after those with these probabilities."""

    def keep(self, probabilities: list[float]) -> int:
        """Give how many of the drafted tokens to verify."""

    def learn(self, step: Step) -> None:
        """Take what the step did."""

    def slept(self, seconds: float, steps: int = 1) -> None:
        """Take plain steps and the time of the last.

        `asleep` tells afterwards whether the draft layer is wanted again.
        """

    def compare(self, with_rows: float, without: float) -> None:
        """Take the seconds of a plain step with hidden rows and without."""


class FixedDepth:
    """Always the same depth, 0 for none: what the user set."""

    weighs = False
    compares = False

    def __init__(self, depth: int) -> None:
        self.depth, self.asleep = depth, depth == 0

    def start(self) -> bool:
        """Want the draft layer unless the depth is 0."""
        return self.depth > 0

    def begin(self, waiting: int) -> bool:
        """Draft unless the depth is 0."""
        return self.depth > 0

    def deeper(self, probabilities: list[float]) -> bool:
        """Go on to the depth."""
        return len(probabilities) < self.depth

    def keep(self, probabilities: list[float]) -> int:
        """Verify all."""
        return len(probabilities)

    def learn(self, step: Step) -> None:
        """Learn nothing."""

    def slept(self, seconds: float, steps: int = 1) -> None:
        """Sleep on, as with depth 0."""

    def compare(self, with_rows: float, without: float) -> None:
        """Learn nothing."""
