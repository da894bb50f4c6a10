"""One conversation written down as it goes on, at most a second behind what is shown.

Takes prompts and the reply so far, after each of its events. A history that cannot be written is
told of once, and the conversation goes on without being saved. Knows nothing about engines or
terminals.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from localseek.store.history.database import GoneError, HistoryError
from localseek.store.history.history import History
from localseek.store.history.records import Message
from localseek.text.conversation import Reply

WRITE_EVERY_S = 1.0  # the most text that a killed program loses, in seconds


class Recorder:
    """Writes to one conversation of a history, which it makes with the first prompt."""

    def __init__(
        self, history: History, model: str, system: str, warn: Callable[[str], None],
        conversation: int | None = None, branch: Sequence[Message] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Go on after `branch` of `conversation`; None: a new one. `warn` is told of a failure."""
        self.conversation, self.model, self.system = conversation, model, system
        self._history: History | None = history
        self._warn, self._clock = warn, clock
        # What the next prompt follows, the last prompt, and what that one follows.
        self._leaf = branch[-1].id if branch else None
        self._prompt = branch[-2].id if len(branch) > 1 else None
        self._before = branch[-2].parent if len(branch) > 1 else None
        self._answer: int | None = None  # that is being written
        self._written_s = 0.0
        self._latest = Reply()

    def asked(self, prompt: str) -> None:
        """Write a prompt, and begin its answer."""
        with self._guard() as history:
            if history is None:
                return
            if self.conversation is None:
                self.conversation = history.new(prompt, self.model, self.system)
            self._before = self._leaf
            self._prompt = history.add_prompt(self.conversation, self._leaf, prompt)
            self._begin(history)

    def asked_instead(self, prompt: str) -> None:
        """Write a prompt in place of the last one, which is kept as a variant."""
        self._leaf = self._before
        self.asked(prompt)

    def goes_on(self, begun: Reply) -> None:
        """Write on at the last answer, which was cut off after `begun`."""
        with self._guard() as history:
            if history is not None and self._leaf is not None:
                history.resume_answer(self._leaf)
                self._answer = self._leaf
                self._latest = replace(begun, finish_reason="")
                self._written_s = self._clock()

    @property
    def place(self) -> tuple[int | None, int | None, int | None]:
        """Give where the conversation stands, for `go_back`."""
        return self._leaf, self._prompt, self._before

    def go_back(self, place: tuple[int | None, int | None, int | None]) -> None:
        """Let the next prompt follow what was there before one that failed."""
        self._leaf, self._prompt, self._before = place

    def asked_again(self) -> None:
        """Begin another answer to the last prompt, a variant of the one before."""
        with self._guard() as history:
            if history is not None and self._prompt is not None:
                self._begin(history)

    def answered(self, reply: Reply) -> None:
        """Note the reply so far; it is written once a second, and when it is finished."""
        self._latest = reply
        due = self._clock() - self._written_s >= WRITE_EVERY_S
        if self._answer is None or not (due or reply.finish_reason):
            return
        with self._guard() as history:
            if history is None:
                return
            history.write_answer(self._answer, reply)
            self._written_s = self._clock()
            if reply.finish_reason:
                self._leaf, self._answer = self._answer, None

    def failed(self, error: str) -> None:
        """Close an answer whose reply never finished; nothing happens if it did."""
        if self._answer is not None:
            self.answered(replace(self._latest, finish_reason="failed", error=error))

    def start_over(self, system: str) -> None:
        """Let the next prompt open a new conversation."""
        self.conversation = self._leaf = self._prompt = self._before = self._answer = None
        self.system = system

    def set_model(self, model: str) -> None:
        """Change the model that answers from now on."""
        self.model = model
        with self._guard() as history:
            if history is not None and self.conversation is not None:
                history.change(self.conversation, model=model)

    def set_system(self, system: str) -> None:
        """Change the system prompt of the conversation."""
        self.system = system
        with self._guard() as history:
            if history is not None and self.conversation is not None:
                history.change(self.conversation, system=system)

    def _begin(self, history: History) -> None:
        if self.conversation is not None and self._prompt is not None:
            self._answer = history.begin_answer(self.conversation, self._prompt, self.model)
            self._latest, self._written_s = Reply(), self._clock()

    @contextlib.contextmanager
    def _guard(self) -> Iterator[History | None]:
        """Give the history, None once it has failed: that ends the saving and not the talk."""
        try:
            yield self._history
        except (HistoryError, GoneError) as error:
            self._history = None
            self._warn(f"{error} This conversation is not saved from here on.")
