import errno
import os
import random
import signal
import subprocess
import time

import pytest

from localseek.store.pulling import downloading

WEIGHTS = random.Random(3).randbytes(3_000_000)
NAME = "deepseek-ai/Tiny"
SHARD = "model.safetensors"
FILES = {"config.json": b'{"architectures": ["X"]}', SHARD: WEIGHTS}


@pytest.fixture
def served(serve):
    return serve({NAME: FILES})


@pytest.fixture
def folder(home):
    return home / "checkpoints" / NAME


def grown(folder):
    return max((p.stat().st_size for p in folder.rglob("*.part")), default=0)


def until(condition, process):
    """Look until something is so; the process must not end before."""
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)


def test_a_killed_pull_goes_on_where_it_was(served, pull_command, folder):
    served.faults.bytes_per_s = 2_000_000
    for least in (100_000, 1_000_000):
        process = subprocess.Popen(**pull_command(served, NAME))
        until(lambda least=least: grown(folder) > least, process)
        process.kill()
        process.communicate()
        assert not (folder / SHARD).exists()
    served.faults.bytes_per_s = 0
    done = subprocess.run(**pull_command(served, NAME), check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / SHARD).read_bytes() == WEIGHTS
    first, second, third = served.bytes_asked_from(SHARD)
    assert first == 0 and second > 100_000 and third > max(second, 1_000_000)
    assert "Going on where it stopped, at " in done.stderr


def test_ctrl_c_ends_a_pull_at_once_with_one_line(served, pull_command, folder):
    served.faults.bytes_per_s = 200_000
    process = subprocess.Popen(**pull_command(served, NAME))
    until(lambda: grown(folder) > 10_000, process)
    process.send_signal(signal.SIGINT)
    came = grown(folder)
    out, err = process.communicate()
    assert process.returncode == 130
    assert grown(folder) - came < 1_500_000, "it did not wait for the rest"
    last = err.splitlines()[-1]
    assert last.startswith("Stopped at ") and last.endswith("%; the same command goes on.")
    assert not out and "Traceback" not in err
    assert grown(folder) > 10_000


def test_a_disk_that_fills_up_on_the_way_is_said_and_what_came_is_kept(
    served, run_cli, folder, monkeypatch
):
    real, room = downloading._write, 1_000_000

    def write(descriptor, data):
        nonlocal room
        written = data[:room]
        real(descriptor, written)
        room -= len(written)
        if len(written) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(downloading, "_write", write)
    done = run_cli("pull", NAME)
    assert done.status == 1
    assert done.err.splitlines()[-1] == (
        f"localseek: {SHARD} cannot be written: No space left on device. Make room, give another "
        "folder with --to, or set LOCALSEEK_HOME to a larger disk. What has come is kept."
    )
    kept = grown(folder)
    assert 900_000 < kept <= 1_000_000
    room = 10**9
    assert run_cli("pull", NAME).status == 0
    assert (folder / SHARD).read_bytes() == WEIGHTS
    assert served.bytes_asked_from(SHARD) == [0, kept]


def test_where_no_terminal_shows_a_bar_a_line_comes_now_and_then(served, run_cli, monkeypatch):
    from localseek.commands.library import pull_progress

    served.faults.bytes_per_s = 6_000_000
    monkeypatch.setattr(pull_progress, "SECONDS_BETWEEN_LINES", 0.2)
    done = run_cli("pull", NAME)
    assert done.status == 0
    lines = [line for line in done.err.splitlines() if "% " in line and " of 3.0 MB" in line]
    assert lines and "\r" not in done.err


def test_what_another_program_wrote_into_a_part_is_found_out(served, run_cli, folder, monkeypatch):
    real, meddled = downloading._write, []

    def write(descriptor, data):
        real(descriptor, data)
        if not meddled and grown(folder) > 1_000_000:
            part = max(folder.rglob("*.part"), key=lambda path: path.stat().st_size)
            with part.open("ab") as other:
                meddled.append(other.write(b"meddling"))

    monkeypatch.setattr(downloading, "_write", write)
    assert run_cli("pull", NAME).status == 0 and meddled
    assert (folder / SHARD).read_bytes() == WEIGHTS
    assert served.bytes_asked_from(SHARD) == [0, 0]
