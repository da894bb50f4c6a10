"""A terminal that stops its program with Ctrl-Z, brings it back, and is closed under it."""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

import psutil
import pytest

from localseek.store.history.history import History

from .injections import PATIENCE_S, until

ESCAPES = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\x1b[=>78]|\x1b\][^\x07\x1b]*\x07")
APP = [sys.executable, str(Path(__file__).parents[1] / "tui" / "in_terminal.py")]


class Terminal:
    """A program on a terminal of its own; `seen` is all that it has drawn, without escapes."""

    def __init__(self, words: list[str], environment: dict[str, str]) -> None:
        self.pid, self._keys = pty.fork()
        if self.pid == 0:
            os.execvpe(words[0], words, environment)
        self._drawn = b""
        self._ended = self.gone_already = False

    @property
    def seen(self) -> str:
        return ESCAPES.sub(b"", self._drawn).decode(errors="replace")

    def read(self) -> None:
        if not self._ended and select.select([self._keys], [], [], 0.05)[0]:
            try:
                self._drawn += os.read(self._keys, 65536)
            except OSError:  # the end of a terminal is an error on Linux
                os.close(self._keys)
                self._ended = True

    def until(self, words: str, after: int = 0) -> int:
        """Read until `words` are drawn, give where they end."""
        deadline = monotonic() + PATIENCE_S
        while (place := self.seen.find(words, after)) < 0:
            assert monotonic() < deadline, f"{words!r} was not drawn: {self.seen[-2000:]!r}"
            self.read()
        return place + len(words)

    def press(self, keys: str) -> None:
        os.write(self._keys, keys.encode())

    def hang_up(self) -> None:
        os.close(self._keys)
        self._ended = True

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children(recursive=True)

    def gone(self) -> bool:
        self.gone_already = os.waitpid(self.pid, os.WNOHANG)[0] == self.pid
        return self.gone_already

    def close(self) -> None:
        if not self.gone_already:
            for process in (*self.children(), psutil.Process(self.pid)):
                process.kill()
            os.waitpid(self.pid, 0)
        if not self._ended:
            os.close(self._keys)


@pytest.fixture
def terminal(environment):
    opened: list[Terminal] = []

    def start(*words: str) -> Terminal:
        opened.append(Terminal([*words], {**environment, "PS1": "SHELL> "}))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.fixture
def shell(terminal):
    """A shell with job control: only under one does Ctrl-Z stop a program."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash here")
    started = terminal("bash", "--norc", "--noprofile", "-i")
    started.until("SHELL> ")
    return started


def quoted(words: list[str]) -> str:
    return " ".join(f"'{word}'" for word in words)


@pytest.mark.parametrize("verb", ["ask", "chat"])
def test_ctrl_z_stops_and_fg_goes_on_with_nothing_missing(shell, command, verb):
    words = [*command, verb, "-q", "-m", "tiny"]
    if verb == "ask":
        words += ["--save", "lines 3000"]
    shell.press(quoted(words) + "\r")
    if verb == "chat":
        shell.press("lines 3000\r")
    place = shell.until("line 5\r\n")
    shell.press("\x1a")
    place = shell.until("Stopped", place)
    shell.until("SHELL> ", place)
    shell.press("fg\r")
    place = shell.until("line 2999\r\n", place)
    shell.press("\x04\x04" if verb == "chat" else "")
    with History() as history:
        until(lambda: history.branch(history.named("").leaf)[-1].finish_reason, "it is saved")
        answer = history.branch(history.named("").leaf)[-1]
    assert answer.content == "".join(f"line {number}\n" for number in range(3000))


def test_a_batch_that_was_stopped_goes_on_with_fg(shell, command, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"prompt": "lines 2000"}\n{"prompt": "say end"}\n')
    output = tmp_path / "out.jsonl"
    files = [str(tmp_path / "in.jsonl"), str(output)]
    shell.press(quoted([*command, "batch", "-m", "tiny", *files]) + "\r")
    until(lambda: shell.read() or output.exists(), "the batch has begun")
    shell.press("\x1a")
    place = shell.until("Stopped")
    shell.press("fg\r")
    shell.until("2 rows: 2 answered", place)
    assert output.read_text().count("\n") == 2


def test_the_app_that_was_stopped_draws_itself_again_and_answers(shell):
    shell.press(quoted(APP) + "\r")
    shell.until("ready")
    (python,) = [one for one in shell.children() if "in_terminal.py" in " ".join(one.cmdline())]
    shell.press("say before\r")
    place = shell.until("before")
    python.send_signal(signal.SIGTSTP)
    place = shell.until("Stopped", place)
    shell.press("fg\r")
    place = shell.until("say before", shell.until("fg", place))  # keys are the app's again
    shell.press("say afterwards\r")
    with History() as history:

        def last() -> str:
            return history.branch(history.named("").leaf)[-1].content

        until(lambda: shell.read() or last() == "afterwards", "it is answered")
    shell.press("\x11")
    until(lambda: shell.read() or not python.is_running(), "the app has ended")
    with History() as history:
        contents = [one.content for one in history.branch(history.named("").leaf)]
    assert contents == ["say before", "before", "say afterwards", "afterwards"]


@pytest.mark.parametrize("verb", ["ask", "chat", "app"])
def test_a_terminal_that_is_closed_ends_program_and_engine_and_keeps_what_was_said(
    terminal, command, verb
):
    words = {
        "ask": [*command, "ask", "--save", "-m", "tiny", "forever"],
        "chat": [*command, "chat", "-m", "tiny"],
        "app": APP,
    }[verb]
    opened = terminal(*words)
    if verb != "ask":
        opened.until("ready")
        opened.press("forever\r")
    opened.until("line 1")  # of a thousand a second, the app does not draw all
    with History() as history:

        def kept() -> list[str]:
            return [one.content for one in history.branch(history.named("").leaf)]

        until(lambda: opened.read() or "line 1" in kept()[-1], "a second of it is saved")
        engines = opened.children()
        opened.hang_up()
        until(opened.gone, "the program has ended")
        until(lambda: not any(one.is_running() for one in engines), "the engine has ended")
        assert engines and kept()[0] == "forever" and "line 1\n" in kept()[-1]


def test_a_batch_whose_terminal_is_closed_goes_on_with_the_same_command(
    terminal, command, environment, tmp_path
):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "say one"}\n{"prompt": "forever"}\n')
    words = [*command, "batch", "-m", "tiny", str(source), str(output)]
    opened = terminal(*words)
    until(lambda: opened.read() or (output.exists() and output.read_bytes()), "a row is answered")
    engines = opened.children()
    opened.hang_up()
    until(opened.gone, "the program has ended")
    until(lambda: not any(one.is_running() for one in engines), "the engine has ended")
    source.write_text('{"prompt": "say one"}\n{"prompt": "say two"}\n')
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "2 rows: 1 answered, 1 were answered before" in done.stderr
