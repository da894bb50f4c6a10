import sqlite3
from contextlib import closing

from histories import texts

from localseek.store.history.history import History
from localseek.text.conversation import Reply


def files_of(history: History) -> bytes:
    return b"".join(path.read_bytes() for path in history.path.parent.glob(f"{history.path.name}*"))


def test_deleted_text_is_nowhere_in_the_files(history, talk, tmp_path):
    kept, gone = talk("keep me", "KEPT-MARKER"), talk("GONE-MARKER prompt", "GONE-MARKER " * 500)
    history.change(gone, system="GONE-MARKER system")
    history.delete([gone])
    content = b"".join(path.read_bytes() for path in tmp_path.glob("history.sqlite3*"))
    assert b"GONE-MARKER" not in content and b"KEPT-MARKER" in content
    assert history.search("GONE-MARKER") == [] and history.search("KEPT-MARKER")
    assert texts(history, kept) == ["keep me", "KEPT-MARKER"]


def test_saved_sequences_are_named_when_their_conversation_goes(history, talk):
    number, other = talk("q", "a"), talk("r", "b")
    for name in ("one.sequence", "one.sequence", "two.sequence"):
        history.keep_sequence(number, name)
    history.keep_sequence(other, "three.sequence")
    assert sorted(history.delete([number]).sequences) == ["one.sequence", "two.sequence"]


def test_a_variant_or_a_prompt_that_was_taken_back_is_nowhere_in_the_files(history, talk):
    number = talk("KEPT-MARKER", "an answer")
    prompt = history.branch(history.conversation(number).leaf)[0].id
    other = history.begin_answer(number, prompt, "nano")
    history.write_answer(other, Reply("GONE-MARKER", "GONE-MARKER " * 700, "cancelled"))
    waiting = history.add_prompt(number, history.conversation(number).leaf, "GONE-MARKER prompt")
    assert not history.drop_answer(history.begin_answer(number, waiting, "nano"))
    assert not history.drop_answer(other)
    assert b"GONE-MARKER" not in files_of(history) and b"KEPT-MARKER" in files_of(history)


def test_deleted_text_goes_from_what_another_window_has_open_too(history, talk):
    gone = talk("GONE-MARKER", "GONE-MARKER " * 2000)
    talk("KEPT-MARKER", "x")
    with History(history.path) as other:
        assert len(other.search("GONE-MARKER")) == 3
        assert history.delete([gone]).overwritten
        assert b"GONE-MARKER" not in files_of(history)
        other.new("written by the other", "nano")
        assert other.search("GONE-MARKER") == []
    assert b"GONE-MARKER" not in files_of(history)


def test_while_another_program_reads_it_is_said_and_the_log_is_emptied_when_it_has_ended(
    history, talk
):
    gone = talk("GONE-MARKER", "GONE-MARKER " * 2000)
    talk("KEPT-MARKER", "x")
    history._db.execute("PRAGMA busy_timeout = 20")
    with closing(sqlite3.connect(history.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM message").fetchone() == (4,)
        assert not history.delete([gone]).overwritten
        assert b"GONE-MARKER" in files_of(history), "which the reader may still read"
        reader.execute("COMMIT")
        history.close()
        assert b"GONE-MARKER" not in files_of(history)
