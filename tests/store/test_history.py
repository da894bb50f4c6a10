import hashlib
import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing

import pytest
from histories import ROOT, texts

from localseek.errors import UsageError
from localseek.events import DraftStats, Stats
from localseek.store.history.database import HistoryError, open_database
from localseek.store.history.history import History
from localseek.store.history.migrations import MIGRATIONS
from localseek.store.history.records import turns_of
from localseek.text.conversation import Reply

# The beginning of the SHA-256 of each released step: people's databases went through these.
RELEASED = ("bed4e7dcb59c0d0f", "c72c2006b6472e9a", "6ad218e9ae71bd8e")


def test_a_conversation_comes_back_as_it_was(history, talk):
    number = talk("What is 1 + 1?", "2", "And 2 more?", "4", system="Be brief.")
    saved = history.conversation(number)
    assert (saved.title, saved.system, saved.model) == ("What is 1 + 1?", "Be brief.", "nano")
    assert texts(history, number) == ["What is 1 + 1?", "2", "And 2 more?", "4"]
    turns = turns_of(history.branch(saved.leaf))
    assert [turn.prompt for turn in turns] == ["What is 1 + 1?", "And 2 more?"]
    assert turns[1].reply == Reply("because", "4", "stop")


def test_statistics_come_back_with_their_drafts(history):
    number = history.new("hi", "nano")
    answer = history.begin_answer(number, history.add_prompt(number, None, "hi"), "nano")
    stats = Stats(12, 4, 100.0, 19, 9, 42.5, 0.5, 31, 2048, DraftStats(10, 10, 9, [0.9], 1.0, 1.9))
    history.write_answer(answer, Reply("", "x", "stop", stats))
    assert history.branch(answer)[-1].stats == stats


def test_every_answer_to_a_prompt_is_kept_and_can_be_gone_back_to(history, variants):
    number = history.new("q", "nano")
    prompt = history.add_prompt(number, None, "q")
    first, second = (history.begin_answer(number, prompt, "nano") for _ in range(2))
    history.write_answer(first, Reply("", "one", "stop"))
    follow_up = history.add_prompt(number, first, "and then?")
    history.write_answer(second, Reply("", "two", "stop"))
    assert variants(number, first) == [first, second]
    assert [one.id for one in history.leave_at(number, second)] == [prompt, second]
    assert [one.id for one in history.leave_at(number, first)] == [prompt, first, follow_up]
    assert history.conversation(number).leaf == follow_up


def test_first_prompts_that_were_edited_are_variants_of_each_other(history, variants):
    number = history.new("q", "nano")
    prompts = [history.add_prompt(number, None, text) for text in ("q", "q, edited")]
    other = history.new("another", "nano")
    history.add_prompt(other, None, "another")
    assert variants(number, prompts[1]) == prompts


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("weather", ["Is the WEATHER good in 北京?"]),
        ("北京", ["Is the WEATHER good in 北京?", "北京今天天气很好"]),
        ("天", ["北京今天天气很好"]),
        ("今天天气", ["北京今天天气很好"]),
        ("北京 weather", ["Is the WEATHER good in 北京?"]),
        ("100%", ["It is 100% \"sure\" (or not)"]),
        ('"sure"', ["It is 100% \"sure\" (or not)"]),
        ("_", []),
        ("NEAR(a b)", []),
        ("because", []),
        ("", []),
    ],
)
def test_search_finds_words_inside_of_any_text(history, talk, wanted, found):
    talk("Is the WEATHER good in 北京?", "北京今天天气很好", "So?", "It is 100% \"sure\" (or not)")
    hits = history.search(wanted)
    assert sorted(h.excerpt for h in hits if h.message is not None) == sorted(found)


def test_search_finds_titles_once_they_are_renamed_and_shows_where_a_word_stands(history, talk):
    number = talk("first", "word " * 100 + "needle " + "word " * 100)
    history.change(number, title="A haystack")
    assert [(h.message, h.excerpt) for h in history.search("hayst")] == [(None, "A haystack")]
    (hit,) = history.search("needle")
    assert "needle" in hit.excerpt and hit.excerpt.startswith("…") and hit.excerpt.endswith("…")
    assert len(hit.excerpt) < 130


def test_an_answer_is_found_only_when_it_is_done(history):
    number = history.new("q", "nano")
    answer = history.begin_answer(number, history.add_prompt(number, None, "q"), "nano")
    history.write_answer(answer, Reply("", "growing"))
    assert history.search("growing") == []
    history.write_answer(answer, Reply("", "growing fast", "stop"))
    assert [h.message for h in history.search("growing")] == [answer]


