"""One request among others in a context: its tokens so far, its sampler, limits, text, times.

Takes the tokens that its sampler has chosen, gives them to its text stream, says when it is over.
Which of its tokens the cache holds is the scheduler's to know.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from localseek.engine.decoding.text_stream import TextStream
from localseek.engine.decoding.thinking import Bounds, Closer, closing_of
from localseek.engine.drafting.draft_counter import DraftCounter
from localseek.engine.llama import Model, Sampler
from localseek.events import Event, Finished, FinishReason, PromptProgress, Stats


@dataclass(slots=True)
class Job:
    """What is to be generated after a prompt, and where its events go."""

    number: int
    prompt: list[int]  # tokens
    sampler: Sampler
    stream: TextStream
    bounds: Bounds
    send: Callable[[Event], None]
    turns_left_out: int = 0
    received: float = field(default_factory=time.perf_counter)


class Sequence:
    """A job at work. `tokens` are the prompt's and all that were chosen; the last is unread."""

    def __init__(self, job: Job, model: Model, n_ctx: int) -> None:
        self.job, self.tokens = job, list(job.prompt)
        self.slot = -1  # its number in the context; -1: it waits for one
        self.cached = 0  # tokens of the prompt that were there already
        self.drafts = DraftCounter()
        ends = job.bounds.ends
        self.ends, self._n_ctx = model.stops if ends is None else ends, n_ctx
        self.limit = min(job.bounds.limit, n_ctx - len(job.prompt))
        self._closing, most = closing_of(model, replace(job.bounds, limit=self.limit))
        self._closer = Closer(job.stream, model.piece, most)
        self._admitted = self._answered = 0.0
        job.sampler.accept(job.prompt)

    @property
    def generated(self) -> int:
        """Count the tokens after the prompt."""
        return len(self.tokens) - len(self.job.prompt)

    @property
    def left(self) -> int:
        """Give how many tokens it may still generate."""
        return self.limit - self.generated

    def begin(self, slot: int, cached: int) -> None:
        """Take a place in the context, of whose tokens `cached` are there."""
        self.slot = slot
        if self._admitted:
            return  # it was put back into the queue, and its prompt is known to be read
        self._admitted, self.cached = time.perf_counter(), cached
        self.progress(cached)

    def progress(self, done: int) -> None:
        """Tell how much of the prompt is read, unless it was read before."""
        if not self._answered:
            self.job.send(PromptProgress(done, len(self.job.prompt), self.cached))

    def take(self, fresh: list[int]) -> tuple[int, FinishReason | None]:
        """Take the tokens that the sampler chose in a step.

        Gives how many of them stand, and why the sequence is over if it is. Where reasoning was
        closed, the closing follows those that stand in `tokens`.
        """
        if not self._answered:
            self.progress(len(self.job.prompt))
            self._answered = time.perf_counter()
        fresh, reason = self._until_end(fresh)
        stands = self._closer.feed(fresh)
        self.tokens += fresh[:stands]
        if self.job.stream.stopped:
            return len(fresh), "stop"
        if stands is None:
            return len(fresh), reason
        self.tokens += self._closing
        self.job.stream.feed([self._closer.piece(token) for token in self._closing])
        self.job.sampler.accept(self._closing)
        return stands, None if self.left > 0 else "length"

    def _until_end(self, fresh: list[int]) -> tuple[list[int], FinishReason | None]:
        for index, token in enumerate(fresh):
            if token in self.ends:
                return fresh[:index], "stop"
            if index >= self.left:
                return fresh[:index], "length"
        return fresh, "length" if len(fresh) >= self.left else None

    def finish(self, reason: FinishReason) -> None:
        """Give what is held back of the text, and the statistics."""
        self.job.stream.finish()
        self.close()
        now = time.perf_counter()
        answered = self._answered or now
        reading = answered - (self._admitted or now)
        decoding = now - answered
        read = len(self.job.prompt) - self.cached if self._answered else 0
        stats = Stats(
            prompt_tokens=len(self.job.prompt),
            cached_tokens=self.cached,
            prompt_tps=round(read / max(reading, 1e-9), 2),
            generated_tokens=self.generated,
            reasoning_tokens=min(self.job.stream.reasoning_tokens, self.generated),
            decode_tps=round(self.generated / decoding, 2) if decoding > 0 else 0.0,
            seconds=round(now - self.job.received, 4),
            context_used=len(self.tokens),
            context_size=self._n_ctx,
            turns_left_out=self.job.turns_left_out,
            draft=self.drafts.stats(),
        )
        self.job.send(Finished(reason, stats))

    def close(self) -> None:
        """Free the sampler."""
        self.job.sampler.close()
