"""One turn of the conversation: prompt, reasoning, answer, and a line on how it ended.

Takes a `TurnView` and draws what changed; a long prompt shows its beginning until it is clicked.
Decides nothing.
"""

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from tui.state.views import TurnView
from tui.state.wording import clean, count, outcome
from tui.widgets.answer import Answer
from tui.widgets.reasoning import Reasoning

FORK = "The next prompt begins a new branch here. Esc shows what followed."
SHOWN_LINES, SHOWN_CHARACTERS = 12, 1_200  # of a prompt, until it is unfolded


class PromptText(Static):
    """The prompt; a long one is cut until it is clicked."""

    def __init__(self, text: str) -> None:
        self._text, self._whole = clean(text), False
        super().__init__(self._content(), markup=False, classes="prompt-text")

    def on_click(self, event: events.Click) -> None:
        """Show all of it, or the beginning again; a click that selects text does neither."""
        if self.text_selection is None:
            self.toggle()

    def toggle(self) -> None:
        """Show all of it, or the beginning again."""
        self._whole = not self._whole
        self.update(self._content())

    def _content(self) -> Content:
        lines = self._text.splitlines()
        shown = "\n".join(lines[:SHOWN_LINES])[:SHOWN_CHARACTERS]
        if self._whole or len(shown) >= len(self._text.rstrip()):
            return Content(self._text)
        left = count(len(self._text) - len(shown))
        return Content.assemble(shown, (f"\n… {left} more characters; a click shows them", "dim"))


class TurnWidget(Vertical):
    """A prompt and its reply. Above it stands which of several variants it is, if there are any."""

    def __init__(self, turn: TurnView, now: float) -> None:
        super().__init__()
        self._shown, self._said, self._composed = turn, ("", ""), False
        self.prompt = PromptText(turn.prompt)
        self._variants = Static(markup=False, classes="variants")
        self._reasoning = Reasoning(turn, now)
        self._answer = Answer(turn.reply.answer, complete=not self._grows(turn))
        self._outcome = Static(markup=False, classes="outcome")

    def compose(self) -> ComposeResult:
        """Put the parts under each other."""
        yield self._variants
        yield self.prompt
        yield self._reasoning
        yield self._answer
        yield self._outcome

    def on_mount(self) -> None:
        """Show what was given before the widget existed."""
        self._composed = True
        self._tell()

    @property
    def number(self) -> int:
        """Give the turn's number."""
        return self._shown.id

    def show(self, turn: TurnView, now: float) -> None:
        """Draw the turn as it is now; only a running one changes without a new state."""
        if turn is self._shown and not turn.running:
            return
        changed, self._shown = turn is not self._shown, turn
        self._reasoning.show(turn, now)
        if changed:
            self._answer.show(turn.reply.answer, complete=not self._grows(turn))

    def stand(self, variants: str, last: bool, forked: bool) -> None:
        """Say which variant it is, and what under it: it may go on, or a fork begin after it."""
        ending = [outcome(self._shown, last and not forked), FORK if forked else ""]
        said = (variants, "\n".join(filter(None, ending)))
        if said != self._said:
            self._said = said
            self._tell()

    @staticmethod
    def _grows(turn: TurnView) -> bool:
        return turn.running or turn.phase == "waiting"

    def _tell(self) -> None:
        if not self._composed:
            return
        variants, ending = self._said
        self._variants.display, self._outcome.display = bool(variants), bool(ending)
        self._variants.update(Content(variants))
        self._outcome.set_class(self._shown.phase == "failed", "-error")
        self._outcome.update(Content(ending))
