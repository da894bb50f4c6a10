"""What the user can do, each verb an action: keys, palette and slash words all end here.

Takes the app's state and gives actions to `dispatch`, which `app.py` provides with the engine
behind it. Keeps no state of the conversation.
"""

from abc import abstractmethod
from collections.abc import Iterable
from inspect import isawaitable
from pathlib import Path
from time import monotonic

from textual.app import App, SystemCommand
from textual.screen import Screen

from localseek.errors import LocalseekError
from localseek.system.files import write_new
from tui import actions as act
from tui import commands, export
from tui.offers import offered
from tui.screens.chat import ChatScreen
from tui.screens.page import Page, help_page
from tui.state import AppState
from tui.wording import clean, statistics

QUIT_AGAIN_S = 2.0


class Verbs(App[None]):
    """An app with the verbs of a conversation."""

    state: AppState
    _quit_pressed_s = -QUIT_AGAIN_S

    @abstractmethod
    def dispatch(self, *actions: act.Action) -> None:
        """Take actions into the state and draw it."""

    @abstractmethod
    def stop_engine(self) -> None:
        """Ask the engine to end the running answer."""

    @property
    def chat(self) -> ChatScreen:
        """Give the chat screen, also while a page lies over it."""
        screen = self.screen_stack[0]
        assert isinstance(screen, ChatScreen)  # the default screen
        return screen

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer only what can be done now."""
        return offered(self.state).get(action, True)

    async def do(self, command: commands.Command, argument: str = "") -> bool:
        """Do what a command says; False when it was not understood."""
        verb = getattr(self, f"action_{command.action}")
        done = verb(argument) if argument else verb()
        if isawaitable(done):
            done = await done
        return done is not False

    def action_stop(self) -> None:
        """End the answer, or take back a prompt that waits."""
        if self.state.running is not None:
            self.stop_engine()
            self.dispatch(act.StopAsked())
        elif self.state.waiting:
            prompt = self.state.waiting[-1].prompt
            self.chat.prompt.put("\n".join(filter(None, [prompt, self.chat.prompt.text])))
            self.dispatch(act.Withdrawn())

    def action_switch_focus(self) -> None:
        """Go between prompt and conversation."""
        self.chat.switch_focus()

    def action_new(self) -> None:
        """Start a new conversation; from an empty one, go back."""
        if self.state.running is not None:
            self.stop_engine()
        self.dispatch(act.NewAsked())
        if self.state.previous:
            self.say("A new conversation. Ctrl+N again brings the last one back.")

    def action_think(self, choice: str = "") -> bool:
        """Switch thinking for the next answers."""
        if choice not in ("", "on", "off"):
            self.say("/think takes on, off or nothing.")
            return False
        now_on = self.state.model.thinks if self.state.think is None else self.state.think
        self.dispatch(act.ThinkSet(choice == "on" if choice else not now_on))
        return True

    def action_fold(self) -> None:
        """Fold all reasoning, or unfold it if all is folded."""
        shown = [turn for turn in self.state.turns if turn.reply.reasoning]
        self.dispatch(act.AllFolded(any(not turn.folded for turn in shown)))

    def action_retry(self) -> None:
        """Ask the last prompt again."""
        self.dispatch(act.RetryAsked())

    def action_restart(self) -> None:
        """Load the model again after it went down."""
        self.dispatch(act.RestartAsked())
        self.chat.prompt.focus()

    def action_copy(self) -> None:
        """Copy the last answer."""
        if not self.state.last_answer:
            return self.say("There is no answer to copy.")
        self.copy_to_clipboard(self.state.last_answer)
        self.say("Answer copied.")

    def action_export(self, name: str = "") -> bool:
        """Write the conversation to a file."""
        if not name:
            self.chat.prompt.put("/export ")
            self.say("Name a file: /export FILE")
            return False
        try:
            path = write_new(Path(name), export.as_markdown(self.state))
        except LocalseekError as error:
            self.say(str(error))
            return False
        self.say(f"Written to {path}.")
        return True

    def action_stats(self) -> None:
        """Show the figures of the last answer."""
        rows = statistics(self.state)
        self.push_screen(Page("Last answer", [rows or [("", "No answer is finished yet.")]]))

    def action_help(self) -> None:
        """Show keys and slash words."""
        self.push_screen(help_page())

    def action_help_quit(self) -> None:
        """Quit on the second Ctrl+C."""
        now = monotonic()
        if now - self._quit_pressed_s < QUIT_AGAIN_S:
            self.exit()
        self._quit_pressed_s = now
        self.say("Press Ctrl+C again to quit.")

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Fill the palette from the table of commands."""
        for command in commands.COMMANDS:
            if self.check_action(command.action, ()):
                callback = getattr(self, f"action_{command.action}")
                yield SystemCommand(command.title, command.help, callback)
        yield SystemCommand("Theme", "Change the colours.", self.action_change_theme)

    def say(self, text: str) -> None:
        """Show a short message for a few seconds."""
        self.notify(clean(text), markup=False, timeout=4)
