"""The passphrase of an encrypted history, asked for before it is opened.

Takes what tries a passphrase; a wrong one is said and asked for again. Dismissed with "" once the
history is unlocked, else with why it stays locked. Knows nothing about the history.
"""

from asyncio import to_thread
from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Footer, Input, Static

from localseek.errors import LocalseekError
from localseek.store.history.database import WrongPassphraseError
from tui.screens.box import Box

LOCKED = "The history is locked."
HINT = "Enter unlocks it. Esc goes on without it: then nothing is saved."


class Unlock(Box[str]):
    """The box with a line for the passphrase."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Without history", key_display="esc", id="unlock.close")
    ]

    def __init__(self, unlock: Callable[[str], None]) -> None:
        super().__init__()
        self._unlock = unlock
        self.line = Input(placeholder="passphrase", password=True, id="unlock-line", compact=True)
        self.line.cursor_blink = False
        self.hint = Static(HINT, id="unlock-hint", markup=False)

    def compose(self) -> ComposeResult:
        """Put the line under the title, and what can be done under it."""
        with Vertical(id="unlock"):
            yield Static(Content.styled("The history is encrypted", "bold"), markup=False)
            yield self.line
            yield self.hint
            yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Begin in the line."""
        self.line.focus()

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        """Try what was typed, which takes a fifth of a second."""
        event.stop()
        if not event.value or self.line.disabled:
            return
        self.line.disabled = True
        self.hint.update("Unlocking…")
        self.run_worker(self._try(event.value))

    async def _try(self, passphrase: str) -> None:
        try:
            await to_thread(self._unlock, passphrase)
        except WrongPassphraseError:
            self.line.disabled = False
            self.line.clear()
            self.line.focus()
            self.hint.update(Content.styled("The passphrase is wrong.", "$text-error"))
        except LocalseekError as error:
            self.dismiss(str(error))
        else:
            self.dismiss("")

    def action_close(self) -> None:
        """Go on without the history."""
        self.dismiss(LOCKED)
