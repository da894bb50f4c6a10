"""Everything that can happen to the app's state, as plain frozen values.

What the user does, what becomes of the model and of the history, and `Streamed`, which carries the
engine's own events. `reduce.py` gives each its meaning. Knows nothing about Textual or threads.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from localseek.events import Event
from localseek.options import ModelInfo
from tui.state.views import ConversationView, Listing, ModelOffer, TurnView

# The model


@dataclass(frozen=True, slots=True)
class ModelAsked:
    """The user wants another model, by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Loading:
    """The model is being read; `done` is 0..1."""

    done: float


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model answers from now on; `name` is the one that it was asked for by."""

    info: ModelInfo
    name: str = ""


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The model could not be loaded."""

    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class RestartAsked:
    """The user wants the model loaded again."""


@dataclass(frozen=True, slots=True)
class ModelsListed:
    """These models can be switched to."""

    models: tuple[ModelOffer, ...]


@dataclass(frozen=True, slots=True)
class PlanDrawn:
    """The plan of the loaded model, as lines of text."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Streamed:
    """The engine said something about the turn with this number."""

    turn: int
    event: Event


# Turns


@dataclass(frozen=True, slots=True)
class Submitted:
    """The user sent a prompt; in place of the turn `edits`, if there is one."""

    prompt: str
    edits: int | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """A waiting turn was handed to the engine."""

    turn: int


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The user wants the running answer to end."""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The user took back a prompt that still waits, the last one if none is named."""

    turn: int | None = None


@dataclass(frozen=True, slots=True)
class RetryAsked:
    """The user wants another answer to a turn's prompt."""

    turn: int


@dataclass(frozen=True, slots=True)
class ContinueAsked:
    """The user wants the last answer, which was cut off, to go on."""


@dataclass(frozen=True, slots=True)
class BranchAsked:
    """The user goes back to a turn: what is asked next follows it."""

    turn: int


@dataclass(frozen=True, slots=True)
class BranchLeft:
    """The user wants to see again what followed."""


@dataclass(frozen=True, slots=True)
class VariantAsked:
    """The user wants the variant before (-1) or after (1) a turn."""

    turn: int
    step: int


@dataclass(frozen=True, slots=True)
class Selected:
    """The user selected a turn, or none."""

    turn: int | None


@dataclass(frozen=True, slots=True)
class Folded:
    """The user folded or unfolded the reasoning of one turn."""

    turn: int
    folded: bool


@dataclass(frozen=True, slots=True)
class AllFolded:
    """The user folded or unfolded all reasoning."""

    folded: bool


# Conversations


@dataclass(frozen=True, slots=True)
class NewAsked:
    """The user starts a new conversation, of which nothing is kept if it is `temporary`."""

    temporary: bool = False
    system: str = ""


@dataclass(frozen=True, slots=True)
class SettingsChanged:
    """The user changed the conversation's settings or its system prompt."""

    settings: Mapping[str, Any]
    system: str


@dataclass(frozen=True, slots=True)
class Opened:
    """A saved conversation was read."""

    conversation: ConversationView
    turns: tuple[TurnView, ...] = ()
    others: tuple[TurnView, ...] = ()
    at: int | None = None  # the turn to be looked at


@dataclass(frozen=True, slots=True)
class Stored:
    """The history made a conversation for the one with this key."""

    key: int
    number: int
    title: str


@dataclass(frozen=True, slots=True)
class Retitled:
    """A saved conversation has another title."""

    number: int
    title: str


@dataclass(frozen=True, slots=True)
class Deleted:
    """A saved conversation is gone for good; `keys` are those that it had here."""

    number: int
    keys: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Orphaned:
    """The conversation with this key was deleted by another program."""

    key: int


@dataclass(frozen=True, slots=True)
class Listed:
    """The history was read for the list of conversations."""

    listing: Listing


@dataclass(frozen=True, slots=True)
class HistoryFailed:
    """The history cannot be written: conversations go on without it."""

    message: str


# Words for the user, and what was asked before


@dataclass(frozen=True, slots=True)
class Said:
    """Something to say in passing."""

    text: str


@dataclass(frozen=True, slots=True)
class Recalled:
    """What was asked in earlier runs, the newest at the end."""

    prompts: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Kept:
    """The engine saved what it had read of a conversation, under this name."""

    key: int
    name: str


Action = (
    ModelAsked | Loading | Loaded | LoadFailed | RestartAsked | ModelsListed | PlanDrawn | Streamed
    | Submitted | Started | StopAsked | Withdrawn | RetryAsked | ContinueAsked | BranchAsked
    | BranchLeft | VariantAsked | Selected | Folded | AllFolded | NewAsked | SettingsChanged
    | Opened | Stored | Retitled | Deleted | Orphaned | Listed | HistoryFailed | Said | Recalled
    | Kept
)  # fmt: skip
