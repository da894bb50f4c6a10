"""The line that finds a text in the conversation: Enter goes to the next place, Esc closes it.

Gives what is looked for and where to go; which turns hold it is told.
"""

from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static


class FindLine(Horizontal):
    """A line to type in, and how many places there are."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close", key_display="esc", id="find.close"),
        Binding("enter,down,ctrl+f", "go(1)", "Next", key_display="enter", id="find.next"),
        Binding("up,shift+enter", "go(-1)", "Previous", key_display="↑", id="find.previous"),
    ]

    @dataclass
    class Wanted(Message):
        """The user looks for a text; `step` goes on from the place before."""

        text: str
        step: int = 0

    class Closed(Message):
        """The user is done."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.display = False
        self._line = Input(placeholder="find in this conversation", compact=True)
        self._line.cursor_blink = False
        self._places = Static("", markup=False, id="find-places")

    def compose(self) -> ComposeResult:
        """Put the count beside the line."""
        yield self._line
        yield self._places

    def open(self, text: str) -> None:
        """Show the line with a text, to be looked for at once."""
        self.display = True
        if text:
            self._line.value = text
        self._line.focus()
        if self._line.value:
            self.post_message(self.Wanted(self._line.value))

    def tell(self, place: int, count: int) -> None:
        """Say which of how many places it is."""
        if self._line.value.strip():
            self._places.update(Content(f"{place} of {count}" if count else "nowhere"))
        else:
            self._places.update(Content(""))

    def on_input_changed(self, event: Input.Changed) -> None:
        """Look for what stands there now."""
        event.stop()
        self.post_message(self.Wanted(event.value))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go to the next place."""
        event.stop()
        self.action_go(1)

    def action_go(self, step: int) -> None:
        """Go to the place after or before."""
        self.post_message(self.Wanted(self._line.value, step))

    def action_close(self) -> None:
        """Hide the line."""
        self.display = False
        self.post_message(self.Closed())
