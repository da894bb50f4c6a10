"""The reasoning of one reply: a title that says how long it took, and a panel that folds.

Takes a `TurnView`; a click, Enter or Space on the title gives `Reasoning.Toggled`. The text is
drawn as it came, line by line, and not at all while folded. Decides nothing: whether it is open
stands in the state.
"""

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from tui.state.views import TurnView
from tui.state.wording import reasoning_title
from tui.text.segments import settled_plain
from tui.widgets.growing import update_in_place


class ReasoningTitle(Static, can_focus=True):
    """The line that folds and unfolds."""

    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,space", "press", "Fold", key_display="space", id="reasoning.toggle")
    ]

    class Pressed(Message):
        """The user wants the panel the other way."""

    def on_click(self, event: events.Click) -> None:
        """Toggle on a click."""
        event.stop()
        self.action_press()

    def action_press(self) -> None:
        """Toggle on a key."""
        self.post_message(self.Pressed())


class Reasoning(Vertical):
    """Title and text of the reasoning; hidden while there is none."""

    @dataclass
    class Toggled(Message):
        """The user folded or unfolded the panel."""

        turn: int
        folded: bool

    def __init__(self, turn: TurnView, now: float) -> None:
        super().__init__(classes="-folded")
        self._turn = turn
        self._title = ReasoningTitle(markup=False)
        self._body = Vertical(classes="reasoning-body")
        self._growing: Static | None = None
        self._settled = 0  # characters in pieces that no later text changes
        self._fed = 0  # characters on the screen
        self._label = ""
        self._now = now

    def compose(self) -> ComposeResult:
        """Put the title over the text."""
        yield self._title
        yield self._body

    def on_mount(self) -> None:
        """Show what was given before the widget existed."""
        self._draw()

    def show(self, turn: TurnView, now: float) -> None:
        """Draw the turn's reasoning as it is now."""
        self._turn, self._now = turn, now
        if self.is_mounted:
            self._draw()

    def on_reasoning_title_pressed(self, event: ReasoningTitle.Pressed) -> None:
        """Tell the app; the state comes back through `show`."""
        event.stop()
        self.post_message(self.Toggled(self._turn.id, not self._turn.folded))

    def _draw(self) -> None:
        turn, now = self._turn, self._now
        self.display = bool(turn.reply.reasoning)
        if not self.display:
            return
        label = f"{'▸' if turn.folded else '▾'} {reasoning_title(turn, now)}"
        if label != self._label:
            self._label = label
            self._title.update(Content(label))
        self.set_class(turn.folded, "-folded")
        if not turn.folded:
            self._feed(turn.reply.reasoning.strip("\n"))

    def _feed(self, text: str) -> None:
        if len(text) == self._fed:
            return
        self._fed = len(text)
        while (cut := settled_plain(text[self._settled :])) > 0:
            self._piece(text[self._settled : self._settled + cut].removesuffix("\n"))
            self._growing = None
            self._settled += cut
        self._piece(text[self._settled :])

    def _piece(self, text: str) -> None:
        if self._growing is None:
            self._growing = Static(Content(text), markup=False)
            self._body.mount(self._growing)
        else:
            update_in_place(self._growing, Content(text))
