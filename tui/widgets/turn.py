"""One turn of the conversation: prompt, reasoning, answer, and a line on how it ended.

Takes a `TurnView` and draws what changed. Decides nothing.
"""

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from tui.state import TurnView
from tui.widgets.answer import Answer
from tui.widgets.reasoning import Reasoning
from tui.wording import clean, outcome


class TurnWidget(Vertical):
    """A prompt and its reply."""

    def __init__(self, turn: TurnView, now: float) -> None:
        super().__init__()
        self._shown = turn
        self._prompt = Static(Content(clean(turn.prompt)), markup=False, classes="prompt-text")
        self._reasoning = Reasoning(turn, now)
        self._answer = Answer(turn.reply.answer, complete=not self._grows(turn))
        self._outcome = Static(markup=False, classes="outcome")

    def compose(self) -> ComposeResult:
        """Put the parts under each other."""
        yield self._prompt
        yield self._reasoning
        yield self._answer
        yield self._outcome

    def on_mount(self) -> None:
        """Show what was given before the widget existed."""
        self._show_outcome(self._shown)

    def show(self, turn: TurnView, now: float) -> None:
        """Draw the turn as it is now; only a running one changes without a new state."""
        if turn is self._shown and not turn.running:
            return
        changed, self._shown = turn is not self._shown, turn
        self._reasoning.show(turn, now)
        if changed:
            self._answer.show(turn.reply.answer, complete=not self._grows(turn))
            if self.is_mounted:
                self._show_outcome(turn)

    @staticmethod
    def _grows(turn: TurnView) -> bool:
        return turn.running or turn.phase == "waiting"

    def _show_outcome(self, turn: TurnView) -> None:
        text = outcome(turn)
        self._outcome.display = bool(text)
        self._outcome.set_class(turn.phase == "failed", "-error")
        self._outcome.update(Content(text))
