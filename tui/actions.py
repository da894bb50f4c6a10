"""Everything that can happen to the app's state, as plain frozen values.

What the user does, what becomes of the model, and `Streamed`, which carries the engine's own
events. `reduce.py` gives each its meaning. Knows nothing about Textual or threads.
"""

from dataclasses import dataclass

from localseek.events import Event
from localseek.options import ModelInfo


@dataclass(frozen=True, slots=True)
class Loading:
    """The model is being read; `done` is 0..1."""

    done: float


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model answers from now on."""

    info: ModelInfo


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The model could not be loaded."""

    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Streamed:
    """The engine said something about the turn with this number."""

    turn: int
    event: Event


@dataclass(frozen=True, slots=True)
class Submitted:
    """The user sent a prompt."""

    prompt: str


@dataclass(frozen=True, slots=True)
class Started:
    """A waiting turn was handed to the engine."""

    turn: int


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The user wants the running answer to end."""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The user took back the last prompt that still waits."""


@dataclass(frozen=True, slots=True)
class Folded:
    """The user folded or unfolded the reasoning of one turn."""

    turn: int
    folded: bool


@dataclass(frozen=True, slots=True)
class AllFolded:
    """The user folded or unfolded all reasoning."""

    folded: bool


@dataclass(frozen=True, slots=True)
class ThinkSet:
    """The user chose whether the next answers think first."""

    think: bool | None


@dataclass(frozen=True, slots=True)
class NewAsked:
    """The user starts a new conversation, or goes back from an empty one."""


@dataclass(frozen=True, slots=True)
class RetryAsked:
    """The user wants another answer to the last prompt."""


@dataclass(frozen=True, slots=True)
class RestartAsked:
    """The user wants the model loaded again."""


Action = (
    Loading | Loaded | LoadFailed | Streamed | Submitted | Started | StopAsked | Withdrawn
    | Folded | AllFolded | ThinkSet | NewAsked | RetryAsked | RestartAsked
)  # fmt: skip
