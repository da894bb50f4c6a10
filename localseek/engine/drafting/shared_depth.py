"""How many tokens to draft for each of several sequences that are verified together.

A step of n sequences at depth k has n * (k + 1) rows, so each count of sequences has a controller
of its own with its own times; how often drafts are accepted does not depend on the count, and all
share that. A controller is told one sequence's share of a step: its rates and prices are then
those of all sequences together. Knows nothing about models or contexts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from localseek.engine.drafting.acceptance import Acceptance
from localseek.engine.drafting.depth import DepthController
from localseek.engine.drafting.draft_policy import DepthPolicy, Step, Trial
from localseek.engine.drafting.learnt import Learnt
from localseek.options import MAX_DEPTH


@dataclass(slots=True)
class SharedStep:
    """What one step of several sequences did; lists have an entry for each, times are seconds."""

    waiting: int = 0  # rows that the draft layer had to take in first, of one sequence
    first_s: float = 0.0
    next_s: float = 0.0
    verify_s: float = 0.0
    drafted: list[int] = field(default_factory=list)
    verified: list[int] = field(default_factory=list)
    tokens: int = 0  # of all sequences
    trials: list[list[Trial]] = field(default_factory=list)


class SharedDepth:
    """A policy for each count of sequences that decode together."""

    def __init__(
        self, make: Callable[[], DepthPolicy], known: Mapping[int, Learnt] | None = None
    ) -> None:
        """Take what makes a policy, and what earlier ones have learnt by the count."""
        self._make, self._known = make, known or {}
        known_already = (one.acceptance for one in self._known.values())
        self._acceptance = next(known_already, Acceptance(MAX_DEPTH))
        self._policies: dict[int, DepthPolicy] = {}
        self._rest: dict[int, int] = {}  # tokens that no whole share was left of

    def of(self, count: int) -> DepthPolicy:
        """Give the policy for a count of sequences."""
        if count not in self._policies:
            policy = self._make()
            if isinstance(policy, DepthController):
                if count in self._known:
                    policy.recall(self._known[count])
                policy.acceptance = self._acceptance
                for number, other in sorted(self._policies.items()):
                    if isinstance(other, DepthController) and number < count:
                        policy.follow(other)
            self._policies[count] = policy
        return self._policies[count]

    def learnt(self) -> dict[int, Learnt]:
        """Give what the next start may begin with, by the count of sequences."""
        found = {}
        for count, policy in self._policies.items():
            if isinstance(policy, DepthController) and (one := policy.learnt()):
                found[count] = one
        return found

    def learn(self, step: SharedStep, timed: bool) -> None:
        """Take what a step did; not its times if something else was computed in it (`timed`)."""
        count = len(step.verified)
        policy = self.of(count)
        trials = sorted(step.trials, key=len)
        longest = trials.pop() if trials and timed else []
        if isinstance(policy, DepthController):
            for others in trials:
                policy.judge(others)
        if not timed:
            return
        verified = round(sum(step.verified) / count)
        tokens, self._rest[count] = divmod(step.tokens + self._rest.get(count, 0), count)
        verify_s = step.verify_s * self._of_even(policy, step.verified, verified)
        policy.learn(
            Step(
                step.waiting, max(step.drafted, default=0), verified, tokens,
                step.first_s / count, step.next_s / count, verify_s / count, longest,
            )
        )  # fmt: skip

    @staticmethod
    def _of_even(policy: DepthPolicy, counts: Sequence[int], even: int) -> float:
        """Give the time of verifying `even` drafts of each as a share of that of `counts`."""
        if len(set(counts)) == 1 or not isinstance(policy, DepthController):
            return 1.0
        mean, times = sum(counts) / len(counts), policy.times.verifying
        low, high = times(int(mean)), times(min(int(mean) + 1, MAX_DEPTH))
        between = low + (mean % 1) * (high - low)
        return times(even) / between if between else 1.0
