import contextlib
import json
import os
import pty
import select
import signal
import time

import psutil
import pytest

from localseek.commands import chat_words

DEADLINE_S = 30.0  # that a slow machine may take to draw anything


def test_each_line_of_a_pipe_is_a_prompt_and_answers_are_on_stdout(run_cli):
    outcome = run_cli("chat", stdin=b"say one\n\nsay two\n")
    assert (outcome.status, outcome.out, outcome.err) == (0, "one\ntwo\n", "")


def test_later_turns_show_the_model_earlier_answers_and_no_reasoning(run_cli):
    outcome = run_cli("chat", "-q", "-s", "Be brief.", stdin=b"What?\necho\n")
    sent = json.loads(outcome.out.splitlines()[1])["request"]["messages"]
    assert [(m["role"], m["content"]) for m in sent] == [
        ("system", "Be brief."),
        ("user", "What?"),
        ("assistant", "The answer is 605."),
        ("user", "echo"),
    ]


def test_a_line_that_ends_with_a_backslash_goes_on_in_the_next(run_cli):
    assert run_cli("chat", stdin=b"say one\\\ntwo\n").out == "one\ntwo\n"


def test_the_words_change_what_the_next_request_is(run_cli):
    lines = b"say one\n/new\n/system Be kind.\n/think off\necho\n"
    outcome = run_cli("chat", stdin=lines)
    assert outcome.err == "A new conversation.\nThe system prompt is set.\nReasoning: off.\n"
    sent = json.loads(outcome.out.splitlines()[1])["request"]
    assert (sent["think"], len(sent["messages"])) == (False, 2)
    assert sent["messages"][0] == {"role": "system", "content": "Be kind."}


def test_retry_answers_the_last_prompt_again_without_its_first_answer(run_cli):
    outcome = run_cli("chat", stdin=b"echo\n/retry\n")
    first, second = (json.loads(line)["request"] for line in outcome.out.splitlines())
    assert first == second


def test_stats_and_unknown_words_are_answered_on_stderr(run_cli):
    outcome = run_cli("chat", stdin=b"/stats\nsay a\n/stats\n/fly\n/quit\nsay never\n")
    assert outcome.out == "a\n"
    assert outcome.err.splitlines() == [
        "There is no answer yet.",
        "19 tokens (9 reasoning) · 42.5 tok/s · 90% of drafts accepted"
        " · prompt 12 at 100.0 tok/s · 4 cached · context 31 of 2,048 · 0.5 s",
        "/fly is not understood; /help lists the words.",
    ]


def test_help_lists_every_word(run_cli):
    shown = run_cli("chat", stdin=b"/help\n").err
    for word in (*chat_words.WORDS, "/quit"):
        assert f"\n{word} " in f"\n{shown}"


def test_an_engine_that_dies_is_one_line_and_the_next_prompt_starts_a_new_one(run_cli):
    outcome = run_cli("chat", "-q", stdin=b"say one\ndie\necho\n")
    assert outcome.status == 1
    assert outcome.out.startswith("one\nhalf an ans\n{")
    sent = json.loads(outcome.out.splitlines()[2])["request"]["messages"]
    assert [m["content"] for m in sent] == ["say one", "one", "die", "half an ans", "echo"]
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("localseek: The engine died of signal 9. Systems do so when ")
    assert "Its log is " in outcome.err
    assert outcome.err.endswith(" The conversation is kept: just ask again.\n")


def test_json_prints_one_object_a_reply(run_cli):
    outcome = run_cli("chat", "--json", stdin=b"say one\nWhat?\n")
    replies = [json.loads(line) for line in outcome.out.splitlines()]
    assert [reply["answer"] for reply in replies] == ["one", "The answer is 605."]
    assert outcome.err == ""


class Terminal:
    """A program on a terminal of its own, driven by keys."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.execvpe(command[0], command, environment)
        self.seen = ""

    def wait_for(self, words: str) -> str:
        """Read until `words` are drawn; give what was drawn up to them."""
        while words not in self.seen:
            chunk = self.read()
            assert chunk, f"{words!r} was not drawn: {self.seen!r}"
            self.seen += chunk
        before, _, self.seen = self.seen.partition(words)
        return before

    def read(self) -> str:
        """Read what comes; "" when the program has ended or draws nothing for long."""
        if not select.select([self.descriptor], [], [], DEADLINE_S)[0]:
            return ""
        try:
            return os.read(self.descriptor, 65536).decode(errors="replace")
        except OSError:  # the end of a terminal is an error on Linux
            return ""

    def press(self, keys: str) -> None:
        os.write(self.descriptor, keys.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C when the program has gone to sleep at its prompt.

        A prompt is drawn a moment before the wait for keys begins, and readline notices a signal
        between the two with the next key only: no hand is that fast, a test is.
        """
        asleep = 0
        for _ in range(int(DEADLINE_S / 0.02)):
            asleep = asleep + 1 if self.is_asleep() else 0
            if asleep == 5:
                break
            time.sleep(0.02)
        self.press("\x03")

    def is_asleep(self) -> bool:
        return psutil.Process(self.pid).status() == psutil.STATUS_SLEEPING

    def status(self) -> int:
        while self.read():
            pass
        os.close(self.descriptor)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def terminal(command, environment):
    opened: list[Terminal] = []

    def start(**changes: str) -> Terminal:
        opened.append(Terminal([*command, "chat", "-m", "tiny"], {**environment, **changes}))
        return opened[-1]

    yield start
    for entry in opened:
        with contextlib.suppress(ProcessLookupError):  # its status was asked for
            os.kill(entry.pid, signal.SIGKILL)
            os.waitpid(entry.pid, 0)
            os.close(entry.descriptor)


