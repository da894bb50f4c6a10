"""All that the app shows, as plain frozen values: model, conversation, turns, the user's switches.

`reduce.py` makes each state from the one before; the widgets draw it. Times are seconds of one
monotonic clock that the caller reads. Knows nothing about Textual, threads, files or the engine.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from localseek.events import DraftStats
from localseek.options import Message
from localseek.store.history.records import Hit, Saved
from localseek.text.conversation import Reply, Transcript, Turn

Phase = Literal[
    "waiting", "reading", "thinking", "answering", "stopping", "done", "stopped", "failed"
]
ModelPhase = Literal["loading", "ready", "failed", "dead"]
Reasoning = Literal["auto", "open", "folded"]  # how a reasoning that comes is shown
RUNNING: frozenset[Phase] = frozenset({"reading", "thinking", "answering", "stopping"})


@dataclass(frozen=True, slots=True)
class ModelView:
    """The model as the user sees it; `message` and `hint` say what went wrong."""

    name: str  # the one that it was asked for by
    phase: ModelPhase = "loading"
    progress: float = 0.0
    thinks: bool = False
    drafting: bool = False
    context_size: int = 0
    memory_bytes: int = 0  # weights, caches and buffers, on all devices
    network: str = ""  # what the engine's process can reach, in words
    message: str = ""
    hint: str = ""

    @property
    def offline(self) -> bool:
        """Tell whether the kernel keeps the engine from every network."""
        return self.network.startswith("cut off")


@dataclass(frozen=True, slots=True)
class TurnView:
    """One prompt and its reply, so far or in full.

    `parent` is the turn that it follows: turns with the same parent are variants of each other.
    `again` is the turn whose prompt it answers again.
    """

    id: int
    prompt: str
    phase: Phase = "waiting"
    reply: Reply = field(default_factory=Reply)
    parent: int | None = None
    again: int | None = None
    cut: "TurnView | None" = None  # as it was before a reply that was cut off went on
    notices: tuple[str, ...] = ()
    read: int = 0
    to_read: int = 0
    tokens: int = 0
    reasoning_tokens: int = 0
    started_s: float = 0.0
    first_s: float | None = None  # when the first token came
    thought_s: float | None = None  # how long the reasoning took, once it is over
    thought_before_s: float = 0.0  # of a reasoning that goes on, until it was cut off
    ended_s: float | None = None
    folded: bool = True
    user_toggled: bool = False

    @property
    def running(self) -> bool:
        """Tell whether the engine works on this turn."""
        return self.phase in RUNNING

    @property
    def goes_on(self) -> bool:
        """Tell whether the reply was cut off, and goes on where it was."""
        return self.cut is not None

    @property
    def can_go_on(self) -> bool:
        """Tell whether the reply was cut off and has text to go on from."""
        cut = self.phase in ("stopped", "failed") or self.reply.finish_reason == "length"
        ended = bool(self.reply.finish_reason) and not self.running  # else another window writes it
        return cut and ended and bool(self.reply.answer or self.reply.reasoning)

    def thinking_s(self, now: float) -> float:
        """Give for how long the model has thought, or did."""
        if self.thought_s is not None:
            return self.thought_s
        return self.thought_before_s + max(0.0, now - (self.first_s or now))

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
class ConversationView:
    """The conversation on the screen. `key` names it in this program, `number` in the history."""

    key: int = 0
    number: int | None = None
    title: str = ""
    system: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)  # as in a row of a batch
    temporary: bool = False  # nothing of it is written anywhere


@dataclass(frozen=True, slots=True)
class Listing:
    """What the list of conversations shows; with a query, where it was found."""

    query: str = ""
    archived: bool = False
    conversations: tuple[Saved, ...] = ()
    hits: tuple[Hit, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelOffer:
    """A model that can be switched to; `fits` is None while that is being found out."""

    name: str
    size_bytes: int = 0
    type: str = ""
    architecture: str = ""
    mtp: bool = False
    fits: bool | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class AppState:
    """The whole app. `running` is the turn that the engine works on, shown or not."""

    model: ModelView
    conversation: ConversationView = field(default_factory=ConversationView)
    turns: tuple[TurnView, ...] = ()  # the branch that is shown, from its first turn
    others: tuple[TurnView, ...] = ()  # turns of other branches
    think: bool | None = None  # where the conversation's settings leave it open
    running: int | None = None
    next_id: int = 1
    next_key: int = 1
    reasoning: Reasoning = "auto"
    selected: int | None = None  # the turn that keys in the conversation are for
    unsaved: str = ""  # why the conversation cannot be saved
    listing: Listing = field(default_factory=Listing)
    recent: tuple[Saved, ...] = ()  # conversations that the palette finds
    models: tuple[ModelOffer, ...] = ()

    @property
    def last(self) -> TurnView | None:
        """Give the newest turn that is shown."""
        return self.turns[-1] if self.turns else None

    @property
    def current(self) -> TurnView | None:
        """Give the turn to speak of in the status line: the running one, else the newest begun."""
        begun = [turn for turn in self.turns if turn.phase != "waiting"]
        return next((turn for turn in begun if turn.running), begun[-1] if begun else None)

    @property
    def chosen(self) -> TurnView | None:
        """Give the turn that the user has selected, else the newest."""
        return self.turn(self.selected) or self.last

    @property
    def waiting(self) -> tuple[TurnView, ...]:
        """Give the turns that wait for the engine."""
        return tuple(turn for turn in self.turns if turn.phase == "waiting")

    @property
    def busy(self) -> bool:
        """Tell whether anything can come from the engine."""
        return self.running is not None or self.model.phase == "loading"

    @property
    def settled(self) -> bool:
        """Tell whether no shown turn waits or runs, so that branches can be changed."""
        return not any(turn.running or turn.phase == "waiting" for turn in self.turns)

    @property
    def forked(self) -> bool:
        """Tell whether the next prompt would begin a branch beside what followed the last turn."""
        last = self.last.id if self.last else None
        return any(turn.parent == last for turn in self.others) and bool(self.turns)

    @property
    def thinking(self) -> bool | None:
        """Tell whether the next answer is to reason first; None: as the model does by itself."""
        chosen: bool | None = self.conversation.settings.get("think")
        return self.think if chosen is None else chosen

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

    def turn(self, number: int | None) -> TurnView | None:
        """Give the turn with this number, if it is shown."""
        return next((turn for turn in self.turns if turn.id == number), None)

    def with_turn(self, turn: TurnView) -> "AppState":
        """Give the state with one turn replaced."""
        turns = tuple(turn if each.id == turn.id else each for each in self.turns)
        return replace(self, turns=turns)

    def messages_for(self, number: int) -> tuple[Message, ...]:
        """Give what the model is shown for a turn: the turns before it, then its prompt."""
        conversation = Transcript(self.conversation.system)
        for turn in self.turns:
            if turn.id == number:
                return conversation.messages(turn.prompt)
            conversation.turns.append(Turn(turn.prompt, turn.reply))
        raise KeyError(number)
