"""The terminal app: it holds the state, reduces actions into it, and does what the state asks.

Takes `GenerationOptions` and the ports to the world. Behaviour is in `reduce.py`, drawing in the
widgets, verbs in `verbs.py` and `lists.py`; here is only the border between them: keys and slash
words in, jobs for the engine, the history and the models out.
"""

import asyncio
import contextlib
import gc
import os
import signal
from dataclasses import replace
from pathlib import Path
from time import monotonic, thread_time
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.driver import Driver
from textual.screen import Screen
from textual.theme import Theme
from textual.widgets import Button, TextArea

from localseek.errors import UsageError
from localseek.options import GenerationOptions, Request
from localseek.terminal.settings import with_row
from tui import commands
from tui.lists import Lists
from tui.outliving import outliving
from tui.ports import Ports
from tui.providers import PROVIDERS
from tui.screens.chat import ChatScreen
from tui.screens.choosing import Choosing
from tui.state import actions as act
from tui.state.offers import offered
from tui.state.reduce import next_turn, reduce, wants_load
from tui.state.views import AppState, ConversationView, ModelView, TurnView
from tui.state.wording import clean
from tui.text import finding
from tui.text.prompts import PromptHistory
from tui.theme import DARK, LIGHT
from tui.threads.archive import Archive
from tui.threads.session import Session
from tui.threads.shelf import Shelf
from tui.widgets.find import FindLine
from tui.widgets.prompt import Prompt
from tui.widgets.transcript import Transcript

if TYPE_CHECKING:
    from textual.widgets import Markdown

    from tui.widgets.reasoning import Reasoning

FRAME_S = 1 / 30  # how often the inboxes are emptied at most; text that comes between is merged
IDLE_FRAME_S = 0.25  # where nothing came: the seconds go on
# A picture takes 2 ms of a core, with a new line 25, and an engine that uses all of them waits as
# long: while it answers, drawing takes the smaller share of the time, else the larger; but no
# picture comes later than that.
SHARES, LATEST_S = (1 / 25, 1 / 2), 0.5


