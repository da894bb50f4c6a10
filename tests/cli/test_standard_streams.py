import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0


def test_a_dash_among_the_words_of_ask_is_standard_input(run_cli):
    outcome = run_cli("ask", "-q", "-", stdin=b"say from a pipe\n")
    assert (outcome.status, outcome.out) == (0, "from a pipe\n")
    sent = json.loads(run_cli("ask", "-q", "echo this", "-f", "-", stdin=b"once").out)["request"]
    assert sent["messages"][0]["content"] == "echo this\n\nonce"


def test_batch_writes_to_standard_output_and_reads_standard_input(run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = b'{"id": "a", "prompt": "say one"}\n{"id": "b", "prompt": "fail"}\n'
    outcome = run_cli("batch", "-", "-", "--json", stdin=rows)
    assert outcome.status == 3
    answers = {row["id"]: row for row in map(json.loads, outcome.out.splitlines())}
    assert answers["a"]["answer"] == "one" and "9,000 tokens" in answers["b"]["error"]
    assert json.loads(outcome.err.splitlines()[-1])["answered"] == 1
    assert list(tmp_path.iterdir()) == []
    assert run_cli("batch", "-", "out.jsonl", "-q", stdin=rows).status == 3
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
def test_the_app_without_a_terminal_names_what_needs_none(command, environment, stream):
    ours, theirs = pty.openpty()
    streams = {"stdin": theirs, "stdout": theirs, stream: subprocess.DEVNULL}
    try:
        done = subprocess.run(
            command, env=environment, stderr=subprocess.PIPE, text=True, timeout=DEADLINE_S,
            check=False, **streams,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 2
    assert done.stderr == (
        "localseek: The app needs a terminal for its input and output. "
        "Use localseek chat or localseek ask, which need none.\n"
    )


@pytest.mark.parametrize("kind", ["dumb", None])
def test_the_app_in_a_dumb_terminal_says_so(command, environment, kind):
    changed = {name: value for name, value in environment.items() if name != "TERM"}
    if kind:
        changed["TERM"] = kind
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            command, env=changed, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, text=True,
            timeout=DEADLINE_S, check=False,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "TERM is dumb or not set" in done.stderr and "localseek chat" in done.stderr


@pytest.mark.parametrize("words", [["--help"], ["models", "list"], ["ask", "x", "-m", "tiny"]])
def test_ctrl_c_at_any_moment_leaves_no_traceback(environment, words):
    # In the very first milliseconds Python itself starts, which nothing of ours can guard.
    command = [sys.executable, "-m", "localseek", *words]
    for delay_ms in range(15, 200, 12):
        program = subprocess.Popen(
            command, env=environment, cwd=ROOT, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        time.sleep(delay_ms / 1000)
        program.send_signal(signal.SIGINT)
        _, err = program.communicate(timeout=DEADLINE_S)
        inside = "localseek/" in err and "Traceback" in err
        assert not inside, f"after {delay_ms} ms:\n{err}"
        assert program.returncode in (0, 1, 130, -signal.SIGINT)
