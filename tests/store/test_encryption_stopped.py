import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from histories import MAGIC, ROOT, SECRET, contents, fill, holding, opens, sequence_of

from localseek.store.history import cipher, conversion, database, leftovers
from localseek.store.history.conversion import convert
from localseek.store.history.database import (
    BusyError,
    HistoryError,
)
from localseek.store.history.history import History
from localseek.store.sequences import SequenceStore
from localseek.system import paths, private


def test_a_history_that_another_program_has_open_is_refused_by_name(home, keys):
    path = fill(home)
    code = (
        "import sys; from pathlib import Path\n"
        "from localseek.store.history.history import History\n"
        "with History(Path(sys.argv[1])):\n    print('open', flush=True); sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    other.stdout.readline()
    before = path.read_bytes()
    with pytest.raises(BusyError, match=rf"is open in process {other.pid} \(python.*Close it"):
        convert(path, None, keys[0], home / "sequences")
    assert path.read_bytes() == before
    other.communicate(timeout=30)
    convert(path, None, keys[0], home / "sequences")


def test_a_conversion_that_runs_is_not_begun_again_nor_cleared_away(home, keys):
    path = fill(home)
    begun = path.with_name(path.name + leftovers.NEW)
    begun.write_text("being written")
    with leftovers.converting(path) as alone:
        assert alone
        leftovers.clear_away(home)
        with pytest.raises(BusyError, match="Another process is converting"):
            convert(path, None, keys[0], home / "sequences")
        assert begun.exists()
    leftovers.clear_away(home)
    assert not begun.exists() and len(contents(path)[0]) == 2


def test_a_full_disk_leaves_the_history_as_it_was(home, keys, monkeypatch):
    path = fill(home)
    sequence_of(home, path)
    before = contents(path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(conversion, "_sync", full)
    with pytest.raises(HistoryError, match="No space left on device"):
        convert(path, None, keys[0], home / "sequences")
    assert contents(path) == before and len(list((home / "sequences").iterdir())) == 1
    assert path.read_bytes()[:16] == MAGIC


def test_too_little_room_is_said_before_anything_is_touched(home, keys, monkeypatch):
    path = fill(home)
    before = path.read_bytes()
    usage = shutil.disk_usage(home)._replace(free=2 * len(before) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda where: usage)
    with pytest.raises(BusyError, match=r"cannot be converted: No space .*needed.*Nothing was ch"):
        convert(path, None, keys[0], home / "sequences")
    assert path.read_bytes() == before
    assert {one.name for one in path.parent.iterdir()} == {path.name, "converting.lock"}


class Tight:
    """A connection on whose disk a new file has room for three pages."""

    def __init__(self, connection) -> None:
        self.connection = connection

    def execute(self, statement: str, *values):
        done = self.connection.execute(statement, *values)
        if statement.startswith("ATTACH"):
            self.connection.execute("PRAGMA fresh.max_page_count = 3")
        return done


def test_a_disk_that_gets_full_on_the_way_is_said_and_cleared_at_once(home, keys, monkeypatch):
    path = fill(home)
    before, write = contents(path), conversion._write
    monkeypatch.setattr(
        conversion, "_write", lambda connection, *words: write(Tight(connection), *words)
    )
    with pytest.raises(BusyError, match="No space left on device. Nothing was changed"):
        convert(path, None, keys[0], home / "sequences")
    assert {one.name for one in path.parent.iterdir()} == {path.name, "converting.lock"}
    assert contents(path) == before


def test_a_symbolic_link_stays_and_what_it_leads_to_is_converted(home, keys, tmp_path):
    path = fill(home)
    before = contents(path)
    elsewhere = tmp_path / "elsewhere" / "历史 😀"
    elsewhere.parent.mkdir()
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert convert(path, None, keys[0], home / "sequences")
    assert path.is_symlink() and cipher.is_encrypted(elsewhere)
    assert contents(path, keys[0])[:3] == before[:3]
    assert {one.name for one in elsewhere.parent.iterdir()} == {elsewhere.name, "converting.lock"}
    begun = elsewhere.with_name(elsewhere.name + leftovers.NEW)
    begun.write_text("left by a kill")
    leftovers.clear_away(home)
    assert not begun.exists()
    convert(path, keys[0], None, home / "sequences")
    assert contents(path) == before


def test_a_link_that_an_earlier_version_took_for_the_old_file_is_cleared_away(home, keys):
    path = fill(home)
    convert(path, None, keys[0], home / "sequences")
    zeros = home / "zeros"
    zeros.write_bytes(bytes(5000))
    path.with_name(path.name + leftovers.OLD).symlink_to(zeros)
    leftovers.clear_away(home)
    assert {one.name for one in path.parent.iterdir()} == {path.name, "converting.lock"}
    convert(path, keys[0], None, home / "sequences")
    assert len(contents(path)[0]) == 2 and zeros.exists()


def test_a_backup_made_of_hard_links_is_not_overwritten(home, keys):
    path = fill(home)
    name = sequence_of(home, path)
    backup = home / "backup"
    backup.mkdir()
    for one in (path, home / "sequences" / name):
        os.link(one, backup / one.name)
    before = contents(backup / path.name)
    assert not convert(path, None, keys[0], home / "sequences")
    assert contents(backup / path.name) == before and len(contents(path, keys[0])[0]) == 2
    assert (backup / name).read_text() == SECRET and not (home / "sequences" / name).exists()
    assert convert(path, keys[0], keys[1], home / "sequences")


def test_what_was_converted_meanwhile_is_not_called_damaged(home, keys, monkeypatch):
    path = fill(home)
    with pytest.raises(BusyError, match=r"Another process is converting .* Try again\."):
        History(path, key=keys[0])  # decrypted after somebody was asked for its passphrase
    connected = database._connected

    def overtaken(path: Path, key):
        connection = connected(path, key)
        copy = path.with_name("copy")
        shutil.copyfile(path, copy)
        path.write_bytes(bytes(path.stat().st_size))
        copy.replace(path)
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(database, "_connected", overtaken)
        with pytest.raises(BusyError, match=r"Another process is converting .* Try again\."):
            History(path)
    assert len(contents(path)[0]) == 2


STEPS = [(os, "link"), (os, "fsync"), (os, "close"), (Path, "replace"), (Path, "unlink"),
         (private, "overwrite"), (private, "erase"), (SequenceStore, "_written")]  # fmt: skip


def killed_at(step: int, convert_it) -> bool:
    """Do something in a process that is killed before its Nth step; tell whether it was."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] != 0
    try:
        left = step

        def counted(original):
            def call(*words, **named):
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), 9)
                return original(*words, **named)

            return call

        for owner, name in STEPS:
            setattr(owner, name, counted(getattr(owner, name)))
        convert_it()
        os._exit(0)
    finally:
        os._exit(1)


@pytest.fixture
def quick():
    """A folder whose files lie in memory: hundreds of syncs cost nothing there."""
    with tempfile.TemporaryDirectory(dir=paths.in_memory()) as folder:
        yield Path(folder)


@pytest.mark.parametrize("way", ["encrypt", "another passphrase", "decrypt"])
def test_killed_at_any_step_the_history_is_the_old_or_the_new_one_and_nothing_else_stays(
    quick, keys, way
):
    old, new = {"encrypt": (None, keys[0]), "decrypt": (keys[0], None)}.get(way, keys)
    filled = quick / "filled"
    filled.mkdir()
    path = fill(filled)
    sequence_of(filled, path)
    if old is not None:
        convert(path, None, old, filled / "sequences")
    copy = contents(path, old)
    step, seen = 1, set()
    while True:
        home = quick / str(step)
        with History(leftovers.history_file(filled), key=old) as history:
            history.change(2, title="in the log")  # which is copied as a kill would leave it
            copy = contents(history.path, old)
            shutil.copytree(filled, home)
        path = leftovers.history_file(home)
        killed = killed_at(step, lambda p=path, h=home: convert(p, old, new, h / "sequences"))
        leftovers.clear_away(home)
        assert {one.name for one in path.parent.iterdir()} <= {
            path.name, path.name + "-wal", path.name + "-shm", "converting.lock",
        }  # fmt: skip
        found, other = (old, new) if opens(path, old) else (new, old)
        assert not opens(path, other)
        assert contents(path, found)[:3] == copy[:3]
        if found is not None:
            assert holding(home) == []
        seen.add("old" if found == old else "new")
        if not killed:
            assert found == new
            break
        step += 1
    assert seen == {"old", "new"} and step > 10
