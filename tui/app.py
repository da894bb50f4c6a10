"""The terminal app: it holds the state, reduces actions into it, and does what the state asks.

Takes a model path and `GenerationOptions`, gives an exit status. Behaviour is in `reduce.py`,
drawing in the widgets; here is only the border between them: keys and slash words in, engine jobs
out.
"""

import sys
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Markdown

from localseek.engine.process.client import Engine
from localseek.options import GenerationOptions, Request
from tui import actions as act
from tui import commands, export
from tui.offers import offered
from tui.reduce import next_turn, reduce, wants_load
from tui.screens.chat import ChatScreen
from tui.session import EngineFactory, Session
from tui.state import AppState, ModelView, TurnView
from tui.theme import DARK, LIGHT
from tui.verbs import Verbs
from tui.widgets.prompt import Prompt
from tui.widgets.reasoning import Reasoning
from tui.wording import clean

FRAME_S = 1 / 30  # how often the inbox is emptied; text that comes in between is merged


class LocalseekApp(Verbs):
    """One conversation with one model."""

    CSS_PATH = Path(__file__).with_name("app.tcss")
    TITLE = "localseek"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop", key_display="esc", id="app.stop"),
        Binding("escape", "switch_focus", "Conversation", key_display="esc", id="app.focus"),
        Binding("ctrl+l", "fold", "Reasoning", id="app.fold"),
        Binding("ctrl+t", "think", "Thinking on/off", id="app.think"),
        Binding("ctrl+n", "new", "New", id="app.new"),
        Binding("f1", "help", "Help", id="app.help"),
        Binding("ctrl+q", "quit", "Quit", priority=True, id="app.quit"),
    ]

    def __init__(
        self, model_path: Path, options: GenerationOptions, engine_factory: EngineFactory = Engine
    ) -> None:
        super().__init__()
        self.options = options
        model = ModelView(clean(model_path.stem))
        self.state = AppState(model, system=options.system, think=options.request.think)
        self.unsent = ""  # what is in the prompt, kept here so that a crash cannot take it
        self._session = Session(engine_factory, options.load_options(model_path))
        self._offers: dict[str, bool] = {}
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = DARK.name

    def get_default_screen(self) -> Screen[None]:
        """Start with the chat."""
        return ChatScreen(id="chat")

    def on_chat_screen_drawn(self) -> None:
        """Draw first, then load the model."""
        self._session.load()
        self._frames = self.set_interval(FRAME_S, self._frame)
        self._show()

    def dispatch(self, *actions: act.Action) -> None:
        """Take actions into the state, start what it asks for, and draw it."""
        for action in actions:
            before, self.state = self.state, reduce(self.state, action, monotonic())
            if wants_load(before, self.state, action):
                self._session.load()
        if turn := next_turn(self.state):
            request = self._request(turn)
            self.state = reduce(self.state, act.Started(turn.id), monotonic())
            self._session.generate(turn.id, request)
        if self.state.busy:
            self._frames.resume()
        self._show()

    def stop_engine(self) -> None:
        """Ask the engine to end the running answer."""
        self._session.cancel()

    def close_session(self) -> None:
        """End the engine; the app is over."""
        self._session.close()

    def _request(self, turn: TurnView) -> Request:
        request = self.options.request_for(self.state.messages_for(turn.id))
        return replace(request, think=self.state.think)

    def _frame(self) -> None:
        if not self.screen_stack:
            return  # the app is closing, and its last tick came after the screens went
        arrived = self._session.take()
        if arrived:
            self.dispatch(*arrived)
        elif self.state.busy:
            self._show()  # the seconds go on
        else:
            self._frames.pause()

    def _show(self) -> None:
        self.chat.show(self.state, monotonic())
        offers = offered(self.state)
        if offers != self._offers:
            self._offers = offers
            self.chat.refresh_bindings()

    async def on_prompt_sent(self, event: Prompt.Sent) -> None:
        """Send a prompt, or do what a slash word says."""
        slash = commands.parse_slash(event.text)
        if slash is None:
            self.chat.prompt.accept()
            self.dispatch(act.Submitted(event.text))
            return
        word, argument = slash
        command = commands.by_word(word)
        if command is None:
            self.say(f"There is no /{word}; /help lists all. To send it, begin with a space.")
        elif argument and not command.argument:
            self.say(f"/{word} takes nothing after it.")
        elif await self.do(command, argument):
            self.chat.prompt.accept()

    def on_text_area_changed(self, event: Prompt.Changed) -> None:
        """Keep the unsent text where a crash cannot take it."""
        self.unsent = event.text_area.text

    def on_reasoning_toggled(self, event: Reasoning.Toggled) -> None:
        """Fold or unfold one reasoning."""
        self.dispatch(act.Folded(event.turn, event.folded))

    def on_markdown_link_clicked(self, event: Markdown.LinkClicked) -> None:
        """Say where a link leads; nothing is opened."""
        self.copy_to_clipboard(event.href)
        self.say(f"Copied, not opened: {event.href}")


def run(model_path: Path, options: GenerationOptions) -> int:
    """Run the app until the user leaves; gives the exit status."""
    return run_app(LocalseekApp(model_path, options))


def run_app(app: LocalseekApp, *, headless: bool = False) -> int:
    """Run an app, end its engine, and save the conversation if the app crashed."""
    crashed = True
    try:
        app.run(headless=headless)
        crashed = bool(app.return_code)
    finally:
        app.close_session()
        if crashed:
            saved = export.recover(app.state, app.unsent)
            if saved:
                print(f"The app failed. The conversation is saved in {saved}", file=sys.stderr)
    return 1 if crashed else 0
