"""The history's thread alone: states in, a database out. No screen is needed for it."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest

from localseek.events import AnswerDelta, Failed, Finished, ReasoningDelta, Stats
from localseek.options import ModelInfo
from localseek.store.history.history import History
from localseek.store.history.records import Message
from localseek.store.sequences import SequenceStore
from localseek.text.conversation import Reply
from tui.state import actions as act
from tui.state import tree
from tui.state.reduce import reduce
from tui.state.views import AppState, ConversationView, ModelView
from tui.threads.archive import Archive

INFO = ModelInfo("/m", "M", "deepseek2", "d", 1, 1, 4096, 4096, drafting=True, thinks=True)
STOP = Finished("stop", Stats())


class Window:
    """One app without a screen: a state, and the archive that sees each change of it."""

    def __init__(self, temporary: bool = False) -> None:
        self.archive = Archive(History)
        self.state = AppState(ModelView("nano"), ConversationView(temporary=temporary))
        self.seen: list[act.Action] = []
        self.do(act.Loaded(INFO))

    def do(self, *actions: act.Action, now: float = 0.0) -> None:
        for action in actions:
            before, self.state = self.state, reduce(self.state, action, now)
            self.archive.saw(before, self.state, now)

    def ask(self, prompt: str, *texts: str, now: float = 0.0) -> None:
        self.do(act.Submitted(prompt), now=now)
        self.do(act.Started(self.state.last.id), now=now)
        self.stream(*(AnswerDelta(text, 1) for text in texts), now=now)

    def stream(self, *events, now: float = 0.0) -> None:
        self.do(*(act.Streamed(self.state.last.id, event) for event in events), now=now)

    def settle(self) -> list[act.Action]:
        """Wait until the thread has done all, and take what it said."""
        deadline = monotonic() + 60
        while self.archive._unfinished:
            assert monotonic() < deadline
            sleep(0.002)
        arrived = self.archive.take()
        self.do(*arrived)
        self.seen += arrived
        return arrived

    def close(self) -> None:
        self.archive.left(self.state, 0.0)
        self.archive.close()


@pytest.fixture
def window():
    opened = Window()
    yield opened
    opened.close()


def saved(number=None):
    with History() as history:
        one = history.named(str(number or ""))
        return one, [(m.content, m.finish_reason) for m in history.branch(one.leaf)]


def test_a_prompt_is_saved_when_it_is_sent_and_its_answer_once_a_second(window):
    window.ask("why?", "Bec", now=10.0)
    window.settle()
    assert saved()[1] == [("why?", ""), ("", "")]
    window.stream(AnswerDelta("aus", 1), now=10.9)
    window.settle()
    assert saved()[1][1] == ("", "")
    window.stream(AnswerDelta("e", 1), now=11.0)
    window.settle()
    assert saved()[1][1] == ("Because", "")
    window.stream(AnswerDelta("!", 1), now=11.5)
    window.stream(STOP, now=11.6)
    window.settle()
    assert saved()[1][1] == ("Because!", "stop")
    assert window.state.conversation.title == "why?"


def test_prompts_that_wait_are_saved_in_their_order_and_taken_back_without_a_trace(window):
    window.ask("one", "1")
    window.do(act.Submitted("two"), act.Submitted("three"), act.Withdrawn())
    window.settle()
    assert [text for text, _ in saved()[1]] == ["one", "", "two", ""]
    window.do(act.Withdrawn())
    window.stream(STOP)
    window.settle()
    assert saved()[1] == [("one", ""), ("1", "stop")]


def test_a_conversation_that_is_left_keeps_what_was_there(window):
    window.ask("one", "half an ans")
    window.do(act.NewAsked())
    window.ask("other", "x")
    window.stream(STOP)
    window.settle()
    with History() as history:
        assert [one.title for one in history.conversations()] == ["other", "one"]
    assert saved(1)[1] == [("one", ""), ("half an ans", "cancelled")]


def test_failures_are_kept_with_their_words(window):
    window.ask("one", "half")
    window.stream(Failed("It died.", "See log.", fatal=True))
    window.settle()
    with History() as history:
        answer = history.branch(history.named("").leaf)[-1]
    assert (answer.content, answer.finish_reason, answer.error) == (
        "half", "failed", "It died. See log."
    )  # fmt: skip


def test_of_a_temporary_conversation_nothing_is_written(window, temporary_home):
    secret = Window(temporary=True)
    secret.ask("secret words", "and more")
    secret.stream(STOP)
    secret.do(act.SettingsChanged({"seed": 1}, "secret system"), act.NewAsked(temporary=True))
    secret.ask("secret words", "and more")
    secret.settle()
    secret.close()
    for file in temporary_home.rglob("*"):
        assert not file.is_file() or b"secret" not in file.read_bytes(), file


def test_settings_system_prompt_and_model_are_the_conversations_own(window):
    window.do(act.SettingsChanged({"temperature": 0.5}, "Be brief."))
    window.ask("one", "1")
    window.stream(STOP)
    window.do(act.SettingsChanged({"temperature": 0.7}, "Be long."), act.ModelAsked("other"))
    window.settle()
    one, _ = saved()
    assert (one.settings, one.system, one.model) == ({"temperature": 0.7}, "Be long.", "other")
    window.do(act.NewAsked())
    window.archive.open(one.id, "nano")
    window.settle()
    view = window.state.conversation
    assert (view.number, view.settings, view.system) == (one.id, {"temperature": 0.7}, "Be long.")
    assert any(isinstance(a, act.Said) and "held with other" in a.text for a in window.seen)


def test_an_opened_conversation_goes_on_with_variants_and_answers(window):
    window.ask("one", "1")
    window.stream(STOP)
    window.ask("two", "2")
    window.stream(Finished("length", Stats()))
    window.settle()
    again = Window()
    again.archive.open(1, "nano")
    again.settle()
    again.do(act.ContinueAsked(), act.Started(again.state.last.id))
    again.stream(AnswerDelta(" and on", 1), STOP)
    again.do(act.RetryAsked(again.state.turns[0].id))
    again.do(act.Started(again.state.last.id))
    again.stream(AnswerDelta("other", 1), STOP)
    again.settle()
    with History() as history:
        texts = [m.content for m in history.all_messages(1)]
        assert texts == ["one", "1", "two", "2 and on", "other"]
        assert [m.content for m in history.branch(history.named("1").leaf)] == ["one", "other"]
        assert [hit.excerpt for hit in history.search("and on")] == ["2 and on"]
    again.do(act.VariantAsked(again.state.last.id, -1))
    again.settle()
    again.close()
    assert [text for text, _ in saved()[1]] == ["one", "1", "two", "2 and on"]


def test_two_windows_on_one_conversation_lose_nothing(window):
    window.ask("one", "1")
    window.stream(STOP)
    window.settle()
    other = Window()
    other.archive.open(1, "nano")
    other.settle()
    for each, name in ((window, "mine"), (other, "theirs")):
        each.ask(f"{name}?", name)
    for each in (window, other):
        each.stream(STOP)
        each.settle()
    other.close()
    with History() as history:
        texts = [m.content for m in history.all_messages(1)]
    assert sorted(texts) == sorted(["one", "1", "mine?", "mine", "theirs?", "theirs"])


def test_a_deleted_conversation_takes_its_saved_sequence_along(window):
    window.ask("one", "1")
    window.stream(STOP)
    window.settle()
    store = SequenceStore()
    path = store.write("m", [memoryview(b"what was read")])
    window.archive.keep_sequence(window.state.conversation.key, path.name)
    window.archive.delete(1)
    window.settle()
    assert store.list() == [] and window.state.turns == ()
    with History() as history:
        assert history.conversations(archived=None) == []


def newer(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_bytes(b"no database" * 500), "is damaged"),
        (newer, "newer localseek"),
        (lambda path: path.mkdir(), "cannot be"),
    ],
)
def test_a_history_that_cannot_be_used_is_said_once_and_left_alone(temporary_home, spoil, words):
    folder = temporary_home / "history"
    folder.mkdir(parents=True)
    path = folder / "history.sqlite3"
    spoil(path)
    before = path.read_bytes() if path.is_file() else b""
    window = Window()
    window.ask("one", "1")
    window.stream(STOP)
    window.archive.look("", False)
    window.settle()
    told = [one for one in window.seen if isinstance(one, act.HistoryFailed)]
    assert len(told) == 1 and words in told[0].message
    assert words in window.state.unsaved and window.state.last.reply.answer == "1"
    window.close()
    assert (path.read_bytes() if path.is_file() else b"") == before


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_tui_archive import Window
from localseek.events import AnswerDelta, ReasoningDelta
window = Window()
window.ask("why?", now=0.0)
for tick in range(50):
    window.stream(AnswerDelta(f"word{tick} ", 1), now=tick / 10)
    window.settle()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_loses_a_second_of_text_at_most(temporary_home):
    here = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", KILLED, here], env=os.environ, check=False)
    assert done.returncode == -9
    _, messages = saved()
    answer, reason = messages[1]
    words = answer.split()
    assert words == [f"word{n}" for n in range(len(words))] and len(words) >= 40
    assert reason == "interrupted"
    window = Window()
    window.archive.open(1, "nano")
    window.settle()
    assert window.state.last.can_go_on
    window.close()


def test_reasoning_is_kept_beside_the_answer(window):
    window.ask("why?")
    window.stream(ReasoningDelta("hm", 1), AnswerDelta("so", 1), STOP)
    window.settle()
    with History() as history:
        answer = history.branch(history.named("").leaf)[-1]
    assert (answer.reasoning, answer.content) == ("hm", "so")


def failures(window):
    return [one for one in window.seen if isinstance(one, act.HistoryFailed)]


def test_after_a_conversation_was_deleted_the_next_one_is_saved(window):
    window.ask("one", "1")
    window.stream(STOP)
    window.settle()
    key = window.state.conversation.key
    window.archive.delete(1)
    window.settle()
    assert any(isinstance(one, act.Deleted) and one.keys == (key,) for one in window.seen)
    path = SequenceStore().write("m", [memoryview(b"what was read")])
    window.archive.keep_sequence(key, path.name)
    window.ask("two", "2")
    window.stream(STOP)
    window.settle()
    assert not failures(window) and SequenceStore().list() == []
    assert [text for text, _ in saved()[1]] == ["two", "2"]


def test_what_another_program_deleted_stays_deleted(window):
    window.ask("one", "secret 1")
    window.stream(STOP)
    window.settle()
    with History() as history:
        history.delete([1])
    window.ask("two", "2")
    window.stream(STOP)
    window.settle()
    assert not failures(window) and window.state.conversation.temporary
    assert any(isinstance(said, act.Said) and "not saved" in said.text for said in window.seen)
    assert b"secret" not in window.archive._history.path.read_bytes()
    window.do(act.NewAsked())
    window.ask("three", "3")
    window.stream(STOP)
    window.settle()
    with History() as history:
        assert [one.title for one in history.conversations()] == ["three"]


def test_a_locked_history_is_said_and_what_was_missed_is_written_later(
    temporary_home, monkeypatch
):
    monkeypatch.setattr("localseek.store.history.database.WAIT_S", 0.05)
    window = Window()
    window.ask("one", "1")
    window.stream(STOP)
    window.settle()
    with sqlite3.connect(window.archive._history.path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        window.ask("two", "2")
        window.stream(STOP)
        window.settle()
        other.execute("ROLLBACK")
    assert not failures(window)
    assert any(isinstance(said, act.Said) and "locked" in said.text for said in window.seen)
    window.ask("three", "3")
    window.stream(STOP)
    window.settle()
    texts = [text for text, _ in saved()[1]]
    window.close()
    assert texts == ["one", "1", "two", "2", "three", "3"]


def test_a_retry_that_is_taken_back_leaves_the_conversation_at_its_end(window):
    for prompt in ("one", "two"):
        window.ask(prompt, f"answer to {prompt}")
        window.stream(STOP)
    window.do(act.RetryAsked(window.state.turns[0].id), act.Withdrawn())
    window.settle()
    assert [text for text, _ in saved()[1]][::2] == ["one", "two"]
    window.do(act.Submitted("edited", edits=window.state.turns[1].id), act.Withdrawn())
    window.settle()
    assert [text for text, _ in saved()[1]][::2] == ["one", "two"]


def test_prompts_that_wait_when_the_app_closes_are_kept(temporary_home):
    window = Window()
    window.ask("one", "half")
    window.do(act.Submitted("two"))
    window.close()
    assert saved()[1] == [("one", ""), ("half", "cancelled"), ("two", ""), ("", "cancelled")]


def test_an_answer_that_another_program_writes_is_shown_and_left_alone(window):
    with History() as history:
        number = history.new("q", "nano")
        answer = history.begin_answer(number, history.add_prompt(number, None, "q"), "nano")
        history.write_answer(answer, Reply("", "half"))
        history._db.execute("UPDATE message SET writer = '1 0.00' WHERE id = ?", (answer,))
        history.write_answer(answer, Reply("", "overwritten"))
        assert history.branch(answer)[-1].content == "half"
    turns, _ = tree.from_history([
        Message(1, None, "user", "q"), Message(2, 1, "assistant", "half", finish_reason=""),
    ], 2)  # fmt: skip
    assert not turns[0].can_go_on and "Another window" in turns[0].notices[0]
