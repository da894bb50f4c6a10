"""The history's thread: it writes what the state shows, and reads what the screens ask for.

Compares each state with the one before and submits what has to be written: prompts when they are
sent, answers once a second while they grow and when they are over. A history that fails is told of
once, and conversations go on without being saved. Of a temporary conversation it writes nothing.
Knows nothing about Textual or the engine.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from localseek.errors import LocalseekError
from localseek.store.history.database import GoneError, HistoryError
from localseek.store.history.history import History
from localseek.store.history.recorder import WRITE_EVERY_S
from localseek.store.history.records import Saved, title_of
from localseek.store.sequences import SequenceStore
from localseek.text.conversation import Reply
from tui.state import tree
from tui.state.actions import (
    Deleted,
    HistoryFailed,
    Listed,
    Opened,
    Orphaned,
    Recalled,
    Retitled,
    Said,
    Stored,
)
from tui.state.views import AppState, ConversationView, Listing, TurnView
from tui.threads.background import Background

Opener = Callable[[], History]
RECALLED = 200  # prompts of earlier runs that the arrow keys reach
HITS = 50  # places that a search shows
CLOSING_S = 5.0  # to write what is left when the app closes


@dataclass(frozen=True, slots=True)
class Place:
    """Where a turn stands in the history: its conversation and its two messages."""

    conversation: int
    prompt: int
    answer: int


class Archive(Background):
    """The thread that owns the open history; while it is `held`, its jobs wait for a passphrase."""

    def __init__(self, opener: Opener, held: bool = False) -> None:
        super().__init__("history")
        self._opener = opener
        self._gate = threading.Event()
        if held:
            self.submit(self._wait_at_the_gate)
        else:
            self._gate.set()
        self._history: History | None = None
        self._failed = False
        self._numbers: dict[int, int] = {}  # of conversations made here, by key
        self._places: dict[int, Place] = {}  # by turn
        self._written_s: dict[int, float] = {}  # by turn; for the caller's thread only
        self._do(lambda history: self.emit(Recalled(tuple(history.last_prompts(RECALLED)))))

    def let_go(self, opened: bool) -> None:
        """Go on with what waited; if the history cannot be opened, without it."""
        self._failed |= not opened
        self._gate.set()

    def _wait_at_the_gate(self) -> None:
        self._gate.wait()

    # What the state shows

    def saw(self, before: AppState, after: AppState, now: float) -> None:
        """Write what changed between two states."""
        old, new = before.conversation, after.conversation
        if old.key != new.key:
            self.left(before, now)
            if (number := new.number) is not None:
                self._do(lambda _: self._numbers.update({new.key: number}))
            return
        if new.temporary:
            return
        if before.turns is not after.turns:
            self._turns(before, after, now)
        if (old.settings, old.system) != (new.settings, new.system):
            self._change(new, settings=dict(new.settings), system=new.system)
        if before.model.name != after.model.name:
            self._change(new, model=after.model.name)

    def left(self, before: AppState, now: float) -> None:
        """Close what runs or waits in a conversation that is left; the prompts stay."""
        if before.conversation.temporary:
            return
        for turn in before.turns:
            if turn.running or (turn.phase == "waiting" and not turn.goes_on):
                self._write(turn.id, replace(turn.reply, finish_reason="cancelled"), now)

    def _turns(self, before: AppState, after: AppState, now: float) -> None:
        known = {turn.id: turn for turn in (*before.turns, *before.others)}
        present = {turn.id: turn for turn in (*after.turns, *after.others)}
        for number in known.keys() - present.keys():
            self._do(partial(self._drop, number))
        for number, turn in present.items():
            if number not in known:
                place = tree.numbers(after.turns).index(number) + 1
                branch = after.turns[:place]
                self._do(partial(self._add, after.conversation, after.model.name, branch))
            elif known[number] is not turn:
                self._follow(known[number], turn, now)
        if after.last and before.last and after.last.id != before.last.id and known == present:
            self._do(partial(self._leave_at, after.conversation, after.last.id))

    def _follow(self, old: TurnView, turn: TurnView, now: float) -> None:
        """Write on at the answer of one turn, or close it."""
        if turn.phase == "reading" and old.phase == "waiting":
            self._written_s[turn.id] = now
            if turn.goes_on:
                self._at(turn.id, lambda history, place: history.resume_answer(place.answer))
        over = old.running and not turn.running
        due = turn.running and now - self._written_s.get(turn.id, now) >= WRITE_EVERY_S
        if over or due:
            self._write(turn.id, turn.reply, now)

    def _write(self, number: int, reply: Reply, now: float) -> None:
        self._written_s[number] = now
        self._at(number, lambda history, place: history.write_answer(place.answer, reply))

    def _change(self, view: ConversationView, **changes: Any) -> None:
        def change(history: History) -> None:
            if (number := self._numbers.get(view.key)) is not None:
                history.change(number, **changes)

        self._do(change)

    # What the screens ask for

    def look(self, query: str, archived: bool) -> None:
        """List the conversations, or the places where a query is found."""

        def read(history: History) -> None:
            searching = bool(query.strip())
            hits = tuple(history.search(query, HITS)) if searching else ()
            listed = () if searching else tuple(history.conversations(archived))
            self.emit(Listed(Listing(query, archived, listed, hits)))

        self._do(read)

    def open(self, number: int, model: str, message: int | None = None) -> None:
        """Read a conversation; `model` is the one that will answer from now on.

        With a `message`, the branch that it is in is shown.
        """

        def read(history: History) -> None:
            if message is not None:
                history.leave_at(number, message)
            self._open(history, history.conversation(number), model, message)

        self._do(read)

    def rename(self, number: int, title: str) -> None:
        """Give a conversation another title."""

        def change(history: History) -> None:
            history.change(number, title=title)
            self.emit(Retitled(number, title))

        self._do(change)

    def mark(
        self, number: int, *, pinned: bool | None = None, archived: bool | None = None
    ) -> None:
        """Pin or archive a conversation, or undo it."""
        self._do(lambda history: history.change(number, pinned=pinned, archived=archived))

    def delete(self, number: int) -> None:
        """Delete a conversation for good, with what the engine saved of it."""

        def change(history: History) -> None:
            deletion = history.delete([number])
            SequenceStore().remove_named(deletion.sequences)
            keys = tuple(key for key, one in self._numbers.items() if one == number)
            self._forget(number)
            self.emit(Deleted(number, keys))

        self._do(change)

    def keep_sequence(self, key: int, name: str) -> None:
        """Note which file holds what the engine has read of a conversation that is still there."""

        def note(history: History) -> None:
            number = self._numbers.get(key)
            try:
                if number is not None:
                    history.keep_sequence(number, name)
                    return
            except GoneError:
                pass
            SequenceStore().remove_named([name])

        self._do(note)

    def close(self) -> None:
        """Write what is left, and close the history."""
        if not self._gate.is_set():
            self.let_go(opened=False)

        def close() -> None:
            if self._history is not None:
                self._history.close()

        self.submit(close)
        self.finish(CLOSING_S)

    # On the thread

    def _do(self, job: Callable[[History], object]) -> None:
        self.submit(partial(self._try, job))

    def _at(self, turn: int, job: Callable[[History, Place], object]) -> None:
        """Do something at a turn's place; one that could not be saved has none."""

        def do(history: History) -> None:
            if (place := self._places.get(turn)) is not None:
                job(history, place)

        self._do(do)

    def _try(self, job: Callable[[History], object]) -> None:
        if self._failed:
            return
        try:
            if self._history is None:
                self._history = self._opener()
            job(self._history)
        except HistoryError as error:
            self._failed = error.lasting
            self.emit(HistoryFailed(str(error)) if error.lasting else Said(str(error)))
        except LocalseekError as error:
            self.emit(Said(str(error)))

    def _forget(self, number: int) -> None:
        """Let nothing more be written to a conversation that is gone."""
        self._numbers = {key: one for key, one in self._numbers.items() if one != number}
        self._places = {
            turn: place for turn, place in self._places.items() if place.conversation != number
        }

    def _add(
        self, view: ConversationView, model: str, branch: tuple[TurnView, ...], history: History
    ) -> None:
        """Write the last turn of a branch, and those before it that are not there yet.

        What another program has deleted stays deleted: from then on nothing of it is saved.
        """
        try:
            self._add_missing(view, model, branch, history)
        except GoneError as error:
            self._forget(self._numbers[view.key])
            self.emit(Orphaned(view.key))
            self.emit(Said(f"{error} What you ask from here on is not saved."))

    def _add_missing(
        self, view: ConversationView, model: str, branch: tuple[TurnView, ...], history: History
    ) -> None:
        for turn in branch:
            if turn.id in self._places:
                continue
            again = None if turn.again is None else self._places.get(turn.again)
            if again is not None:
                number, prompt = again.conversation, again.prompt
            else:
                known = self._numbers.get(view.key)
                number = known if known is not None else self._new(view, model, turn, history)
                before = None if turn.parent is None else self._places[turn.parent].answer
                prompt = history.add_prompt(number, before, turn.prompt)
            answer = history.begin_answer(number, prompt, model)
            self._places[turn.id] = Place(number, prompt, answer)
            if turn.reply.finish_reason:
                history.write_answer(answer, turn.reply)

    def _new(self, view: ConversationView, model: str, turn: TurnView, history: History) -> int:
        number = history.new(turn.prompt, model, view.system)
        if view.settings:
            history.change(number, settings=dict(view.settings))
        self._numbers[view.key] = number
        self.emit(Stored(view.key, number, title_of(turn.prompt)))
        return number

    def _drop(self, turn: int, history: History) -> None:
        place = self._places.pop(turn, None)
        if place is not None and history.drop_answer(place.answer):
            self._forget(place.conversation)

    def _leave_at(self, view: ConversationView, turn: int, history: History) -> None:
        number, place = self._numbers.get(view.key), self._places.get(turn)
        if number is not None and place is not None:
            history.leave_at(number, place.answer)

    def _open(self, history: History, saved: Saved, model: str, message: int | None) -> None:
        messages = history.all_messages(saved.id)
        turns, others = tree.from_history(messages, saved.leaf)
        followed = {one.id: one.parent for one in messages}
        for turn in (*turns, *others):
            prompt = followed[-turn.id]
            assert prompt is not None  # every turn has one
            self._places[turn.id] = Place(saved.id, prompt, -turn.id)
        view = ConversationView(
            number=saved.id, title=saved.title, system=saved.system, settings=saved.settings
        )
        at = next((turn.id for turn in turns if message in (-turn.id, followed[-turn.id])), None)
        self.emit(Opened(view, turns, others, at))
        if saved.model != model:
            self.emit(Said(f"It was held with {saved.model}; {model} goes on. Ctrl+O switches."))
