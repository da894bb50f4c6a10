"""The verbs about conversations, models and settings: boxes that list them, and what they choose.

Takes the app's state and its threads, gives actions. Knows nothing about how a box is
drawn; each is imported when it is opened, so that the first picture does not wait for it.
"""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from textual.app import SuspendNotSupported

from localseek.errors import LocalseekError
from tui.state import actions as act
from tui.text import export
from tui.text.editing import edit
from tui.verbs import Verbs

LOST = "This conversation is not saved. Once more, and it is gone."


class Lists(Verbs):
    """An app whose conversations, models and settings can be chosen from lists."""

    @abstractmethod
    def load_model(self) -> None:
        """Load the model that the state names."""

    @property
    def must_unlock(self) -> bool:
        """Tell whether the history needs a passphrase that can be asked for."""
        return self.ports.vault is not None and self.ports.vault.askable

    def ask_passphrase(self) -> None:
        """Ask for the history's passphrase; the model is loaded after that, it may need a key."""
        from tui.screens.unlock import LOCKED, Unlock  # noqa: PLC0415

        assert self.ports.vault is not None  # else there is nothing to ask for

        def asked(trouble: str | None) -> None:
            self.archive.let_go(opened=trouble == "")
            if trouble != "":
                self.dispatch(act.HistoryFailed(trouble or LOCKED))
            self.load_model()
            self.chat.prompt.focus()

        self.push_screen(Unlock(self.ports.vault.unlock), asked)

    def action_new(self) -> None:
        """Start a new conversation; a temporary one is lost only when asked for twice."""
        self._begin(temporary=False)

    def action_temporary(self) -> None:
        """Start a conversation of which nothing is saved."""
        self._begin(temporary=True)

    def _begin(self, temporary: bool) -> None:
        view = self.state.conversation
        lost = view.temporary and self.state.turns
        if lost and not self.again("new", LOST):
            return
        if self.state.running is not None:
            self.stop_engine()
        self.dispatch(act.NewAsked(temporary, view.system))
        self.chat.prompt.focus()

    def action_conversations(self) -> None:
        """List the saved conversations, and open the one that is chosen."""

        from tui.screens.conversations import Conversations  # noqa: PLC0415

        def chosen(numbers: str | None) -> None:
            if numbers is not None:
                self.open_conversation(*map(int, numbers.split()))

        self.push_screen(Conversations(self.archive), chosen)
        self.call_after_refresh(self.dispatch)

    def open_conversation(self, number: int, message: int | None = None) -> None:
        """Show a saved conversation in place of this one, at a message if one is given."""
        view = self.state.conversation
        if number == view.number and not self.state.settled:
            return  # it is on the screen, and grows
        lost = view.temporary and self.state.turns
        if lost and not self.again("open", LOST):
            return
        if self.state.running is not None:
            self.stop_engine()
            self.dispatch(act.StopAsked())
        self.archive.open(number, self.state.model.name, message)

    def action_models(self, name: str = "") -> None:
        """List the models and load the one that is chosen, or the one that is named."""

        from tui.screens.models import Models  # noqa: PLC0415

        def chosen(name: str | None) -> None:
            if name is not None:
                self.switch_model(name)

        if name:
            self.switch_model(name)
            return
        self.shelf.look(self.info)
        self.push_screen(Models(), chosen)
        self.call_after_refresh(self.dispatch)

    def switch_model(self, name: str) -> None:
        """Load another model; an answer in the making is stopped and kept."""
        model = self.state.model
        if name == model.name and model.phase in ("ready", "loading"):
            return
        if self.state.running is not None:
            self.stop_engine()
            self.dispatch(act.StopAsked())
        self.dispatch(act.ModelAsked(name))

    def action_settings(self) -> None:
        """Change the settings of this conversation."""
        from tui.screens.settings import SettingsScreen  # noqa: PLC0415

        view = self.state.conversation

        def taken(result: tuple[dict[str, Any], str] | None) -> None:
            if result is not None:
                self.dispatch(act.SettingsChanged(*result))

        screen = SettingsScreen(view.settings, view.system, self.ports.preferences.presets)
        self.push_screen(screen, taken)

    def action_system(self, text: str = "") -> None:
        """Set the system prompt: a preset by its name, or a text."""
        presets: Mapping[str, str] = self.ports.preferences.presets
        system = presets.get(text, text)
        self.dispatch(act.SettingsChanged(self.state.conversation.settings, system))
        what = f"The preset {text} is" if text in presets else "The system prompt is"
        self.say(f"{what} set." if system else "There is no system prompt now.")

    def action_plan(self) -> None:
        """Draw where the model's layers are."""
        if self.info is not None:
            self.shelf.draw(self.info, min(86, self.size.width - 8))

    def show_plan(self, lines: tuple[str, ...]) -> None:
        """Show a plan that was drawn."""
        from tui.screens.page import Lines  # noqa: PLC0415

        self.push_screen(Lines(f"Plan of {self.state.model.name}", lines))

    def action_export(self, name: str = "") -> bool:
        """Write the conversation to a file."""
        if not name:
            if not self.chat.prompt.text:
                self.chat.prompt.put("/export ")
            self.say("Name a file: /export FILE")
            return False
        try:
            self.say(f"Written to {export.write(self.state, Path(name))}.")
        except LocalseekError as error:
            self.say(str(error))
            return False
        return True

    async def action_editor(self) -> None:
        """Write the prompt in the user's own editor."""
        prompt = self.chat.prompt
        try:
            with self.suspend():
                text = edit(prompt.whole)
        except (LocalseekError, SuspendNotSupported) as error:
            self.say(str(error))
            return
        self.refresh()
        prompt.put(text)
        prompt.focus()

