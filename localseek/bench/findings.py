"""What was measured, round by round, as it comes in.

Filled while a bench runs, so that what is known can be told whenever it ends. Knows nothing about
engines or how it is shown.
"""

from dataclasses import dataclass, field

from localseek.engine.process.measurement import Measured
from localseek.options import ModelInfo

WARM_UP = -1  # the round that does not count
Series = dict[int, float]  # round → value


@dataclass
class Answers:
    """The answers of one way to draft; counts by position, summed over the rounds that count."""

    steps: int = 0
    tokens: int = 0
    drafted: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    digests: dict[int, str] = field(default_factory=dict)  # round → the text

    def add(self, number: int, found: Measured) -> None:
        """Take the answers of a round."""
        self.digests[number] = found.digest
        if number == WARM_UP:
            return
        self.steps += found.steps
        self.tokens += found.tokens
        longer = len(found.drafted) - len(self.drafted)
        self.drafted += [0] * longer
        self.accepted += [0] * longer
        for position, (drafted, accepted) in enumerate(
            zip(found.drafted, found.accepted, strict=True)
        ):
            self.drafted[position] += drafted
            self.accepted[position] += accepted


@dataclass
class Loads:
    """Load times in seconds; `in_memory` is the share of the file that was there before."""

    ready: Series = field(default_factory=dict)
    first_token: Series = field(default_factory=dict)
    in_memory: dict[int, float | None] = field(default_factory=dict)


@dataclass
class Findings:
    """All that is known so far; series are tokens a second by way to draft, or seconds."""

    prompt: dict[str, Series] = field(default_factory=dict)
    decode: Series = field(default_factory=dict)
    text: dict[str, Series] = field(default_factory=dict)
    answers: dict[str, Answers] = field(default_factory=dict)
    pipe: dict[str, Series] = field(default_factory=dict)
    first_token: dict[str, Series] = field(default_factory=dict)
    first_token_prompt: int = 0  # tokens
    cold: Loads = field(default_factory=Loads)
    warm: Loads = field(default_factory=Loads)
    memory: dict[str, int] = field(default_factory=dict)
    texts: list[tuple[str, tuple[int, ...], int]] = field(default_factory=list)
    info: ModelInfo | None = None
    system: str = ""
    complete: bool = False
