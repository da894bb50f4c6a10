"""A real disk without room, under every verb that writes: one line, nothing lost, nothing left."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import gguf_file

from localseek import nano

from .injections import small_disk, until


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", "1m") as made:
        (made.path / "models").mkdir()
        gguf_file.write_dense(made.path / "models" / "tiny.gguf")
        yield made


@pytest.fixture
def run(disk, command, environment):
    """Run the command line with the disk as its home."""
    at_home = {**environment, "LOCALSEEK_HOME": str(disk.place), "PYTHONDONTWRITEBYTECODE": "1"}

    def start(*words: str) -> tuple[int, str, str]:
        return disk.run([*command, *words], at_home)

    start.environment = at_home
    return start


def unfinished(folder: Path) -> list[str]:
    """Give the files that something was going to be."""
    ends = (".new", ".partial", ".tmp")
    return sorted(path.name for path in folder.rglob("*") if path.name.endswith(ends))


def test_without_room_an_answer_comes_all_the_same_and_nothing_that_was_saved_is_lost(disk, run):
    assert run("ask", "-q", "--save", "say first", "-m", "tiny") == (0, "first\n", "")
    disk.fill()
    status, out, said = run("ask", "-q", "--save", "say second", "-m", "tiny")
    assert (status, out) == (0, "second\n")
    assert "is full. Make room" in said and said.count("\n") == 1
    status, out, said = run("ask", "-q", "--continue", "say third", "-m", "tiny")
    assert (status, out) == (1, "")
    assert "is full. Make room" in said and said.count("\n") == 1
    listing = [sys.executable, "-m", "localseek", "models", "list"]
    status, out, said = disk.run(listing, run.environment)
    assert status == 0 and "tiny" in out
    assert unfinished(disk.path) == []
    disk.make_room()
    assert run("ask", "-q", "--continue", "say third", "-m", "tiny") == (0, "third\n", "")
    (kept,) = json.loads(run("history", "list", "--json")[1])
    assert (kept["title"], kept["messages"]) == ("say first", 4)


def test_a_disk_that_fills_up_in_a_chat_ends_the_saving_and_not_the_chat(disk, run, command):
    chat = disk.start(
        [*command, "chat", "-q", "-m", "tiny"], run.environment, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    chat.stdin.write(b"say first\n")
    chat.stdin.flush()
    assert chat.stdout.readline() == b"first\n"
    until(lambda: run_list(run)[0]["messages"] == 2, "the first answer is saved")
    disk.fill()
    out, said = chat.communicate(f"say {'long ' * 9000}\nsay third\n".encode(), timeout=60)
    assert chat.returncode == 0 and out.endswith(b"third\n")
    assert said.decode().count("is not saved from here on") == 1 and b"is full" in said
    disk.make_room()
    assert [one["title"] for one in run_list(run)] == ["say first"]


def run_list(run) -> list[dict]:
    return json.loads(run("history", "list", "--json")[1])


def test_a_batch_that_runs_out_of_room_goes_on_with_the_same_command(disk, run):
    rows = [{"prompt": f"say {number} {'x' * 5000}"} for number in range(9)]
    (disk.path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("batch", "-m", "tiny", f"{disk.place}/in.jsonl", f"{disk.place}/out.jsonl")
    disk.fill()
    status, _, said = run(*words)
    assert status == 1 and "Make room and run the same command again" in said
    assert said.splitlines()[-1].startswith("localseek: ")
    assert unfinished(disk.path) == []
    disk.make_room()
    with (disk.path / "filler").open("wb") as file:  # leaves room for the first rows only
        taken = sum(path.stat().st_size for path in disk.path.rglob("*") if path.is_file())
        file.write(bytes((1 << 20) - taken - (28 << 10)))
    status, _, said = run(*words)
    assert status == 1 and "No space left on device" in said
    answered = (disk.path / "out.jsonl").read_bytes().count(b"\n")
    assert 0 < answered < 9
    disk.make_room()
    assert run(*words)[0] == 0
    found = [json.loads(line) for line in (disk.path / "out.jsonl").read_text().splitlines()]
    assert [row["answer"] for row in found] == [row["prompt"][4:] for row in rows]


def test_a_conversion_without_room_is_one_line_and_the_next_one_is_whole(disk, run, nano_gguf):
    words = ("convert", str(nano.CHECKPOINT), f"{disk.place}/nano.gguf", "--type", "Q8_0")
    before = sorted(path.name for path in disk.path.iterdir())
    status, _, said = run(*words)
    assert status == 1 and said.splitlines()[-1].startswith("localseek: ")
    assert "No space left on device" in said
    assert set(os.listdir(disk.path)) - set(before) <= {"logs", "cache"}
    with small_disk(disk.place.with_name("larger"), "16m") as larger:
        target = larger.place / "nano.gguf"
        words = ("convert", str(nano.CHECKPOINT), str(target), "--type", "Q8_0")
        status, _, said = larger.run([sys.executable, "-m", "localseek", *words], run.environment)
        assert status == 0, said
        assert (larger.path / "nano.gguf").read_bytes() == nano_gguf.read_bytes()
