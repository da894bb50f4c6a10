"""The conversation: a scrolling column that mounts only the turns near the reader.

Takes the state and keeps `window.py`'s run of its turns mounted. It follows the end while the
reader is at the end, and stays put when they have scrolled away. One turn may be selected: keys
are for it. Decides nothing about the conversation.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from localseek.terminal.first_picture import WELCOME
from tui.state import tree, window
from tui.state.views import AppState, TurnView
from tui.state.wording import branching

if TYPE_CHECKING:
    from tui.widgets.turn import TurnWidget

SETTLING = 3  # pictures until what was just mounted has its height
TEMPORARY = "A temporary conversation: nothing of it is saved anywhere."


class Transcript(VerticalScroll):
    """The scrolling column of turns."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "select(1)", "Next", key_display="j/k", id="turn.next"),
        Binding("k,up", "select(-1)", "Previous", show=False, id="turn.previous"),
        Binding("g,home", "ends(-1)", "Start", show=False, id="turn.first"),
        Binding("G,end", "ends(1)", "End", show=False, id="turn.last"),
        Binding("y", "app.copy", "Copy", id="turn.copy"),
        Binding("c", "app.copy_code", "Copy code", id="turn.code"),
        Binding("e", "app.edit", "Edit", id="turn.edit"),
        Binding("r", "app.retry", "Retry", id="turn.retry"),
        Binding("f", "app.fork", "Fork", id="turn.fork"),
        Binding("left_square_bracket", "app.variant(-1)", "Variants", key_display="[ ]",
                id="turn.older"),
        Binding("right_square_bracket", "app.variant(1)", "Newer", show=False, id="turn.newer"),
        Binding("full_stop", "app.continue", "Go on", key_display=".", id="turn.continue"),
        Binding("space", "app.fold_one", "Fold", id="turn.fold"),
    ]  # fmt: skip

    @dataclass
    class Chosen(Message):
        """The user selected a turn."""

        turn: int

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._state: AppState | None = None
        self._turns: tuple[TurnView, ...] = ()
        self._window = window.Window()
        self._mounted: dict[int, TurnWidget] = {}
        self._now = 0.0
        self._paging = False
        self._aimed: int | None = None  # the turn that was chosen last, known before the state is

    def compose(self) -> ComposeResult:
        """Start with a word of welcome."""
        yield Static(Content(WELCOME), id="welcome", markup=False)

    def on_mount(self) -> None:
        """Follow the end from the start."""
        self.anchor()

    def action_ends(self, step: int) -> None:
        """Go to the first turn, or to the end and follow it again."""
        if not self._turns:
            return
        if step < 0:
            self.release_anchor()
            self.post_message(self.Chosen(self._turns[0].id))
            self.reveal(self._turns[0].id)
            return
        self._window = window.tail(len(self._turns), self._room)
        self._mount_window()
        self.post_message(self.Chosen(self._turns[-1].id))
        self.anchor()

    def action_select(self, step: int) -> None:
        """Select the turn after or before; at first the newest that is on the screen."""
        if not self._turns or self._state is None:
            return
        numbers = tree.numbers(self._turns)
        if self._aimed in numbers:
            place = max(0, min(len(numbers) - 1, numbers.index(self._aimed) + step))
        else:
            place = self._newest_visible()
        self._aimed = numbers[place]
        self.post_message(self.Chosen(numbers[place]))
        self.reveal(numbers[place])

    def on_click(self, event: events.Click) -> None:
        """Select the turn that was clicked."""
        above = event.widget.ancestors_with_self if event.widget else []
        turn = next((one for one in self._mounted.values() if one in above), None)
        if turn is not None and self.screen.get_selected_text() is None:
            self._aimed = turn.number
            self.post_message(self.Chosen(turn.number))

    def reveal(self, number: int | None) -> None:
        """Bring a turn onto the screen, mounted first if it is not."""
        numbers = tree.numbers(self._turns)
        if number is None or number not in numbers:
            return
        self._aimed, place = number, numbers.index(number)
        if not self._window.first <= place < self._window.end:
            self._window = window.around(place, len(self._turns), self._room)
            self._mount_window()
        widget = self._mounted[number]
        if self._turns[-1].id == number:
            self.anchor()
            return
        self.release_anchor()

        def settle(tries: int) -> None:
            if not widget.is_attached or self._aimed != number:
                return
            top = widget.virtual_region.height > self.size.height
            self.scroll_to_widget(widget, animate=False, top=top, force=True)
            if tries:  # what was mounted for it gets its height only while it is drawn
                self.call_after_refresh(settle, tries - 1)

        self.call_after_refresh(settle, SETTLING)

    def show(self, state: AppState, now: float) -> None:
        """Draw the turns as they are now."""
        before, self._state, self._now = self._state, state, now
        if state.selected is None:
            self._aimed = None
        turns = state.turns
        if turns is not self._turns:
            self._take(turns)
        for turn in turns[self._window.first : self._window.end]:
            self._mounted[turn.id].show(turn, now)
        if before is None or _placing(before) != _placing(state):
            self._place(state)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Mount another page when the reader comes to an edge of what is mounted."""
        super().watch_scroll_y(old_value, new_value)
        if self._paging or not self._turns:
            return
        if new_value <= 0 < old_value and self._window.first > 0:
            self._page(window.earlier(self._window, self._room), keep_from_end=True)
        at_end = new_value > old_value and new_value >= self.max_scroll_y
        if at_end and self._window.end < len(self._turns):
            after = window.later(self._window, len(self._turns), self._room)
            self._page(after, keep_from_end=False)

    def on_resize(self) -> None:
        """Mount what a higher screen has room for."""
        at_end = self._window.end == len(self._turns)
        if at_end and self._window.size < self._room and self._window.first > 0:
            self._window = window.tail(len(self._turns), self._room)
            self._mount_window()

    @property
    def _room(self) -> int:
        return window.filling(self.size.height)

    def _take(self, turns: tuple[TurnView, ...]) -> None:
        known, self._turns = self._turns, turns
        if tree.numbers(known) == tree.numbers(turns):
            return  # text came, no turn: what is mounted stays
        sent = bool(turns) and (not known or turns[-1].id != known[-1].id)
        follows = self._window.end == len(known)
        at_end = follows and self.is_vertical_scroll_end
        # A prompt that was just sent is where the reader looks.
        if sent:
            grows = follows and len(turns) > len(known)
            start = self._window if grows else window.tail(len(turns), self._room)
            self._window = window.grown(start, len(turns), self._room, following=True)
        else:
            self._window = window.grown(self._window, len(turns), self._room, following=at_end)
        self._mount_window()
        if sent and self._state and self._state.selected in tree.numbers(turns):
            self.reveal(self._state.selected)  # another variant of it is shown
        elif sent:
            self.anchor()

    def _place(self, state: AppState) -> None:
        """Say of each mounted turn which variant it is, whether it is selected, what may follow."""
        beside: dict[int | None, int] = {}
        for turn in (*state.turns, *state.others):
            beside[turn.parent] = beside.get(turn.parent, 0) + 1
        if not state.turns:
            words = TEMPORARY if state.conversation.temporary else WELCOME
            self.query_one("#welcome", Static).update(Content(words))
        for turn in state.turns[self._window.first : self._window.end]:
            words = ""
            if beside[turn.parent] > 1:
                found = tree.numbers(tree.variants(state.turns, state.others, turn))
                words = branching(found.index(turn.id) + 1, len(found))
            widget, last = self._mounted[turn.id], turn is state.last
            widget.stand(words, last, last and state.forked)
            widget.set_class(turn.id == state.selected, "-selected")

    def _newest_visible(self) -> int:
        bottom = self.scroll_y + self.size.height
        for place in range(self._window.end - 1, self._window.first - 1, -1):
            if self._mounted[self._turns[place].id].virtual_region.y < bottom:
                return place
        return self._window.first

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
        from tui.widgets.turn import TurnWidget  # noqa: PLC0415 — Markdown takes 0.1 s to import

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
        if self._state is not None and self._state.turns is self._turns:
            self._place(self._state)


def _placing(state: AppState) -> tuple[object, ...]:
    """Give what the places of turns depend on: it does not change while text streams in."""
    shown = tuple((turn.id, turn.phase, turn.notices) for turn in state.turns)
    goes_on = state.last is not None and state.last.can_go_on
    return shown, state.others, state.selected, goes_on, state.conversation.temporary
