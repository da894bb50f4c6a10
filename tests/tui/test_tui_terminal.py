"""The app in a real terminal (a pty): what the screen gets, and what a kill leaves."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from time import monotonic

import pytest
from disk_scan import mark, marks_in

from localseek.store.history.history import History
from localseek.terminal.first_picture import WELCOME, lines

PATIENCE_S = 60.0
ESCAPES = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\x1b[=>]|\x1b\][^\x07\x1b]*[\x07]")


class Terminal:
    """A pty with the app in it; `seen` is all that it wrote."""

    def __init__(self, *arguments: str, size=(30, 100), **environment: str) -> None:
        self.main, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        self.seen = b""
        self.process = subprocess.Popen(
            [sys.executable, *arguments], stdin=child, stdout=child, stderr=child,
            env=os.environ | {"TERM": "xterm-256color"} | environment, start_new_session=True,
        )  # fmt: skip
        os.close(child)

    def read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self.main], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self.main, 65536)
        except OSError:  # the program has ended
            return False
        self.seen += data
        return bool(data)

    def until(self, text: str) -> None:
        deadline = monotonic() + PATIENCE_S
        while text not in self.text():
            assert monotonic() < deadline, f"{text!r} never came: {self.text()[-2000:]}"
            self.read(0.2)

    def text(self) -> str:
        return ESCAPES.sub(b"", self.seen).decode(errors="replace")

    def type(self, text: str) -> None:
        os.write(self.main, text.encode())

    def ended(self) -> int:
        deadline = monotonic() + PATIENCE_S
        while self.process.poll() is None and monotonic() < deadline:
            self.read(0.1)
        return self.process.wait(1)

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self.main)


@pytest.fixture
def terminal():
    opened = []

    def start(*arguments: str, **options) -> Terminal:
        opened.append(Terminal(*arguments, **options))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


APP = str(Path(__file__).with_name("in_terminal.py"))


def test_a_childs_flood_of_errors_goes_to_the_log_and_never_to_the_screen(
    terminal, temporary_home
):
    app = terminal(APP)
    app.until("ready")
    app.type("hello\r")
    app.until("is 605.")
    app.type("\x11")  # Ctrl+Q
    assert app.ended() == 0
    assert b"JUNK" not in app.seen
    assert b"JUNK-FROM-A-DRIVER" in (temporary_home / "logs" / "engine.log").read_bytes()


def test_a_temporary_conversation_leaves_no_byte_on_the_disk(terminal, temporary_home, tmp_path):
    places = {name: str(tmp_path / name) for name in ("TMPDIR", "XDG_CACHE_HOME", "XDG_DATA_HOME")}
    for place in places.values():
        Path(place).mkdir()
    app = terminal(APP, **places)
    app.until("ready")
    app.type("/temporary\r")
    app.until("emporary")
    app.type(f"say {mark('temporary')}\r")
    app.until(mark("temporary"))
    app.type("\x0e\x0e")  # Ctrl+N twice: it is gone
    app.until("gone")
    app.type(f"say {mark('kept')}\r")
    app.until(mark("kept"))
    app.type("\x11")
    assert app.ended() == 0
    folders = [temporary_home, *map(Path, places.values())]
    files = [path for one in folders for path in one.rglob("*") if path.is_file()]
    assert {found for path in files for found in marks_in(path.read_bytes())} == {"kept"}


def test_a_terminal_that_is_closed_keeps_what_was_said(terminal):
    app = terminal(APP)
    app.until("ready")
    app.type("forever\r")
    app.until("line 1")  # of a thousand a second, not all are ever drawn
    os.killpg(app.process.pid, signal.SIGHUP)
    app.ended()
    with History() as history:
        prompt, answer = history.branch(history.named("").leaf)
    assert prompt.content == "forever" and "line 0" in answer.content


def test_the_real_thing_answers_and_the_next_start_resumes_it(terminal, nano_gguf, clear):
    first = clear("What is 12 + 34?")
    second = clear("What is 5 x 6?", ((first, "12 + 34 = 46"),))
    again = ("-m", "localseek", "-m", str(nano_gguf), "--temperature", "0")
    app = terminal(*again)
    app.until("ready")
    app.type(f"{first}\r")
    app.until("= 46")
    app.type("\x11")
    assert app.ended() == 0
    app = terminal(*again)
    app.until("ready")
    app.type("\x12")  # Ctrl+R
    app.until("Conversations")
    app.until(first)
    app.type("\r")
    app.until("= 46")
    app.type(f"{second}\r")
    app.until("= 30")
    app.type("/quit\r")
    assert app.ended() == 0
    with History() as history:
        texts = [one.content for one in history.branch(history.named("").leaf)]
    assert texts[0] == first and texts[2] == second and len(texts) == 4


def test_no_color_shows_no_colour(terminal):
    app = terminal(APP, NO_COLOR="1")
    app.until("ready")
    colours = re.findall(rb"38;2;(\d+);(\d+);(\d+)|38;5;(\d+)", app.seen)
    assert all(r == g == b for r, g, b, _ in colours if r), "greys only"


def test_what_is_typed_before_the_app_is_there_stands_in_its_prompt(terminal, nano_gguf, clear):
    app = terminal("-m", "localseek", "-m", str(nano_gguf), "--no-save")
    app.until("starting…")
    assert "Ask something" in app.text() and "╭──" in app.text()
    before = len(app.seen)
    app.type(f"{clear('What is 12 + 34?')}\r")
    app.until("= 46")
    assert b"12 + 34" not in app.seen[: before + 20], "it is not echoed"
    app.type("/quit\r")
    assert app.ended() == 0


def test_a_start_that_fails_gives_the_terminal_back(terminal, tmp_path):
    code = (
        "from localseek.terminal.first_picture import first_picture\n"
        "with first_picture('nano', 'Welcome.'):\n    raise SystemExit('broken start')\n"
    )
    app = terminal("-c", code)
    assert app.ended() == 1
    app.read(0.2)
    places = [app.seen.index(part) for part in (b"\x1b[?1049h", b"\x1b[?1049l", b"broken")]
    assert places == sorted(places)
    attributes = termios.tcgetattr(app.main)
    assert attributes[3] & termios.ECHO and attributes[3] & termios.ICANON


@pytest.mark.parametrize("size", [(100, 30), (40, 12), (20, 3), (300, 80), (1, 1)])
def test_the_first_picture_is_never_wider_or_higher_than_the_terminal(size):
    drawn = lines("a-model-with-a-long-name", WELCOME, *size)
    assert len(drawn) == size[1] and all(len(line) <= size[0] for line in drawn)



def test_an_app_whose_pictures_would_go_to_a_file_says_so(terminal, tmp_path):
    command = f"{sys.executable} -m localseek 2> {tmp_path}/err; echo ended $?"
    app = terminal("-c", f"import os; os.execvp('sh', ['sh', '-c', {command!r}])")
    app.until("ended 2")
    assert "draws on standard error" in (tmp_path / "err").read_text()
