"""A budget for reasoning: what is over it is closed with a sentence, and the answer follows.

Takes a request's limit and budget, runs a decoder into a text stream. The closing words are put
where the model's own would have come, so that it goes on as if it had written them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from localseek.engine.decoding.decoder import Decoder, Outcome
from localseek.engine.llama import Model, Sampler

ENOUGH = "\n\nThat is enough thinking; I will answer now."
GROUP_SECONDS = 0.02  # tokens of a fast model are looked at together
ANSWER_TOKENS = 256  # that reasoning leaves for the answer, or a quarter of a smaller limit


class Stream(Protocol):
    """Where the text goes."""

    @property
    def stopped(self) -> bool:
        """Tell whether a stop string has ended the text."""

    @property
    def reasoning(self) -> bool:
        """Tell whether the next text is taken for reasoning."""

    @property
    def stops(self) -> bool:
        """Tell whether a stop string is watched for."""

    reasoning_tokens: int

    def feed(self, pieces: list[bytes]) -> None:
        """Take the bytes of new tokens."""


@dataclass(frozen=True)
class Bounds:
    """What ends a reply: so many tokens in all, so many of them that reason (None: any number).

    `close` is how the model itself ends its reasoning, `ends` the tokens after which a reply is
    over (None: the model's own).
    """

    limit: int
    budget: int | None
    close: str = "\n</think>\n\n"
    ends: frozenset[int] | None = None

    @property
    def answer_tokens(self) -> int:
        """Give the tokens that reasoning leaves for the answer."""
        return max(1, min(ANSWER_TOKENS, self.limit // 4))

    def closing(self, closings: Sequence[list[int]]) -> list[int]:
        """Choose the first closing that leaves room for an answer; [] without a budget or room."""
        if self.budget is None:
            return []
        room = self.limit - self.answer_tokens
        return next((closing for closing in closings if len(closing) <= room), [])

    def reasoning(self, closing: int) -> int | None:
        """Give how many tokens may reason if `closing` end it; None if none do."""
        if self.budget is None or not closing:
            return None
        return max(0, min(self.budget, self.limit - closing - self.answer_tokens))


class Closer:
    """Feeds an answer's tokens into its stream and tells when its reasoning must be closed.

    `most` tokens may reason; None: any number.
    """

    def __init__(self, stream: Stream, piece: Callable[[int], bytes], most: int | None) -> None:
        self._stream, self.piece, self._most = stream, piece, most

    def feed(self, step: list[int]) -> int | None:
        """Feed the tokens of a step.

        Gives how many of them stand if the reasoning must be closed after these, else None.
        """
        stream, most = self._stream, self._most
        if most is None or not stream.reasoning:
            stream.feed([self.piece(token) for token in step])
            return None
        stands = step[: most - stream.reasoning_tokens]
        stream.feed([self.piece(token) for token in stands])
        if stream.stopped:
            return None
        if stream.reasoning and stream.reasoning_tokens >= most:
            return len(stands)
        if len(stands) < len(step):  # the model has closed its reasoning just in time
            stream.feed([self.piece(token) for token in step[len(stands) :]])
        return None


def closing_of(model: Model, bounds: Bounds) -> tuple[list[int], int | None]:
    """Give the tokens that close a reasoning within bounds, and how many may come before them."""
    texts = (ENOUGH + bounds.close, bounds.close, bounds.close.strip())  # for smaller limits
    closing = bounds.closing([model.tokenize(text) for text in texts])
    return closing, bounds.reasoning(len(closing))


def answer(
    decoder: Decoder, tokens: list[int], sampler: Sampler, bounds: Bounds, stream: Stream,
    cancelled: Callable[[], bool], progress: Callable[[int, int], None], outcome: Outcome,
) -> None:  # fmt: skip
    """Generate after `tokens` into `stream`, within `bounds`; fills `outcome`."""
    model = decoder.model
    limit = min(bounds.limit, decoder.target.n_ctx - len(tokens))
    closing, most = closing_of(model, replace(bounds, limit=limit))
    closer = Closer(stream, model.piece, most)
    said: list[int] = []
    # What is cut at a token, for a budget or a stop string, is looked at token by token.
    group_s = 0.0 if most is not None or stream.stops else GROUP_SECONDS
    steps = decoder.generate(
        tokens, sampler, limit, cancelled, progress, outcome, group_s, bounds.ends
    )
    for step in steps:
        stands = closer.feed(step)
        if stream.stopped:
            return
        if most is not None:
            said += step[:stands]
        if stands is not None:
            break
    else:
        return
    steps.close()
    stream.feed([model.piece(token) for token in closing])
    sampler.accept(closing)
    said += closing
    rest = Outcome(drafts=outcome.drafts)
    more = decoder.generate(
        tokens + said, sampler, limit - len(said), cancelled, lambda _done, _cached: None, rest,
        ends=bounds.ends,
    )  # fmt: skip
    for step in more:
        stream.feed([model.piece(token) for token in step])
        if stream.stopped:
            break
    outcome.generated, outcome.reason = len(said) + rest.generated, rest.reason
