"""All that the app shows, as plain frozen values: the model, the turns, the user's switches.

`reduce.py` makes each state from the one before; the widgets draw it. Times are seconds of one
monotonic clock that the caller reads. Knows nothing about Textual, threads or the engine child.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

from localseek.events import DraftStats
from localseek.options import Message
from localseek.text.conversation import Conversation, Reply, Turn

Phase = Literal[
    "waiting", "reading", "thinking", "answering", "stopping", "done", "stopped", "failed"
]
ModelPhase = Literal["loading", "ready", "failed", "dead"]
RUNNING: frozenset[Phase] = frozenset({"reading", "thinking", "answering", "stopping"})


@dataclass(frozen=True, slots=True)
class ModelView:
    """The model as the user sees it; `message` and `hint` say what went wrong."""

    name: str
    phase: ModelPhase = "loading"
    progress: float = 0.0
    thinks: bool = False
    drafting: bool = False
    context_size: int = 0
    message: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class TurnView:
    """One prompt and its reply, so far or in full."""

    id: int
    prompt: str
    phase: Phase = "waiting"
    reply: Reply = field(default_factory=Reply)
    notices: tuple[str, ...] = ()
    read: int = 0
    to_read: int = 0
    tokens: int = 0
    reasoning_tokens: int = 0
    started_s: float = 0.0
    first_s: float | None = None  # when the first token came
    thought_s: float | None = None  # how long the reasoning took, once it is over
    ended_s: float | None = None
    folded: bool = True
    user_toggled: bool = False

    @property
    def running(self) -> bool:
        """Tell whether the engine works on this turn."""
        return self.phase in RUNNING

    def thinking_s(self, now: float) -> float:
        """Give for how long the model has thought, or did."""
        if self.thought_s is not None:
            return self.thought_s
        return max(0.0, now - (self.first_s if self.first_s is not None else now))

    def tokens_per_second(self, now: float) -> float:
        """Give the decoding speed: the engine's own figure once there is one."""
        if self.reply.stats:
            return self.reply.stats.decode_tps
        if self.first_s is None or self.tokens < 2:
            return 0.0
        elapsed = (self.ended_s or now) - self.first_s
        # Over less than this a rate says more about the screen than about the model.
        return (self.tokens - 1) / elapsed if elapsed >= 0.2 else 0.0


@dataclass(frozen=True, slots=True)
class AppState:
    """The whole app. `running` is the turn that the engine works on, shown or not."""

    model: ModelView
    system: str = ""
    think: bool | None = None
    turns: tuple[TurnView, ...] = ()
    previous: tuple[TurnView, ...] = ()  # the conversation before the last `/new`
    running: int | None = None
    next_id: int = 1
    fold_new: bool = False  # the user folded everything: reasoning to come stays folded too

    @property
    def last(self) -> TurnView | None:
        """Give the newest turn."""
        return self.turns[-1] if self.turns else None

    @property
    def current(self) -> TurnView | None:
        """Give the turn to speak of in the status line: the running one, else the newest begun."""
        begun = [turn for turn in self.turns if turn.phase != "waiting"]
        return next((turn for turn in begun if turn.running), begun[-1] if begun else None)

    @property
    def waiting(self) -> tuple[TurnView, ...]:
        """Give the turns that wait for the engine."""
        return tuple(turn for turn in self.turns if turn.phase == "waiting")

    @property
    def busy(self) -> bool:
        """Tell whether anything can come from the engine."""
        return self.running is not None or self.model.phase == "loading"

    @property
    def last_answer(self) -> str:
        """Give the newest answer that has text, or ""."""
        return next((t.reply.answer for t in reversed(self.turns) if t.reply.answer), "")

    @property
    def draft(self) -> DraftStats | None:
        """Give how drafting went in the newest finished turn."""
        stats = self.current.reply.stats if self.current else None
        return stats.draft if stats else None

    @property
    def context_used(self) -> int:
        """Give the tokens in the model's context, counted live while it runs."""
        turn = self.current
        if turn is None:
            return 0
        if turn.reply.stats and turn.reply.stats.context_used:
            return turn.reply.stats.context_used
        return turn.read + turn.tokens

    def turn(self, number: int) -> TurnView | None:
        """Give the turn with this number, if it is still shown."""
        return next((turn for turn in self.turns if turn.id == number), None)

    def with_turn(self, turn: TurnView) -> "AppState":
        """Give the state with one turn replaced."""
        turns = tuple(turn if each.id == turn.id else each for each in self.turns)
        return replace(self, turns=turns)

    def messages_for(self, number: int) -> tuple[Message, ...]:
        """Give what the model is shown for a turn: the turns before it, then its prompt."""
        conversation = Conversation(self.system)
        for turn in self.turns:
            if turn.id == number:
                return conversation.messages(turn.prompt)
            conversation.turns.append(Turn(turn.prompt, turn.reply))
        raise KeyError(number)
