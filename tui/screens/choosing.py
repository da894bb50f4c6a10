"""A box over the chat with a line to type in and a list to choose from.

The conversations and the models are each such a box. Typing filters; arrows move in the list while
the cursor stays in the line; Enter chooses; Esc closes. Knows nothing about what is listed.
"""

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Footer, Input, OptionList, Static
from textual.widgets.option_list import Option

from tui.screens.box import TALL, Box
from tui.state.views import AppState

# Of the screen's height; rows of border, title, line, hint and footer, with margins and without.
SHARE, AROUND, AROUND_SHORT = 0.9, 14, 8


class Choosing(Box[str | None]):
    """The box; dismissed with the chosen option's id, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "move(1)", "Down", show=False),
        Binding("up", "move(-1)", "Up", show=False),
        Binding("pagedown", "move(8)", "Page down", show=False),
        Binding("pageup", "move(-8)", "Page up", show=False),
    ]
    TITLE_TEXT = ""
    PLACEHOLDER = ""

    def __init__(self) -> None:
        super().__init__()
        self.line = Input(placeholder=self.PLACEHOLDER, id="choosing-line", compact=True)
        self.line.cursor_blink = False
        self.options = OptionList(id="choosing-list", markup=False, compact=True)
        self.options.can_focus = False  # the line has the cursor, always
        self.hint = Static(id="choosing-hint", markup=False)

    def compose(self) -> ComposeResult:
        """Put the line over the list, and what can be done under it."""
        with Vertical(id="choosing"):
            yield Static(Content.styled(self.TITLE_TEXT, "bold"), markup=False)
            yield self.line
            yield self.options
            yield self.hint
            yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Begin in the line."""
        self.line.focus()

    def on_resize(self) -> None:
        """Leave room for what stands around the list."""
        room = self.size.height - AROUND_SHORT
        if self.size.height >= TALL:
            room = int(self.size.height * SHARE) - AROUND
        self.options.styles.max_height = max(3, room)

    def on_key(self, event: events.Key) -> None:
        """Take what is typed before the line has the cursor."""
        if not self.line.has_focus and event.is_printable and event.character is not None:
            event.stop()
            self.line.insert_text_at_cursor(event.character)

    @property
    def marked(self) -> str | None:
        """Give the id of the option that is marked."""
        option = self.options.highlighted_option
        return option.id if option else None

    def show(self, state: AppState) -> None:
        """Draw what the state lists; each box does this for its own part."""

    def fill(self, rows: list[tuple[str, Content]], empty: str, first: str = "") -> None:
        """Show these rows (id, text); the mark stays where it was, as far as it can.

        At the start `first` is marked.
        """
        before, place = self.marked or first, self.options.highlighted or 0
        self.options.clear_options()
        self.options.add_options([Option(text, id=number) for number, text in rows])
        numbers = [number for number, _ in rows]
        if numbers:
            at = numbers.index(before) if before in numbers else min(place, len(numbers) - 1)
            self.options.highlighted = at
        self.options.display = bool(rows)
        if not rows:
            self.hint.update(Content(empty))

    def action_move(self, step: int) -> None:
        """Move the mark."""
        count = self.options.option_count
        if count:
            place = (self.options.highlighted or 0) + step
            self.options.highlighted = max(0, min(count - 1, place))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Choose what is marked."""
        event.stop()
        self.choose()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Choose what was clicked."""
        event.stop()
        self.options.highlighted = event.option_index
        self.choose()

    def choose(self) -> None:
        """Close with what is marked."""
        if self.marked is not None:
            self.dismiss(self.marked)

    def on_click(self, event: events.Click) -> None:
        """Close on a click beside the box."""
        if event.widget is self:
            self.dismiss(None)
