"""What the history holds, as plain frozen values. Times are seconds since the epoch.

Knows nothing about databases.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from localseek.events import Stats
from localseek.text.conversation import Reply, Turn

TITLE_LENGTH = 60  # characters of the first prompt that name a conversation
Role = Literal["user", "assistant"]


@dataclass(frozen=True, slots=True)
class Saved:
    """A conversation without its messages; `leaf` is the message at which it was left."""

    id: int
    title: str
    system: str
    model: str
    created: float
    used: float
    pinned: bool
    archived: bool
    leaf: int | None
    messages: int
    settings: dict[str, Any] = field(default_factory=dict)  # as in a row of a batch


@dataclass(frozen=True, slots=True)
class Message:
    """A prompt or an answer. `parent` is what it follows; siblings are variants of each other.

    `finish_reason` of an answer is that of `Reply`, or "interrupted" where its program died;
    "" while another program still writes it.
    """

    id: int
    parent: int | None
    role: Role
    content: str
    reasoning: str = ""
    model: str = ""
    finish_reason: str = ""
    error: str = ""
    stats: Stats | None = None
    created: float = 0.0

    @property
    def reply(self) -> Reply:
        """Give an answer as the reply that it was."""
        return Reply(self.reasoning, self.content, self.finish_reason, self.stats, self.error)


@dataclass(frozen=True, slots=True)
class Hit:
    """A place where a search found something: a title (`message` None) or a message."""

    conversation: Saved
    message: int | None
    role: Role | None
    excerpt: str


@dataclass(frozen=True, slots=True)
class Deletion:
    """What became of a deletion: files that go with it, and whether its bytes are gone already.

    While another program reads, they stay in the log until it has ended.
    """

    sequences: tuple[str, ...]
    overwritten: bool


def title_of(prompt: str) -> str:
    """Give the title that a conversation has until someone renames it."""
    words = " ".join(prompt.split())
    if len(words) <= TITLE_LENGTH:
        return words
    return words[: TITLE_LENGTH - 1].rstrip() + "…"


def turns_of(branch: list[Message]) -> list[Turn]:
    """Give the prompts of a branch with their answers; a prompt without one is left out."""
    return [
        Turn(prompt.content, answer.reply)
        for prompt, answer in zip(branch, branch[1:], strict=False)
        if prompt.role == "user" and answer.role == "assistant"
    ]
