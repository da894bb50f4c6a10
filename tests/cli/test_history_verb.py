import argparse
import json
import signal
import sqlite3
import subprocess
import time
from contextlib import closing

import pytest

from localseek.commands import history, models
from localseek.store.history.history import History

DEADLINE_S = 30.0


@pytest.fixture
def talked(run_cli):
    """Two conversations of two turns each; the first has a variant of its last answer."""
    run_cli("chat", "-q", "-s", "Be brief.", stdin="Why 北京?\nsay two\n/retry\n".encode())
    run_cli("chat", "-q", stdin=b"say [1] 50% off\nWhat else?\n")


def saved():
    with History() as history:
        return [
            (one.title, [message.content for message in history.branch(one.leaf)])
            for one in history.conversations(archived=None)
        ]


def test_chat_saves_each_turn_and_list_shows_the_last_used_first(run_cli, talked):
    listed = json.loads(run_cli("history", "list", "--json").out)
    assert [(one["title"], one["messages"], one["model"]) for one in listed] == [
        ("say [1] 50% off", 4, "tiny"),
        ("Why 北京?", 5, "tiny"),
    ]
    lines = run_cli("history").out.splitlines()
    assert lines[0].split() == ["NUMBER", "TITLE", "LAST", "USED", "MODEL", "MESSAGES"]
    assert lines[1].startswith("2       say [1] 50% off  ") and lines[1].endswith("4")
    assert lines[2].startswith("1       Why 北京?        "), "Chinese takes two columns each"


def test_an_empty_history_says_so(run_cli):
    assert run_cli("history").err == "No conversation is saved yet.\n"
    assert run_cli("history", "list", "--json").out == "[]\n"
    assert run_cli("history", "search", "x").err == "Nothing in the history holds 'x'.\n"


def test_search_shows_where_words_stand(run_cli, talked):
    outcome = run_cli("history", "search", "50%")
    assert outcome.out == (
        "2 say [1] 50% off\n"
        "2 say [1] 50% off\n    assistant: [1] 50% off\n"
        "2 say [1] 50% off\n    user: say [1] 50% off\n"
    )
    assert run_cli("history", "search", "北京").out.startswith("1 Why 北京?\n")
    (hit,) = json.loads(run_cli("history", "search", "--json", "605", "answer").out)[:1]
    assert hit["excerpt"] == "The answer is 605."


def test_show_prints_the_branch_that_was_left(run_cli, talked):
    lines = run_cli("history", "show", "why").out.splitlines()
    assert lines[0].startswith("Why 北京?  (tiny, 20")
    assert lines[1:] == [
        "", "[system] Be brief.", "", "> Why 北京?", "", "The answer is 605.", "", "> say two", "",
        "two",
    ]  # fmt: skip
    assert "[reasoning]\nLet me think.\n" in run_cli("history", "show", "1", "--reasoning").out


def test_export_writes_markdown_or_json_with_variants_and_never_over_a_file(
    run_cli, talked, tmp_path
):
    outcome = run_cli("history", "export", "1", "-o", str(tmp_path / "one.md"))
    assert outcome.err == f"Written: {tmp_path / 'one.md'}.\n"
    text = (tmp_path / "one.md").read_text()
    assert text.startswith("# Why 北京?\n\n*tiny, ") and "## Answer\n\ntwo\n" in text
    again = run_cli("history", "export", "1", "-o", str(tmp_path / "one.md"))
    assert again.status == 1 and "exists already" in again.err
    run_cli("history", "export", "1", "-o", str(tmp_path / "one.json"))
    found = json.loads((tmp_path / "one.json").read_text())
    answers = [m for m in found["messages"] if m["content"] == "two"]
    assert len({m["parent"] for m in answers}) == 1 and len(answers) == 2
    assert answers[0]["stats"]["decode_tps"] == 42.5


def test_rename_pin_and_archive_change_the_list(run_cli, talked):
    run_cli("history", "rename", "2", "Prices", "of", "things")
    run_cli("history", "pin", "1")
    assert [title for title, _ in saved()] == ["Why 北京?", "Prices of things"]
    run_cli("history", "archive", "why")
    assert [line.split()[1] for line in run_cli("history").out.splitlines()[1:]] == ["Prices"]
    assert "* Why" in run_cli("history", "list", "--archived").out
    run_cli("history", "archive", "--off", "1")
    run_cli("history", "pin", "--off", "1")
    assert len(run_cli("history").out.splitlines()) == 3


def test_delete_names_what_it_deleted_and_a_wrong_name_deletes_nothing(run_cli, talked):
    assert run_cli("history", "delete", "1", "nothing").status == 2
    assert len(saved()) == 2
    assert run_cli("history", "delete", "1", "say", "1").err == (
        "Deleted: Why 北京?, say [1] 50% off.\n"
    )
    assert saved() == []


