"""The prompt: a text box that grows to eight lines, sends, completes, remembers what was sent.

Gives `Prompt.Sent` with the whole text, files and long pastes put in; the app decides whether it
may go. Pasted line breaks stay. Knows nothing about the engine or the conversation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import TextArea

from localseek.errors import UsageError
from tui.text import attachments
from tui.text.prompts import PromptHistory
from tui.widgets.completions import Completions

# Shift+Enter is the same byte as Enter in many terminals; Ctrl+J works in all of them.
OTHER_ENTERS = ("shift+enter", "ctrl+j", "alt+enter", "ctrl+enter")
EDITING = "editing an earlier prompt · Esc leaves it as it was"


class Prompt(TextArea):
    """Where the user writes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "Send"),
        Binding("ctrl+g", "app.editor", "Editor", show=False, id="prompt.editor"),
        Binding("pageup", "app.page(-1)", "Page up", show=False, id="prompt.page_up"),
        Binding("pagedown", "app.page(1)", "Page down", show=False, id="prompt.page_down"),
    ]

    @dataclass
    class Sent(Message):
        """The user sent the prompt.

        `text` has files and long pastes put in, `typed` is what stood in the box, `whole` that
        with the pastes; `edits` is the turn whose prompt it was.
        """

        text: str
        typed: str
        whole: str
        edits: int | None

    @dataclass
    class Refused(Message):
        """The prompt cannot be sent, and stays."""

        why: str

    def __init__(self, completions: Completions, id: str | None = None) -> None:
        super().__init__(
            id=id, soft_wrap=True, show_line_numbers=False, highlight_cursor_line=False
        )
        self.cursor_blink = False
        self.prompts = PromptHistory()
        self.enter_sends = True
        self.words: Mapping[str, str] = {}  # slash words with their help
        self.editing: int | None = None  # the turn whose prompt this is
        self._completions = completions
        self._pastes: dict[str, str] = {}  # what chips stand for
        self._draft = ""  # what stood in the box before an earlier prompt was edited

    async def _on_key(self, event: events.Key) -> None:
        enters = event.key == "enter" or event.key in OTHER_ENTERS
        if self._completions.display and self._completed(event.key):
            pass
        elif enters and (event.key == "enter") == self.enter_sends:
            self.action_send()
        elif enters:
            self.insert("\n", maintain_selection_offset=False)
        else:
            await super()._on_key(event)
            return
        event.stop()
        event.prevent_default()

    async def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()
        event.stop()
        self.paste_in(event.text)

    def paste_in(self, text: str) -> None:
        """Put text in where the cursor is; a chip stands for a long one."""
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        if len(text) > attachments.LONGEST_PASTE:
            short = attachments.chip(len(self._pastes) + 1, text)
            self._pastes[short], text = text, short
        self.insert(text, maintain_selection_offset=False)

    @property
    def whole(self) -> str:
        """Give the text with what chips stand for, files not yet put in."""
        text = self.text
        for short, long in self._pastes.items():
            text = text.replace(short, long)
        return text

    def action_send(self) -> None:
        """Give the text to the app, and empty the box; a file that cannot be attached keeps it."""
        if not self.text.strip():
            return
        try:
            text = attachments.expanded(self.text, self._pastes, attachments.here())
        except UsageError as error:
            self.post_message(self.Refused(str(error)))
            return
        sent = self.Sent(text, self.text, self.whole, self.editing)
        self.prompts = self.prompts.added(self.whole)
        self.leave()
        self.post_message(sent)

    def rewrite(self, turn: int, text: str) -> None:
        """Show an earlier prompt, to be sent anew; what stands in the box comes back later."""
        if self.editing is None:
            self._draft = self.whole
        self.put(text)
        self.editing, self.border_title = turn, EDITING
        self.focus()

    def leave(self) -> None:
        """Empty the box; what was edited stays as it was, what stood there before comes back."""
        self.editing, self.border_title = None, ""
        self._pastes = {}
        self.clear()
        draft, self._draft = self._draft, ""
        if draft:
            self.put(draft)

    def put(self, text: str) -> None:
        """Show a text with the cursor at its end; a very long one behind a chip."""
        self.load_text("")
        if len(text) > attachments.LONGEST_PASTE:
            self.paste_in(text)
        else:
            self.load_text(text)
        self.move_cursor(self.document.end)

    def on_text_area_changed(self) -> None:
        """Offer completions, and say what the files that are named come to."""
        files = attachments.attached(self.text, attachments.here()) if "@" in self.text else []
        self.border_subtitle = " · ".join(
            f"@{name} {attachments.tokens_of(size)}" for name, size in files
        )
        row, column = self.cursor_location
        before = self.document.get_line(row)[:column]
        at_start = row == 0 or "@" in before
        self._completions.offer(
            attachments.completions(before, self.words, attachments.here()) if at_start else []
        )

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

    def _completed(self, key: str) -> bool:
        """Use a key on the completions; False if it is not for them."""
        if key in ("up", "down"):
            self._completions.move(-1 if key == "up" else 1)
            return True
        if key == "escape":
            self._completions.offer([])
            return True
        chosen = self._completions.chosen(key)
        if chosen is None:
            return False
        row, column = self.cursor_location
        space = "" if chosen.text.endswith("/") else " "
        self.replace(
            chosen.text + space, (row, column - chosen.typed), (row, column),
            maintain_selection_offset=False,
        )  # fmt: skip
        self.move_cursor((row, column - chosen.typed + len(chosen.text + space)))
        return True

    def _walk(self, step: int) -> bool:
        moved = self.prompts.moved(step, self.whole)
        if moved is None:
            return False
        self.prompts = moved
        self.put(moved.text)
        return True
