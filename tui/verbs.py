"""What the user can do, each verb an action: keys, palette and slash words all end here.

Takes the app's state and gives actions to `dispatch`, which `app.py` provides with the threads
behind it. Verbs about conversations and models are in `lists.py`. Keeps no state of its own but
what a second press means.
"""

from abc import abstractmethod
from collections.abc import Iterable
from inspect import isawaitable
from time import monotonic

from textual.app import App, SystemCommand
from textual.binding import Binding
from textual.dom import DOMNode
from textual.screen import Screen

from localseek.options import ModelInfo
from tui import commands
from tui.ports import Ports
from tui.screens.box import AGAIN_S
from tui.screens.chat import ChatScreen
from tui.screens.page import Page, help_page
from tui.state import actions as act
from tui.state.offers import offered
from tui.state.views import AppState
from tui.state.wording import clean, statistics
from tui.text import finding
from tui.threads.archive import Archive
from tui.threads.shelf import Shelf
from tui.widgets.prompt import Prompt
from tui.widgets.transcript import Transcript


class Verbs(App[None]):
    """An app with the verbs of a conversation."""

    state: AppState
    ports: Ports
    archive: Archive
    shelf: Shelf
    info: ModelInfo | None = None
    _clashes: set[str]  # of keys, that were told
    _pressed = ("", -AGAIN_S)  # what has to be pressed again, and when it was

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
        """Do what a command says; False when it was not understood or cannot be done now."""
        if not self.check_action(command.action, ()):
            self.say(f"/{command.word} has nothing to do now.")
            return False
        verb = getattr(self, f"action_{command.action}")
        done = verb(argument) if argument else verb()
        if isawaitable(done):
            done = await done
        return done is not False

    def again(self, what: str, words: str) -> bool:
        """Tell whether something was asked for twice in a row; say so the first time."""
        now = monotonic()
        confirmed = self._pressed[0] == what and now - self._pressed[1] < AGAIN_S
        self._pressed = ("", -AGAIN_S) if confirmed else (what, now)
        if not confirmed:
            self.say(words)
        return confirmed

    # The answer

    def action_stop(self) -> None:
        """Take back the last prompt that waits, else end the answer."""
        if self.state.waiting:
            taken = self.state.waiting[-1]
            if not taken.goes_on:
                self.put_back(taken.prompt)
            self.dispatch(act.Withdrawn())
        elif self.state.running is not None:
            self.stop_engine()
            self.dispatch(act.StopAsked())

    def put_back(self, text: str) -> None:
        """Put a prompt that was taken back into the box, before what stands there."""
        prompt = self.chat.prompt
        prompt.put("\n".join(filter(None, [text, prompt.whole])))

    def action_switch_focus(self) -> None:
        """Leave the editing of a prompt or a fork, else go between prompt and conversation."""
        prompt = self.chat.prompt
        if prompt.editing is not None and prompt.has_focus:
            prompt.leave()
        elif self.state.forked:
            self.dispatch(act.BranchLeft())
        else:
            self.chat.switch_focus()
            if prompt.has_focus and self.state.selected is not None:
                self.dispatch(act.Selected(None))

    def action_page(self, step: int) -> None:
        """Turn a page of the conversation, also from the prompt."""
        transcript = self.chat.transcript
        turn = transcript.scroll_page_up if step < 0 else transcript.scroll_page_down
        transcript.release_anchor()
        turn(animate=False)

    def action_think(self, choice: str = "") -> bool:
        """Switch thinking for the next answers."""
        if choice not in ("", "on", "off", "auto"):
            self.say("/think takes on, off, auto or nothing.")
            return False
        thinking = self.state.thinking
        wanted = {"on": True, "off": False, "auto": None}.get(choice, thinking is False)
        view = self.state.conversation
        settings = {name: value for name, value in view.settings.items() if name != "think"}
        if wanted is not None:
            settings["think"] = wanted
        self.dispatch(act.SettingsChanged(settings, view.system))
        return True

    def action_fold(self) -> None:
        """Fold all reasoning, or unfold it if all is folded."""
        shown = [turn for turn in self.state.turns if turn.reply.reasoning]
        self.dispatch(act.AllFolded(any(not turn.folded for turn in shown)))

    def action_fold_one(self) -> None:
        """Fold or unfold the reasoning of the chosen turn."""
        if turn := self.state.chosen:
            self.dispatch(act.Folded(turn.id, not turn.folded))

    def action_retry(self) -> None:
        """Answer the chosen prompt again; what there is stays as a variant."""
        if turn := self.state.chosen:
            self.dispatch(act.RetryAsked(turn.id))

    def action_continue(self) -> None:
        """Let the last answer go on where it was cut off."""
        self.dispatch(act.ContinueAsked())

    def action_edit(self) -> None:
        """Put the chosen prompt into the box, to be sent anew."""
        if turn := self.state.chosen:
            self.chat.prompt.rewrite(turn.id, turn.prompt)

    def action_fork(self) -> None:
        """Go back to the chosen turn: what is asked next follows it."""
        if turn := self.state.chosen:
            self.dispatch(act.BranchAsked(turn.id))
            self.chat.prompt.focus()

    def action_variant(self, step: int) -> None:
        """Show the variant before or after."""
        if turn := self.state.chosen:
            self.dispatch(act.VariantAsked(turn.id, step))

    def action_restart(self) -> None:
        """Load the model again after it went down."""
        self.dispatch(act.RestartAsked())
        self.chat.prompt.focus()

    # Reading

    def action_copy(self) -> None:
        """Copy the chosen answer, or the last one."""
        turn = self.state.turn(self.state.selected)
        text = turn.reply.answer if turn and turn.reply.answer else self.state.last_answer
        self.take_along(text, "Answer copied.")

    def action_copy_code(self, which: str = "") -> bool:
        """Copy a code block of the chosen answer."""
        turn = self.state.turn(self.state.selected)
        blocks = finding.code_blocks(turn.reply.answer if turn else self.state.last_answer)
        if not blocks:
            self.say("There is no code block in this answer.")
            return False
        number = int(which) if which.isascii() and which.isdigit() else 1 if not which else 0
        if not 1 <= number <= len(blocks):
            self.say(f"There are {len(blocks)} code blocks: /code 1 to {len(blocks)}.")
            return False
        of = f" {number} of {len(blocks)}" if len(blocks) > 1 else ""
        self.take_along(blocks[number - 1], f"Code block{of} copied.")
        return True

    def take_along(self, text: str, words: str) -> None:
        """Copy text and say so."""
        self.copy_to_clipboard(text)
        self.say(words)

    def copy_to_clipboard(self, text: str) -> None:
        """Copy through the terminal, and with a program of the system's if there is one."""
        super().copy_to_clipboard(text)
        self.run_worker(lambda: self.ports.copy(text), thread=True, exclusive=True, group="copy")

    def action_find(self, text: str = "") -> None:
        """Find a text in the conversation."""
        self.chat.find.open(text)

    def action_stats(self) -> None:
        """Show the figures of the chosen answer."""
        rows = statistics(self.state.chosen)
        if self.info is not None:
            network = ("network", self.state.model.network or "unknown")
            rows = [*rows, ("model", clean(self.info.description)), network]
        self.push_screen(Page("Answer", [rows or [("", "No answer is finished yet.")]]))

    def action_help(self) -> None:
        """Show keys, slash words and the names of bindings."""
        self.push_screen(help_page(self.binding_keys))

    @property
    def binding_keys(self) -> dict[str, str]:
        """Give the keys of each binding that settings.toml can change, by its name."""
        classes = (type(self), Prompt, Transcript)
        known = [one for kind in classes for one in kind.BINDINGS if isinstance(one, Binding)]
        own = self.ports.preferences.keys
        return {one.id: own.get(one.id, one.key) for one in known if one.id}

    def unknown_bindings(self) -> str:
        """Say which names in settings.toml are no bindings, "" if all are."""
        unknown = sorted(self.ports.preferences.keys.keys() - self.binding_keys.keys())
        names = ", ".join(unknown)
        return f"settings.toml: there is no binding {names}; F1 lists them." if unknown else ""

    def handle_bindings_clash(self, clashed_bindings: set[Binding], node: DOMNode) -> None:
        """Say once that two bindings have one key."""
        names = ", ".join(sorted(one.id or one.description for one in clashed_bindings))
        if names not in self._clashes:
            self._clashes.add(names)
            self.call_later(self.say, f"settings.toml: another binding has the key of {names}.")

    def action_help_quit(self) -> None:
        """Quit on the second Ctrl+C."""
        if self.again("quit", "Press Ctrl+C again to quit."):
            self.exit()

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
