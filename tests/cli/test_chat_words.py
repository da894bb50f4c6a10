import json

import pytest
from fakes import gguf_file

from localseek.store.history.history import History
from localseek.terminal import clipboard


def branch(name="", all_of_it=False):
    with History() as history:
        one = history.named(name)
        found = history.all_messages(one.id) if all_of_it else history.branch(one.leaf)
        return [message.content for message in found]


def test_an_edited_prompt_takes_the_place_of_the_last_one_and_both_are_kept(run_cli):
    outcome = run_cli("chat", stdin=b"say one\nsay two\n/edit echo\n")
    sent = json.loads(outcome.out.splitlines()[2])["request"]["messages"]
    assert [m["content"] for m in sent] == ["say one", "one", "echo"]
    assert branch()[:3] == ["say one", "one", "echo"]
    assert branch(all_of_it=True)[2:4] == ["say two", "two"]


def test_without_a_text_edit_says_how_it_is_used_on_a_pipe(run_cli):
    outcome = run_cli("chat", stdin=b"/edit\nsay a\n/edit\n")
    assert outcome.err.splitlines() == [
        "There is no answer yet.", "/edit TEXT puts TEXT in place of the last prompt."
    ]  # fmt: skip


def test_an_answer_that_was_cut_off_goes_on_and_a_whole_one_does_not(run_cli):
    outcome = run_cli("chat", "-q", stdin=b"length\n/continue\nsay a\n/continue\n")
    assert "The last answer was not cut off." in outcome.err
    assert branch()[0] == "length" and branch()[1].startswith(branch(all_of_it=True)[1][:5])
    assert len(branch()) == 4, "the answer went on in its place"


def test_the_request_of_an_answer_that_goes_on_holds_its_beginning(run_cli, monkeypatch):
    from localseek import Engine

    asked = []
    generate = Engine.generate
    monkeypatch.setattr(
        Engine, "generate", lambda self, r: asked.append(r) or generate(self, r)
    )
    run_cli("chat", "-q", stdin=b"length\n/continue\n")
    assert asked[1].begun_answer == branch()[1][: len(asked[1].begun_answer)] != ""
    assert [m.content for m in asked[1].messages] == ["length"]


def test_a_continued_conversation_can_be_retried_and_edited(run_cli):
    run_cli("chat", stdin=b"say one\n")
    run_cli("chat", "--continue", stdin=b"/retry\n/edit say two\n")
    assert branch() == ["say two", "two"]
    assert branch(all_of_it=True) == ["say one", "one", "one", "say two", "two"]


def test_another_model_answers_and_one_that_is_not_there_changes_nothing(run_cli, home):
    gguf_file.write_dense(home / "models" / "other.gguf")
    outcome = run_cli("chat", stdin=b"say a\n/model nowhere\n/model other\necho\n/model\n")
    assert "There is no model 'nowhere'" in outcome.err
    assert "other answers from now on." in outcome.err
    assert "other answers. /model NAME switches" in outcome.err
    assert json.loads(outcome.out.splitlines()[1])["load"]["model"].endswith("other.gguf")
    with History() as history:
        assert history.named("").model == "other"


@pytest.mark.parametrize("name", ["talk.md", "talk.json"])
def test_the_conversation_is_written_to_a_new_file_only(run_cli, tmp_path, name):
    target = tmp_path / name
    lines = f"/export {target}\nsay one\n/export\n/export {target}\n/export {target}\n"
    outcome = run_cli("chat", stdin=lines.encode())
    assert "There is no answer yet." in outcome.err and "Name a file" in outcome.err
    assert f"Written: {target}." in outcome.err and "exists already" in outcome.err
    text = target.read_text()
    assert "say one" in text and ("## Answer" in text or json.loads(text)["messages"])


def test_lines_that_hold_a_text_are_found(run_cli):
    outcome = run_cli("chat", stdin="say Ärger und Eis\n/find EIS\n/find nothing\n/find\n".encode())
    assert outcome.err.splitlines() == [
        "1 you: say Ärger und Eis", "1 answer: Ärger und Eis", "Nothing here holds 'nothing'.",
        "/find TEXT",
    ]  # fmt: skip


def test_copying_without_a_terminal_or_a_program_says_so(run_cli, monkeypatch):
    monkeypatch.setattr(clipboard, "PROGRAMS", ())
    outcome = run_cli("chat", stdin=b"/copy\nsay one\n/copy\n")
    assert outcome.err.splitlines() == [
        "There is no answer yet.",
        "Nothing here can take it: no terminal, no program for a clipboard.",
    ]
    assert clipboard.sequence("中") == "\x1b]52;c;5Lit\x07"


@pytest.mark.parametrize("line", ["/new now", "/think", "/think maybe", "/retry x"])
def test_words_with_what_they_do_not_take_are_refused(run_cli, line):
    outcome = run_cli("chat", stdin=f"{line}\n".encode())
    assert "not understood" in outcome.err or "/think takes on, off or auto." in outcome.err


def test_a_home_that_cannot_be_written_to_is_said_and_the_chat_goes_on(
    run_cli, tmp_path, monkeypatch
):
    gguf_file.write_dense(tmp_path / "m.gguf")
    (tmp_path / "home").touch()
    monkeypatch.setenv("LOCALSEEK_HOME", str(tmp_path / "home"))
    outcome = run_cli("chat", "-m", str(tmp_path / "m.gguf"), stdin=b"say one\n")
    assert (outcome.status, outcome.out) == (0, "one\n")
    assert "cannot be made" in outcome.err and "This conversation is not saved." in outcome.err
