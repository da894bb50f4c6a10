"""The conversation: a scrolling column that mounts only the turns near the reader.

Takes all turns of the state and keeps `window.py`'s run of them mounted. It follows the end
while the reader is at the end, and stays put when they have scrolled away. Decides nothing about
the conversation.
"""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from tui import window
from tui.state import TurnView
from tui.widgets.turn import TurnWidget

WELCOME = "Ask something. Nothing you write leaves this machine."


class Transcript(VerticalScroll):
    """The scrolling column of turns."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", "Down", show=False, id="transcript.down"),
        Binding("k", "scroll_up", "Up", show=False, id="transcript.up"),
        Binding("g", "scroll_home", "Start", show=False, id="transcript.start"),
        Binding("G", "to_end", "End", show=False, id="transcript.end"),
        Binding("y", "app.copy", "Copy answer", id="transcript.copy"),
        Binding("r", "app.restart", "Restart model", id="transcript.restart"),
    ]

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._turns: tuple[TurnView, ...] = ()
        self._window = window.Window()
        self._mounted: dict[int, TurnWidget] = {}
        self._now = 0.0
        self._paging = False

    def compose(self) -> ComposeResult:
        """Start with a word of welcome."""
        yield Static(Content(WELCOME), id="welcome", markup=False)

    def on_mount(self) -> None:
        """Follow the end from the start."""
        self.anchor()

    def action_to_end(self) -> None:
        """Go to the end and follow it again."""
        self._window = window.tail(len(self._turns))
        self._mount_window()
        self.anchor()

    def show(self, turns: tuple[TurnView, ...], now: float) -> None:
        """Draw the turns as they are now."""
        self._now = now
        if turns is not self._turns:
            sent = len(turns) > len(self._turns)
            follows = self._window.end == len(self._turns)
            at_end = follows and self.is_vertical_scroll_end
            self._turns = turns
            # A prompt that was just sent is where the reader looks.
            if sent:
                self._window = window.grown(
                    self._window if follows else window.tail(len(turns)), len(turns), following=True
                )
            else:
                self._window = window.grown(self._window, len(turns), following=at_end)
            self._mount_window()
            if sent:
                self.anchor()
        for turn in turns[self._window.first : self._window.end]:
            self._mounted[turn.id].show(turn, now)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Mount another page when the reader comes to an edge of what is mounted."""
        super().watch_scroll_y(old_value, new_value)
        if self._paging or not self._turns:
            return
        if new_value <= 0 < old_value and self._window.first > 0:
            self._page(window.earlier(self._window), keep_from_end=True)
        at_end = new_value > old_value and new_value >= self.max_scroll_y
        if at_end and self._window.end < len(self._turns):
            self._page(window.later(self._window, len(self._turns)), keep_from_end=False)

    def _page(self, target: window.Window, keep_from_end: bool) -> None:
        # The turn that the reader looks at keeps its place on the screen.
        edge = self._turns[self._window.first if keep_from_end else self._window.end - 1].id
        kept = self._mounted[edge]
        offset = kept.virtual_region.y - self.scroll_y
        self._window, self._paging = target, True
        self.release_anchor()
        self._mount_window()

        def settle() -> None:
            self.scroll_to(y=kept.virtual_region.y - offset, animate=False, force=True)
            self._paging = False

        self.call_after_refresh(settle)

    def _mount_window(self) -> None:
        wanted = self._turns[self._window.first : self._window.end]
        keep = {turn.id for turn in wanted}
        with self.app.batch_update():
            self.query_one("#welcome").display = not self._turns
            gone = [number for number in self._mounted if number not in keep]
            for number in gone:
                self._mounted.pop(number).remove()
            after: TurnWidget | Static = self.query_one("#welcome", Static)
            for turn in wanted:
                if turn.id not in self._mounted:
                    self._mounted[turn.id] = TurnWidget(turn, self._now)
                    self.mount(self._mounted[turn.id], after=after)
                after = self._mounted[turn.id]