def test_pinned_conversations_come_first_and_archived_ones_are_a_list_of_their_own(history, talk):
    old, new, away = talk("old", "x"), talk("new", "x"), talk("away", "x")
    history.change(old, pinned=True)
    history.change(away, archived=True)
    assert [one.id for one in history.conversations()] == [old, new]
    assert [one.id for one in history.conversations(archived=True)] == [away]
    history.change(away, archived=False)
    assert len(history.conversations()) == 3


def test_a_name_is_a_number_a_title_or_its_beginning_and_never_a_guess(history, talk):
    sky, skin = talk("Why is the sky blue?", "x"), talk("Why is the skin dry?", "x")
    short = talk("Why is the sky", "x")
    assert history.named(str(sky)).id == history.named("why is the sky b").id == sky
    assert history.named("Why is the sky").id == short, "a whole title is not ambiguous"
    assert history.named("").id == short, "the last used one"
    with pytest.raises(UsageError, match=f"3 conversations begin with 'why'.*{short} Why"):
        history.named("why")
    for wrong in ("nothing", "99", "9" * 30, "%"):
        with pytest.raises(UsageError, match="history list"):
            history.named(wrong)
    assert skin != sky


def test_a_conversation_of_three_thousand_turns_is_read_and_deleted(history):
    number, leaf = history.new("q", "nano"), None
    with history._db:
        history._db.execute("BEGIN")
        for place in range(6000):
            role = "user" if place % 2 == 0 else "assistant"
            leaf = history._db.execute(
                "INSERT INTO message (conversation, parent, role, content, created) "
                "VALUES (?, ?, ?, ?, 0)", (number, leaf, role, f"text {place}"),
            ).lastrowid  # fmt: skip
    assert len(history.branch(leaf)) == 6000
    history.delete([number])
    assert history.conversations() == [] and history.search("text") == []


def test_broken_characters_and_large_texts_are_kept(history):
    number = history.new("\ud83d broken", "nano")
    large = "文" * 100_000 + "\0" + "e\u0301🙂"
    history.add_prompt(number, None, large)
    assert history.conversation(number).title == "? broken"
    assert texts(history, number) == [large]


def test_only_the_owner_can_read_the_files(tmp_path):
    before = os.umask(0)
    try:
        with History(tmp_path / "h.sqlite3") as history:
            history.new("secret", "nano")
            modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == {0o600}


def test_a_history_of_the_first_version_is_brought_up_to_date(tmp_path, monkeypatch):
    path = tmp_path / "h.sqlite3"
    with monkeypatch.context() as patch, closing(sqlite3.connect(path)) as old:
        patch.setattr("localseek.store.history.database.MIGRATIONS", MIGRATIONS[:1])
        open_database(path).close()
        old.execute("INSERT INTO conversation VALUES (1, 't', '', 'nano', 0, 0, 0, 0, NULL)")
        old.commit()
    with History(path) as history:
        assert history.conversation(1).settings == {}
        history.change(1, settings={"temperature": 0.5})
        assert history.conversation(1).settings == {"temperature": 0.5}


def test_an_answer_that_goes_on_is_found_by_its_new_text_once(history, talk):
    number = talk("q", "half a giraffe")
    answer = history.conversation(number).leaf
    history.resume_answer(answer)
    assert history.search("giraffe") == [], "it grows"
    history.write_answer(answer, Reply("", "half a giraffe and a zebra", "stop"))
    assert [hit.message for hit in history.search("giraffe")] == [answer]
    assert [hit.message for hit in history.search("zebra")] == [answer]
    history.delete([number])
    assert history.search("zebra") == []


def test_an_answer_is_taken_back_with_what_only_led_to_it(history, talk):
    number = talk("q", "a")
    answer = history.conversation(number).leaf
    waiting = history.add_prompt(number, answer, "too early")
    history.drop_answer(history.begin_answer(number, waiting, "nano"))
    assert texts(history, number) == ["q", "a"]
    again = history.begin_answer(number, history.branch(answer)[0].id, "nano")
    history.drop_answer(again)
    assert texts(history, number) == ["q", "a"], "its other answer keeps the prompt"
    history.add_prompt(number, answer, "more")
    history.drop_answer(answer)
    assert texts(history, number) == ["q", "a", "more"], "something follows it"
    alone = history.new("only", "nano")
    prompt = history.add_prompt(alone, None, "only")
    history.drop_answer(history.begin_answer(alone, prompt, "nano"))
    assert [one.id for one in history.conversations()] == [number]


def test_the_last_prompts_of_all_conversations_come_in_their_order(history, talk):
    talk("one", "a", "two", "b")
    talk("three", "c")
    assert history.last_prompts(2) == ["two", "three"]


