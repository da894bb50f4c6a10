"""The prompt: a text box that grows to eight lines, sends on Enter, remembers what was sent.

Gives a `Prompt.Sent` message; the app decides whether the text may go. Pasted line breaks stay.
Knows nothing about the engine or the conversation.
"""

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import TextArea

from tui.prompts import PromptHistory

# Shift+Enter is the same byte as Enter in many terminals; Ctrl+J works in all of them.
NEWLINE_KEYS = ("shift+enter", "ctrl+j", "alt+enter")


class Prompt(TextArea):
    """Where the user writes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "Send", id="prompt.send"),
        Binding("shift+enter,ctrl+j,alt+enter", "newline", "New line", key_display="^j", show=False,
                id="prompt.newline"),
    ]  # fmt: skip

    @dataclass
    class Sent(Message):
        """The user pressed Enter."""

        text: str

    def __init__(self, id: str | None = None) -> None:
        super().__init__(
            id=id, soft_wrap=True, show_line_numbers=False, highlight_cursor_line=False
        )
        self.cursor_blink = False
        self.prompts = PromptHistory()

    async def _on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            event.stop()
            event.prevent_default()
            self.action_send()
        elif event.key in NEWLINE_KEYS:
            event.stop()
            event.prevent_default()
            self.action_newline()
        else:
            await super()._on_key(event)

    def action_send(self) -> None:
        """Offer the text to the app."""
        if self.text.strip():
            self.post_message(self.Sent(self.text))

    def action_newline(self) -> None:
        """Begin a new line."""
        self.insert("\n", maintain_selection_offset=False)

    def accept(self) -> None:
        """Empty the box after its text was taken."""
        self.prompts = self.prompts.added(self.text)
        self.clear()

    def put(self, text: str) -> None:
        """Show a text with the cursor at its end."""
        self.load_text(text)
        self.move_cursor(self.document.end)

    def action_cursor_up(self, select: bool = False) -> None:
        """Go one line up, or to an earlier prompt from the first line."""
        at_edge = self.navigator.is_first_wrapped_line(self.cursor_location)
        if select or not at_edge or not self._walk(-1):
            super().action_cursor_up(select)

    def action_cursor_down(self, select: bool = False) -> None:
        """Go one line down, or to a later prompt from the last line."""
        at_edge = self.navigator.is_last_wrapped_line(self.cursor_location)
        if select or not at_edge or not self._walk(1):
            super().action_cursor_down(select)

    def _walk(self, step: int) -> bool:
        moved = self.prompts.moved(step, self.text)
        if moved is None:
            return False
        self.prompts = moved
        self.put(moved.text)
        return True
