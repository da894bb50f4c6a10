"""The history while the clock jumps, and with bytes of its file damaged at random."""

import os
import random
import subprocess
import sys

import psutil
import pytest

from localseek.errors import LocalseekError
from localseek.events import DraftStats, Stats
from localseek.store.history.history import History
from localseek.system import running
from localseek.text.conversation import Reply

STATS = Stats(12, 4, 100.0, 19, 9, 42.5, 0.5, 31, 2048, DraftStats(10, 10, 9, [0.9], 1.0, 1.9))


def talk(history: History, prompt: str, answer: str) -> int:
    number = history.new(prompt, "nano")
    begun = history.begin_answer(number, history.add_prompt(number, None, prompt), "nano")
    history.write_answer(begun, Reply("because", answer, "stop", STATS))
    return number


@pytest.fixture
def clock_was_set(monkeypatch):
    """Set the clock for who reads it: the system's start moves with it, as Linux tells it."""
    if sys.platform != "linux":
        pytest.skip("the start that moves is Linux's")

    def by(seconds: float) -> None:
        start = psutil.boot_time()
        monkeypatch.setattr("psutil._pslinux.boot_time", lambda: start + seconds)

    return by


def test_a_clock_that_is_set_ends_no_answer_that_another_window_writes(tmp_path, clock_was_set):
    path = tmp_path / "h.sqlite3"
    with History(path) as history:
        number = history.new("q", "nano")
        answer = history.begin_answer(number, history.add_prompt(number, None, "q"), "nano")
        clock_was_set(-3600.0)
        with History(path) as other:
            assert other.branch(answer)[-1].finish_reason == ""
        history.write_answer(answer, Reply("", "all of it", "stop"))
        assert history.branch(answer)[-1].content == "all of it"


def test_a_process_is_known_by_its_name_until_it_ends_and_no_other_has_it():
    sleeper = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    name = running.name_of(sleeper.pid)
    by_the_clock = f"{sleeper.pid} {psutil.Process(sleeper.pid).create_time():.2f}"
    assert running.is_running(name) and running.is_running(running.this_process())
    assert running.is_running(by_the_clock), "as an earlier localseek named it"
    assert not running.is_running(name.replace(f"{sleeper.pid} ", f"{os.getpid()} "))
    sleeper.communicate()
    assert not running.is_running(name) and not running.is_running(by_the_clock)
    assert not running.is_running("") and not running.is_running("no number")


def test_the_last_used_conversation_is_the_last_whatever_the_clock_said(tmp_path):
    times = iter([2e9] * 3 + [1e9] * 6 + [1.5e9] * 3)  # right again after it was far ahead
    with History(tmp_path / "h.sqlite3", clock=lambda: next(times)) as history:
        numbers = [talk(history, f"question {number}", "yes") for number in range(4)]
        assert [one.id for one in history.conversations()] == numbers[::-1]
        assert history.named("").id == numbers[-1]
        history.change(numbers[0], pinned=True)
        assert history.conversations()[0].id == numbers[0]
        assert history.named("").id == numbers[-1]


def read_all(history: History) -> None:
    history.last_prompts(9)
    for one in history.conversations(archived=None):
        history.all_messages(one.id)
        history.branch(one.leaf)
    history.search("answer 7")
    history.search("你好")


def test_random_damage_is_read_past_or_told_in_one_line_and_quotes_nothing(tmp_path):
    whole = tmp_path / "whole.sqlite3"
    with History(whole) as history:
        for number in range(12):
            made = talk(history, f"SECRET {number} 你好 " * 9, f"answer {number} SECRET " * 70)
            history.change(made, settings={"temperature": 0.5})
    content, dice = whole.read_bytes(), random.Random(5)
    fine = told = 0
    for case in range(150):
        path = tmp_path / f"{case}.sqlite3"
        size = dice.choice((1, 8, 100, 4096))
        place = dice.randrange(len(content) - size)
        path.write_bytes(content[:place] + dice.randbytes(size) + content[place + size :])
        try:
            with History(path) as history:
                read_all(history)
            fine += 1
        except LocalseekError as error:
            assert "\n" not in str(error) and "SECRET" not in str(error)
            assert str(path) in str(error)
            told += 1
    assert fine > 50 and told > 10


@pytest.mark.parametrize(
    ("column", "damage", "left"),
    [
        ("content", "CAST(x'6f6b20ff206f6b' AS TEXT)", "ok � ok"),
        ("stats", "'{\"prompt_tok'", None),
        ("stats", "'{\"unheard_of\": 1}'", None),
        ("stats", "'[]'", None),
        ("stats", "CAST(x'ff' AS TEXT)", None),
    ],
)
def test_a_damaged_column_takes_nothing_else_with_it(tmp_path, column, damage, left):
    path = tmp_path / "h.sqlite3"
    with History(path) as history:
        number = talk(history, "question", "answer")
        history._db.execute(f"UPDATE message SET {column} = {damage} WHERE role = 'assistant'")
    with History(path) as history:
        prompt, answer = history.branch(history.conversation(number).leaf)
    assert prompt.content == "question" and answer.reasoning == "because"
    assert getattr(answer, column) == left


def test_damaged_settings_are_none(tmp_path):
    path = tmp_path / "h.sqlite3"
    with History(path) as history:
        number = talk(history, "question", "answer")
        history._db.execute("UPDATE conversation SET settings = '{\"temp'")
    with History(path) as history:
        assert history.conversation(number).settings == {}
        assert history.branch(history.conversation(number).leaf)[-1].content == "answer"
