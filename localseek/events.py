"""What comes out of the engine: one stream of typed events for each request.

Plain frozen values, read alike by `ask`, `chat`, `batch` and the TUI. A request gives any number
of `PromptProgress`, `Notice`, `ReasoningDelta`, `AnswerDelta` and at most one `AnswerWithdrawn`,
then exactly one `Finished` or `Failed`. Reasoning and answer are siblings: no text ever carries a
`<think>` tag.
"""

from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class PromptProgress:
    """Tokens of the prompt that the model has read; `cached` of them came from the cache."""

    done: int
    total: int
    cached: int = 0


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More text of the reasoning; `tokens` were generated since the last delta of any kind."""

    text: str
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    """More text of the answer; `tokens` were generated since the last delta of any kind."""

    text: str
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class AnswerWithdrawn:
    """All of the answer so far was reasoning: the model has closed it only now."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the user should know that is not a failure."""

    text: str


@dataclass(frozen=True, slots=True)
class DraftStats:
    """How multi-token prediction went. Position 1 is the first drafted token of a step."""

    steps: int = 0
    drafted: int = 0
    accepted: int = 0
    accepted_by_position: list[float] = field(default_factory=list)  # share, 0..1
    mean_depth: float = 0.0
    tokens_per_step: float = 0.0


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts and speeds of one request; `draft` is None when nothing was drafted."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    prompt_tps: float = 0.0
    generated_tokens: int = 0
    reasoning_tokens: int = 0
    decode_tps: float = 0.0
    seconds: float = 0.0
    context_used: int = 0
    context_size: int = 0
    draft: DraftStats | None = None
    turns_left_out: int = 0  # oldest turns of the conversation that did not fit the context

    @property
    def filled_context(self) -> bool:
        """Tell whether generation went on to the very end of the context."""
        return 0 < self.context_size <= self.prompt_tokens + self.generated_tokens


@dataclass(frozen=True, slots=True)
class Finished:
    """The request is done: the model stopped, a limit was reached, or the user cancelled."""

    reason: FinishReason
    stats: Stats


@dataclass(frozen=True, slots=True)
class Failed:
    """The request is over without a result; `fatal` when the engine itself is gone.

    `log` holds the last lines of a dead engine's log. `wrong_use`: the request asked for what
    cannot be, such as a bias for a token that the model does not have. `too_long`: the prompt alone
    is longer than the context.
    """

    message: str
    hint: str = ""
    fatal: bool = False
    log: list[str] = field(default_factory=list)
    wrong_use: bool = False
    too_long: bool = False


Event = (
    PromptProgress | ReasoningDelta | AnswerDelta | AnswerWithdrawn | Notice | Finished | Failed
)
EVENT_TYPES: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        PromptProgress, ReasoningDelta, AnswerDelta, AnswerWithdrawn, Notice, Finished, Failed
    )  # fmt: skip
}