def test_chat_goes_on_with_a_conversation_its_model_and_its_system_prompt(run_cli, talked, home):
    (home / "models" / "tiny.gguf").rename(home / "models" / "other.gguf")
    run_cli("chat", "-q", "-m", "other", "--continue", "why", stdin=b"say three\n")
    outcome = run_cli("chat", "-q", "--continue", stdin=b"echo\n", home_model=False)
    sent = json.loads(outcome.out)["request"]["messages"]
    assert [m["content"] for m in sent] == [
        "Be brief.", "Why 北京?", "The answer is 605.", "say two", "two", "say three", "three",
        "echo",
    ]  # fmt: skip
    assert len(saved()) == 2


def test_ask_saves_only_when_it_is_asked_to_and_continues_the_last_conversation(run_cli):
    run_cli("ask", "-q", "say one")
    assert saved() == []
    assert run_cli("ask", "--continue", "x").status == 2, "there is nothing to continue"
    run_cli("ask", "-q", "--save", "say one")
    run_cli("ask", "-q", "--continue", "say two")
    assert saved() == [("say one", ["say one", "one", "say two", "two"])]


def test_no_save_leaves_nothing_on_the_disk(run_cli, home):
    run_cli("chat", "-q", "--no-save", stdin=b"say UNSEEN-MARKER\n")
    for path in home.rglob("*"):
        assert not path.is_file() or b"UNSEEN-MARKER" not in path.read_bytes(), path
    assert saved() == []


def test_new_begins_another_conversation_and_failures_are_kept_with_their_reason(run_cli):
    run_cli("chat", "-q", stdin=b"say one\n/new\n/system Be kind.\nfail\n")
    assert saved() == [("fail", ["fail", ""]), ("say one", ["say one", "one"])]
    assert "The prompt has 9,000 tokens" in run_cli("history", "show", "fail").out


@pytest.mark.parametrize("damage", ["not a database", "newer"])
def test_with_a_history_that_cannot_be_used_chat_still_talks(run_cli, home, damage):
    path = home / "history" / "history.sqlite3"
    path.parent.mkdir(parents=True)
    if damage == "newer":
        with closing(sqlite3.connect(path)) as newer:
            newer.execute("PRAGMA user_version = 99")
    else:
        path.write_bytes(b"not a database" * 1000)
    before = path.read_bytes()
    outcome = run_cli("chat", "-q", stdin=b"say one\n")
    assert (outcome.status, outcome.out) == (0, "one\n")
    assert outcome.err.count("\n") == 1
    assert outcome.err.endswith("This conversation is not saved.\n")
    assert path.read_bytes() == before
    for words in (("history",), ("chat", "--continue"), ("ask", "--continue", "x")):
        outcome = run_cli(*words)
        assert outcome.status == 1 and outcome.err.count("\n") == 1


def test_kill_9_in_mid_answer_loses_at_most_the_last_second(command, environment, home):
    program = subprocess.Popen(
        [*command, "chat", "-q", "-m", "tiny"], env=environment, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert program.stdin is not None and program.stdout is not None
    program.stdin.write(b"forever\n")
    program.stdin.flush()
    lines, seen_early, began = 0, 0, time.monotonic()
    while (passed := time.monotonic() - began) < 4.0:
        program.stdout.readline()
        lines += 1
        if passed < 1.5:  # 2.5 seconds before the end: a second may be lost, the rest is leeway
            seen_early = lines
    program.send_signal(signal.SIGKILL)
    program.wait(DEADLINE_S)
    with History() as history:
        (one,) = history.conversations()
        answer = history.branch(one.leaf)[-1]
    assert answer.finish_reason == "interrupted"
    kept = answer.content.splitlines()
    assert kept == [f"line {number}" for number in range(len(kept))]
    assert len(kept) >= seen_early > 0


@pytest.mark.parametrize("verb", [history, models])
def test_every_action_has_a_description_an_example_json_and_words_for_its_arguments(verb):
    parser = argparse.ArgumentParser(prog="localseek x")
    verb.configure(parser)
    (actions,) = (one for one in parser._actions if isinstance(one.choices, dict))
    assert len(actions.choices) >= 6
    for name, action in actions.choices.items():
        named = f"localseek {verb.__name__.rpartition('.')[2]} {name}"
        assert action.description and named in action.epilog
        assert all(one.help for one in action._actions)
        assert "--json" in action.format_help()


def test_what_is_changed_and_deleted_is_told_as_json(run_cli, talked):
    renamed = json.loads(run_cli("history", "rename", "--json", "1", "A", "title").out)
    assert (renamed["id"], renamed["title"]) == (1, "A title")
    assert json.loads(run_cli("history", "pin", "--json", "1").out)["pinned"] is True
    outcome = run_cli("history", "delete", "--json", "1", "2")
    assert json.loads(outcome.out) == {"deleted": [1, 2], "overwritten": True}
