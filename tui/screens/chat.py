"""The chat screen: transcript, a line when the model is down, status, prompt, footer.

Takes the app's state and hands each part to its widget. Keys that belong to no widget but are
text go to the prompt.
"""

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Footer, Static

from tui.state import AppState
from tui.widgets.prompt import Prompt
from tui.widgets.status import Status
from tui.widgets.transcript import Transcript

RESTART = "The next prompt starts it again; so does /restart, or R outside the prompt."


class ChatScreen(Screen[None]):
    """One conversation."""

    AUTO_FOCUS = "#prompt"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (60, "-medium"), (100, "-wide")]

    class Drawn(Message):
        """All parts exist."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.transcript = Transcript(id="transcript")
        self.prompt = Prompt(id="prompt")
        self._status = Status(id="status")
        self._trouble = Static(id="trouble", markup=False)
        self._parts = (self.transcript, self.prompt, self._status, self._trouble)

    def compose(self) -> ComposeResult:
        """Lay the parts out, the conversation above and the prompt below."""
        yield self.transcript
        with Vertical(id="bottom"):
            yield self._trouble
            yield self.prompt
            yield self._status
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Tell the app that it can begin."""
        self.post_message(self.Drawn())

    def show(self, state: AppState, now: float) -> None:
        """Draw the state, unless the app is closing and its parts are gone."""
        if not all(part.is_attached for part in self._parts):
            return
        self.transcript.show(state.turns, now)
        self._status.show(state, now)
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
        (self.transcript if self.prompt.has_focus else self.prompt).focus()

    def on_key(self, event: events.Key) -> None:
        """Bring text that was typed elsewhere to the prompt."""
        if self.prompt.has_focus or not event.is_printable or event.character is None:
            return
        if event.key in self.active_bindings:
            return
        event.stop()
        self.prompt.focus()
        self.prompt.insert(event.character, maintain_selection_offset=False)

    def on_paste(self, event: events.Paste) -> None:
        """Bring text that was pasted elsewhere to the prompt."""
        if not self.prompt.has_focus:
            self.prompt.focus()
            self.prompt.insert(event.text, maintain_selection_offset=False)

    def _show_trouble(self, state: AppState) -> None:
        trouble, model = self._trouble, state.model
        shown = model.phase in ("dead", "failed")
        if shown and not trouble.display:
            # What killed it stands in the turn that it died in.
            failed = f"{model.message} {model.hint}".strip()
            text = "The model is down." if model.phase == "dead" else failed
            trouble.update(Content.assemble((text, "$text-error"), "\n", (RESTART, "dim")))
            if not self.prompt.text:
                self.transcript.focus()  # where R is a key and not a letter
        trouble.display = shown