def test_released_migrations_are_never_edited():
    digests = [hashlib.sha256("\n".join(step).encode()).hexdigest()[:16] for step in MIGRATIONS]
    assert tuple(digests[: len(RELEASED)]) == RELEASED


def test_what_a_killed_program_had_written_is_there_and_marked(tmp_path):
    code = """
import os, signal, sys
from localseek.store.history.history import History
from localseek.text.conversation import Reply
history = History(__import__("pathlib").Path(sys.argv[1]))
number = history.new("q", "nano")
answer = history.begin_answer(number, history.add_prompt(number, None, "q"), "nano")
history.write_answer(answer, Reply("thought", "half an ans"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "h.sqlite3"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, env=_environment(), check=False
    )
    assert done.returncode == -9
    with History(path) as history:
        (saved,) = history.conversations()
        answer = history.branch(saved.leaf)[-1]
        found = [hit.message for hit in history.search("half an")]
    assert (answer.content, answer.reasoning) == ("half an ans", "thought")
    assert answer.finish_reason == "interrupted" and found == [answer.id]


def test_an_answer_that_another_window_still_writes_is_left_to_it(history):
    number = history.new("q", "nano")
    answer = history.begin_answer(number, history.add_prompt(number, None, "q"), "nano")
    with History(history.path) as other:
        assert other.branch(answer)[-1].finish_reason == ""
    history.write_answer(answer, Reply("", "all of it", "stop"))
    assert history.branch(answer)[-1].content == "all of it"


def test_several_programs_write_at_once_and_nothing_is_lost(tmp_path):
    code = """
import sys
from pathlib import Path
from localseek.store.history.history import History
from localseek.text.conversation import Reply
with History(Path(sys.argv[1])) as history:
    for turn in range(40):
        number = history.new(f"{sys.argv[2]} {turn}", "nano")
        answer = history.begin_answer(number, history.add_prompt(number, None, "q"), "nano")
        history.write_answer(answer, Reply("", f"answer {sys.argv[2]} {turn}", "stop"))
"""
    path = tmp_path / "h.sqlite3"
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path), str(number)], cwd=ROOT, env=_environment()
        )
        for number in range(3)
    ]
    assert [program.wait(60) for program in programs] == [0, 0, 0]
    with History(path) as history:
        titles = {one.title for one in history.conversations()}
        assert titles == {f"{program} {turn}" for program in range(3) for turn in range(40)}
        assert len(history.search("answer", limit=1000)) == 120


@pytest.mark.parametrize(
    "content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"x" * 9000]
)
def test_a_damaged_file_is_named_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "h.sqlite3"
    path.write_bytes(content)
    with pytest.raises(HistoryError, match="is damaged, and nothing in it was changed. Move it"):
        History(path)
    assert path.read_bytes() == content
    assert [one.name for one in tmp_path.iterdir()] == ["h.sqlite3"]


def test_a_damaged_page_ends_in_one_line(history, talk):
    for number in range(200):
        talk(f"question {number}", f"answer {number} " * 50)
    history.close()
    content = bytearray(history.path.read_bytes())
    content[4096 * 3 :] = b"\xff" * (len(content) - 4096 * 3)
    history.path.write_bytes(content)
    with pytest.raises(HistoryError, match="damaged"), History(history.path) as damaged:
        for one in damaged.conversations(None):
            damaged.branch(one.leaf)
        damaged.search("answer")


def test_a_history_of_a_newer_version_is_named_and_left_as_it_is(tmp_path):
    path = tmp_path / "h.sqlite3"
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("CREATE TABLE unknown (x)")
        newer.execute("PRAGMA user_version = 99")
        newer.commit()
    before = path.read_bytes()
    with pytest.raises(HistoryError, match=r"newer localseek \(version 99.*Update localseek"):
        History(path)
    assert path.read_bytes() == before


def test_a_locked_history_is_said_to_be_locked(history, talk, monkeypatch):
    talk("q", "a")
    with closing(sqlite3.connect(history.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        history._db.execute("PRAGMA busy_timeout = 50")
        with pytest.raises(HistoryError, match="locked by another program"):
            history.new("another", "nano")
        other.execute("ROLLBACK")
    history.new("another", "nano")
    assert len(history.conversations()) == 2


def test_a_full_disk_is_said_and_what_was_there_stays(history, talk):
    number = talk("q", "a")
    pages = history._db.execute("PRAGMA page_count").fetchone()[0]
    history._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(HistoryError, match="is full"):
        history.add_prompt(number, None, "x" * 1_000_000)
    assert texts(history, number) == ["q", "a"]
    history._db.execute("PRAGMA max_page_count = 1000000")
    assert history.add_prompt(number, history.conversation(number).leaf, "and now?")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HistoryError, match="cannot be opened"):
        History(tmp_path / "file" / "h.sqlite3")


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}