def test_interrupt_stops_the_answer_and_not_the_chat(terminal):
    chat = terminal()
    chat.wait_for("tiny is ready. /help lists the words, Ctrl-D leaves.")
    chat.wait_for("> ")
    chat.press("forever\r")
    chat.wait_for("line 5")
    chat.press("\x03")
    chat.wait_for("Stopped.")
    chat.wait_for("> ")
    chat.press("say still here\r")
    chat.wait_for("still here\r\n\x1b[2m19")
    chat.wait_for("> ")
    chat.press("\x04")
    assert chat.status() == 0


def test_interrupt_twice_at_the_prompt_leaves_with_130(terminal):
    chat = terminal()
    chat.wait_for("> ")
    chat.interrupt()
    chat.wait_for("Ctrl-C again, or Ctrl-D, leaves.")
    chat.wait_for("> ")
    chat.interrupt()
    assert chat.status() == 130


def test_a_paste_of_several_lines_is_one_prompt(terminal):
    chat = terminal()
    chat.wait_for("> ")
    chat.press("\x1b[200~say one\ntwo\x1b[201~\r")
    chat.wait_for("one\r\ntwo\r\n\x1b[2m19")
    chat.press("\x04")


def test_a_dumb_terminal_gets_words_and_no_control_characters(terminal):
    chat = terminal(TERM="dumb")
    drawn = chat.wait_for("You: ")
    chat.press("What?\r")
    drawn += chat.wait_for("You: ")
    assert "[reasoning]\r\nLet me think.\r\n\r\n[answer]\r\nThe answer is 605.\r\n" in drawn
    assert "\x1b" not in drawn
    chat.press("\x04")


def test_a_killed_engine_leaves_the_chat_alive(terminal):
    chat = terminal()
    chat.wait_for("> ")
    chat.press("forever\r")
    chat.wait_for("line 5")
    (engine,) = psutil.Process(chat.pid).children()
    engine.kill()
    chat.wait_for("localseek: The engine died of signal 9.")
    chat.wait_for("The conversation is kept: just ask again.")
    chat.wait_for("> ")
    chat.press("say back\r")
    chat.wait_for("back\r\n\x1b[2m19")
    chat.press("\x04")


def test_a_retry_that_gets_no_engine_keeps_the_prompt_for_another(run_cli, monkeypatch, tmp_path):
    monkeypatch.setenv("FAKE_ENGINE", f"load-once {tmp_path / 'loaded'}")
    errors = run_cli("chat", "-q", stdin=b"die\n/retry\n/retry\n").err.splitlines()
    assert errors[0].startswith("localseek: The engine died of signal 9.")
    assert errors[1:] == ["localseek: No memory. Buy."] * 2


def test_a_retry_that_fails_keeps_the_answer_there_was(run_cli, tmp_path):
    prompt = f"fail-later {tmp_path / 'answered'}"
    outcome = run_cli("chat", "-q", stdin=f"{prompt}\n/retry\necho\n".encode())
    sent = json.loads(outcome.out.splitlines()[-1])["request"]["messages"]
    assert [m["content"] for m in sent] == [prompt, "fine", "echo"]


def test_a_prompt_that_begins_with_a_slash_is_sent_with_a_space_before_it(run_cli):
    outcome = run_cli("chat", "-q", stdin=b" /quit\necho\n")
    sent = json.loads(outcome.out.splitlines()[1])["request"]["messages"]
    assert sent[0]["content"] == "/quit"


def test_the_sign_of_the_prompt_is_never_among_the_answers(command, environment, tmp_path):
    words = ["sh", "-c", f'exec "$@" >{tmp_path}/out', "sh", *command, "chat", "-m", "tiny"]
    chat = Terminal(words, environment)
    chat.wait_for("> ")
    chat.press("say hi\r")
    chat.wait_for("> ")
    chat.press("\x04")
    assert chat.status() == 0
    assert (tmp_path / "out").read_text() == "hi\n"
