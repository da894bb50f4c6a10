"""The chat screen: title, transcript, what is wrong with the model, prompt, status, footer.

Takes the app's state and hands each part to its widget. Keys that belong to no widget but are
text go to the prompt.
"""

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Button, Static

from tui.state.views import AppState
from tui.state.wording import clean
from tui.widgets.completions import Completions
from tui.widgets.find import FindLine
from tui.widgets.keys import Keys
from tui.widgets.prompt import Prompt
from tui.widgets.status import Status
from tui.widgets.transcript import Transcript

TRANSCRIPT_KEYS = frozenset(
    key
    for binding in Transcript.BINDINGS
    if isinstance(binding, Binding)
    for key in binding.key.split(",")
)


class ChatScreen(Screen[None]):
    """One conversation."""

    AUTO_FOCUS = "#prompt"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (60, "-medium"), (100, "-wide")]

    class Drawn(Message):
        """All parts exist."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._heading, self._headed = Static(id="title", markup=False), ""
        self.transcript = Transcript(id="transcript")
        completions = Completions(id="completions")
        self.prompt = Prompt(completions, id="prompt")
        self.find = FindLine(id="find")
        self._status = Status(id="status")
        self._trouble = Static(id="trouble-text", markup=False)
        self._restart = Button("Restart the model", id="restart", compact=True)
        self._parts = (self.transcript, self.prompt, self._status, self._trouble)
        self._completions = completions

    def compose(self) -> ComposeResult:
        """Lay the parts out, the conversation above and the prompt below."""
        yield self._heading
        yield self.transcript
        with Vertical(id="bottom"):
            yield self.find
            with Horizontal(id="trouble"):
                yield self._trouble
                yield self._restart
            yield self._completions
            yield self.prompt
            yield self._status
        yield Keys(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Tell the app that it can begin."""
        self.post_message(self.Drawn())

    def show(self, state: AppState, now: float) -> None:
        """Draw the state, unless the app is closing and its parts are gone."""
        if not all(part.is_attached for part in self._parts):
            return
        self.transcript.show(state, now)
        self._status.show(state, now)
        title = clean(state.conversation.title)
        if title != self._headed:
            self._headed = title
            self._heading.display = bool(title)
            self._heading.update(Content(title))
        self._show_trouble(state)

    def update_node_styles(self, animate: bool = True) -> None:
        """Restyle this screen and what can show focus, not every mounted reply.

        Textual restyles the whole tree when the terminal gains or loses focus: seconds in a long
        conversation. Nothing inside a reply is styled by the terminal's focus.
        """
        nodes = [self, *self.query("#transcript, #bottom, #bottom *")]
        self.app.stylesheet.update_nodes(nodes, animate=animate)

    def switch_focus(self) -> None:
        """Go from the prompt to the conversation, or back."""
        self.set_focus(self.transcript if self.prompt.has_focus else self.prompt)

    def on_key(self, event: events.Key) -> None:
        """Bring text that was typed elsewhere to the prompt.

        Also what was typed before the prompt had the focus that the first letter gave it.
        """
        if not event.is_printable or event.character is None or self.find.has_focus_within:
            return
        if event.key in self.active_bindings:
            return
        if self.focused is self.transcript and event.key in TRANSCRIPT_KEYS:
            return  # which has nothing to do just now
        event.stop()
        self.set_focus(self.prompt)
        self.prompt.insert(event.character, maintain_selection_offset=False)

    def on_paste(self, event: events.Paste) -> None:
        """Bring text that was pasted elsewhere to the prompt."""
        if not (self.prompt.has_focus or self.find.has_focus_within):
            event.stop()  # else the app hands it to the prompt once more
            self.set_focus(self.prompt)
            self.prompt.paste_in(event.text)

    def _show_trouble(self, state: AppState) -> None:
        model = state.model
        box = self._trouble.parent
        assert isinstance(box, Horizontal)  # it is composed so
        shown = model.phase in ("dead", "failed")
        if shown and not box.display:
            # What killed it stands in the turn that it died in.
            failed = f"{model.message} {model.hint}".strip()
            text = "The model is down." if model.phase == "dead" else failed
            hint = "The next prompt starts it again; so does /restart."
            self._trouble.update(Content.assemble((text, "$text-error"), "\n", (hint, "dim")))
            if not self.prompt.text:
                self.call_after_refresh(self._restart.focus)
        elif box.display and not shown and self._restart.has_focus:
            self.set_focus(self.prompt)
        box.display = shown
