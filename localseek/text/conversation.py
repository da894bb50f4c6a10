"""A conversation as plain data: turns, and the messages that the model is shown.

Takes events of a reply, gives the messages for the next request. Reasoning is kept beside each
answer for the reader; it is never shown to the model again. Knows nothing about storage,
terminals or templates.
"""

from dataclasses import dataclass, field, replace

from localseek.events import (
    AnswerDelta,
    AnswerWithdrawn,
    Event,
    Failed,
    Finished,
    ReasoningDelta,
    Stats,
)
from localseek.options import Message


@dataclass(frozen=True)
class Reply:
    """What the model said to one prompt, so far or in full."""

    reasoning: str = ""
    answer: str = ""
    finish_reason: str = ""  # "" while running; stop, length, cancelled, failed
    stats: Stats | None = None
    error: str = ""  # why it failed, or is not of the form that was asked for
    wrong_use: bool = False  # the error is the request's own

    @property
    def never_answered(self) -> bool:
        """Tell whether the model stopped by itself within its reasoning."""
        return self.finish_reason == "stop" and bool(self.reasoning) and not self.answer

    def after(self, event: Event) -> "Reply":
        """Give the reply as it is after one more event."""
        if isinstance(event, ReasoningDelta):
            return replace(self, reasoning=self.reasoning + event.text)
        if isinstance(event, AnswerDelta):
            return replace(self, answer=self.answer + event.text)
        if isinstance(event, AnswerWithdrawn):
            return replace(self, reasoning=self.answer.rstrip(), answer="")
        if isinstance(event, Finished):
            return replace(self, finish_reason=event.reason, stats=event.stats)
        if isinstance(event, Failed):
            text = f"{event.message} {event.hint}".strip()
            return replace(self, finish_reason="failed", error=text, wrong_use=event.wrong_use)
        return self


@dataclass(frozen=True)
class Turn:
    """A prompt and its reply."""

    prompt: str
    reply: Reply


@dataclass
class Transcript:
    """A system prompt and the turns so far."""

    system: str = ""
    turns: list[Turn] = field(default_factory=list)

    def messages(self, prompt: str) -> tuple[Message, ...]:
        """Give what the model is shown for `prompt`: answers of earlier turns, no reasoning.

        A turn without any answer (stopped while thinking, failed) is left out whole.
        """
        shown = [Message("system", self.system)] if self.system else []
        for turn in self.turns:
            if turn.reply.answer:
                shown.append(Message("user", turn.prompt))
                shown.append(Message("assistant", turn.reply.answer))
        return (*shown, Message("user", prompt))

    def add(self, prompt: str, reply: Reply) -> None:
        """Append a finished turn."""
        self.turns.append(Turn(prompt, reply))