class LocalseekApp(Lists):
    """Conversations with a model, one at a time on the screen."""

    CSS_PATH = Path(__file__).with_name("app.tcss")
    TITLE = "localseek"
    COMMANDS = Lists.COMMANDS | PROVIDERS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop", key_display="esc"),
        Binding("escape", "switch_focus", "Messages", key_display="esc"),
        Binding("ctrl+r", "conversations", "Conversations", id="app.conversations"),
        Binding("ctrl+o", "models", "Models", id="app.models"),
        Binding("ctrl+n", "new", "New", id="app.new"),
        Binding("ctrl+t", "think", "Thinking", id="app.think"),
        Binding("ctrl+l", "fold", "Reasoning", id="app.fold"),
        Binding("ctrl+f", "find", "Find", show=False, id="app.find"),
        Binding("f1", "help", "Help", id="app.help"),
        Binding("f2", "settings", "Settings", show=False, id="app.settings"),
        Binding("ctrl+q", "quit", "Quit", priority=True, id="app.quit"),
    ]

    def __init__(self, options: GenerationOptions, ports: Ports, temporary: bool = False) -> None:
        super().__init__()
        self.options, self.ports = options, ports
        self.state = AppState(
            ModelView(clean(options.model)),
            ConversationView(system=options.system, temporary=temporary),
            think=options.request.think,
            reasoning=ports.preferences.reasoning,
        )
        self._clashes = set()
        self.unsent = ""  # what is in the prompt, kept here so that a crash cannot take it
        self._session = Session(ports.engine, ports.prepare)
        self.archive = Archive(ports.history, held=self.must_unlock)
        self.shelf = Shelf(ports.look_around, options.load)
        self._threads = (self._session, self.archive, self.shelf)
        self._offers: dict[str, bool] = {}
        self._share = SHARES[1]
        self._framed = (0.0, 0.0)  # wall and CPU seconds of the last picture
        self._found = ("", 0)  # what is looked for, and how many places on
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        wanted = ports.preferences.theme
        self.theme = wanted if wanted in self.available_themes else DARK.name
        self.animation_level = ports.preferences.animation or self.animation_level
        self.set_keymap(dict(ports.preferences.keys))

    def get_driver_class(self) -> type[Driver]:
        """Draw on a terminal that may be closed."""
        return outliving(super().get_driver_class())

    def get_default_screen(self) -> Screen[None]:
        """Start with the chat."""
        return ChatScreen(id="chat")

    def on_mount(self) -> None:
        """Leave in good order when the terminal is closed, or the system ends the program."""
        with contextlib.suppress(NotImplementedError, RuntimeError):  # not every loop can
            for number in (signal.SIGHUP, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, self.exit)

    def on_chat_screen_drawn(self) -> None:
        """Draw first, then load the model."""
        self._frames = self.set_interval(FRAME_S, self._frame)
        for thread in self._threads:
            thread.wake = self._frames.resume
        if self.must_unlock:
            self.ask_passphrase()
        else:
            self.load_model()
        self.chat.prompt.enter_sends = self.ports.preferences.enter_sends
        self.chat.prompt.words = commands.words()
        for complaint in (self.ports.preferences.complaint, self.unknown_bindings()):
            if complaint:
                self.say(complaint)
        self.theme_changed_signal.subscribe(self, self._keep_theme)
        self.archive.look("", False)
        self._show()

    def load_model(self) -> None:
        """Load the model that the state names."""
        self._session.load(self.state.model.name)

    def _keep_theme(self, theme: Theme) -> None:
        try:
            self.ports.save_theme(theme.name)
        except (OSError, ValueError) as error:
            self.say(f"The theme is not remembered: {error}.")

    def dispatch(self, *actions: act.Action) -> None:
        """Take actions into the state, start what it asks for, write it down, and draw it."""
        now = monotonic()
        for action in actions:
            before, self.state = self.state, reduce(self.state, action, now)
            if wants_load(before, self.state, action):
                self._session.load(self.state.model.name)
            self.archive.saw(before, self.state, now)
            self._act(action)
        if turn := next_turn(self.state):
            self._start(turn, now)
        self._show()

    @property
    def busy(self) -> bool:
        """Tell whether anything can come from a thread."""
        return self.state.busy or any(thread.busy for thread in self._threads)

    def stop_engine(self) -> None:
        """Ask the engine to end the running answer."""
        self._session.cancel()

    def close_session(self) -> None:
        """End the threads; what runs is kept as far as it came, and what was read of it saved."""
        self.archive.left(self.state, monotonic())
        self._session.close()
        for action in self._session.take():
            if isinstance(action, act.Kept):
                self.archive.keep_sequence(action.key, action.name)
        self.archive.close()

    def _act(self, action: act.Action) -> None:
        """Do what of an action is not the state's."""
        match action:
            case act.Loaded(info=info):
                self.info = info
                spare = (os.cpu_count() or 1) > int(info.placement.get("threads", 1))
                self._share = SHARES[spare]
                if not gc.get_freeze_count():
                    gc.collect()
                    gc.freeze()  # what is there by now stays: looking it through takes 0.1 s
            case act.Said(text):
                self.say(text)
            case act.Kept(key, name):
                self.archive.keep_sequence(key, name)
            case act.Recalled(prompts):
                own = self.chat.prompt.prompts
                sent = (*prompts, *own.sent)
                self.chat.prompt.prompts = PromptHistory(sent, own.at + len(prompts), own.draft)
            case act.Opened(at=int(number)):
                self.call_after_refresh(self.chat.transcript.reveal, number)
            case act.PlanDrawn(lines):
                self.show_plan(lines)
            case act.HistoryFailed(message):
                self.say(f"{message} What you write from here on is not saved.")
            case act.Deleted(keys=keys):
                self._session.forget(keys)
                if self.state.running is not None and not self.state.turn(self.state.running):
                    self.stop_engine()
                self.archive.look("", False)
            case act.Stored() | act.Retitled():
                self.archive.look("", False)

    def _start(self, turn: TurnView, now: float) -> None:
        view = self.state.conversation
        try:
            request = self._request(turn)
        except UsageError as error:  # a saved setting that this version does not take
            self.dispatch(act.Withdrawn(turn.id))
            self.put_back(turn.prompt)
            self.say(str(error))
            return
        before, self.state = self.state, reduce(self.state, act.Started(turn.id), now)
        self.archive.saw(before, self.state, now)
        kept = None if view.temporary or self.state.unsaved else view.key
        self._session.generate(turn.id, request, kept)

    def _request(self, turn: TurnView) -> Request:
        options = with_row(self.options, self.state.conversation.settings)
        request = options.request_for(self.state.messages_for(turn.id))
        request = replace(request, think=self.state.thinking, keep=False)
        if not turn.goes_on:
            return request
        begun = (turn.reply.reasoning, turn.reply.answer)
        return replace(request, begun_reasoning=begun[0], begun_answer=begun[1])

    def _frame(self) -> None:
        if not self.screen_stack:
            return  # the app is closing, and its last tick came after the screens went
        wall, cpu = monotonic(), thread_time()
        elapsed, spent = wall - self._framed[0], cpu - self._framed[1]
        if self.state.running is not None and elapsed < min(LATEST_S, spent / self._share):
            return
        arrived = [*self.archive.take(), *self.shelf.take(), *self._session.take()]
        if arrived:
            self.dispatch(*arrived)
        elif not self.busy:
            self._frames.pause()
        elif elapsed < IDLE_FRAME_S:
            return
        else:
            self._show()
        self._framed = (wall, cpu)

    def _show(self) -> None:
        self.chat.show(self.state, monotonic())
        for screen in self.screen_stack[1:]:
            if isinstance(screen, Choosing) and screen.is_attached:
                screen.show(self.state)
        offers = offered(self.state)
        if offers != self._offers:
            self._offers = offers
            self.chat.refresh_bindings()

    async def on_prompt_sent(self, event: Prompt.Sent) -> None:
        """Take a prompt, or do what a slash word says; what cannot be done is put back."""
        slash = commands.parse_slash(event.typed)
        if slash is not None:
            done = await self._word(*slash)
        else:
            done = event.edits is None or self.state.settled
            if done:
                self.dispatch(act.Submitted(event.text, event.edits))
            else:
                self.say("An answer is running: Esc stops it.")
        prompt = self.chat.prompt
        if not done and not prompt.text:
            prompt.put(event.whole)
            if event.edits is not None:
                prompt.rewrite(event.edits, event.whole)

    async def _word(self, word: str, argument: str) -> bool:
        command = commands.by_word(word)
        if command is None:
            self.say(f"There is no /{word}; /help lists all. To send it, begin with a space.")
        elif argument and not command.argument:
            self.say(f"/{word} takes nothing after it.")
        else:
            return await self.do(command, argument)
        return False

    def on_prompt_refused(self, event: Prompt.Refused) -> None:
        """Say why a prompt cannot be sent."""
        self.say(event.why)

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        """Keep the unsent text where a crash cannot take it."""
        if event.text_area is self.chat.prompt:
            self.unsent = self.chat.prompt.whole

    def on_reasoning_toggled(self, event: "Reasoning.Toggled") -> None:
        """Fold or unfold one reasoning."""
        self.dispatch(act.Folded(event.turn, event.folded))

    def on_transcript_chosen(self, event: Transcript.Chosen) -> None:
        """Select a turn."""
        self.dispatch(act.Selected(event.turn))

    def on_find_line_wanted(self, event: FindLine.Wanted) -> None:
        """Go to a place that holds a text."""
        places = finding.holding(self.state.turns, event.text)
        known, at = self._found
        at = at + event.step if event.text == known else len(places) - 1  # the newest first
        at = at % len(places) if places else 0
        self._found = (event.text, at)
        self.chat.find.tell(at + 1, len(places))
        if places:
            self.dispatch(act.Selected(places[at]))
            self.chat.transcript.reveal(places[at])

    def on_find_line_closed(self) -> None:
        """Go on in the conversation, at the place that was found."""
        self._found = ("", 0)
        self.chat.transcript.focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Restart the model."""
        self.action_restart()

    def on_markdown_link_clicked(self, event: "Markdown.LinkClicked") -> None:
        """Say where a link leads; nothing is opened."""
        self.take_along(event.href, f"Copied, not opened: {event.href}")
