import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from localseek.engine.process.client import Child
from localseek.options import LoadOptions
from localseek.store.sequences import SequenceStore
from localseek.system import paths, private

FAKE_ENGINE = [sys.executable, str(Path(__file__).parents[1] / "fakes" / "engine.py")]


@pytest.fixture
def no_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.usefixtures("no_umask")
def test_folders_and_files_are_their_owners_only_whatever_the_umask(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCALSEEK_HOME", str(tmp_path / "deep" / "home"))
    paths.folder("logs")
    with private.opened(paths.log_file("x"), "ab") as file:
        file.write(b"x")
    private.write_whole(paths.home() / "settings.toml", "x")
    assert {mode(tmp_path / "deep"), mode(paths.home()), mode(paths.home() / "logs")} == {0o700}
    assert mode(paths.home() / "logs" / "x.log") == mode(paths.home() / "settings.toml") == 0o600


@pytest.mark.usefixtures("no_umask")
def test_what_was_looser_is_tightened_and_what_is_not_ours_to_change_stays(home, tmp_path):
    (home / "history").mkdir(mode=0o777)
    (home / "models").mkdir(mode=0o755)
    for name in ("history/history.sqlite3", "settings.toml", "models/m.gguf", "of the user"):
        (home / name).write_text("")
        (home / name).chmod(0o644)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    (elsewhere / "x").touch(0o644)
    (home / "sequences").symlink_to(elsewhere)
    home.chmod(0o755)
    private.tighten(home)
    assert {mode(home), mode(home / "history"), mode(home / "models")} == {0o700}
    assert mode(home / "history/history.sqlite3") == mode(home / "settings.toml") == 0o600
    assert mode(home / "models/m.gguf") == mode(home / "of the user") == 0o644
    assert (mode(elsewhere), mode(elsewhere / "x")) == (0o755, 0o644)


def test_the_users_own_home_is_never_closed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    tmp_path.chmod(0o755)
    private.tighten(tmp_path)
    assert mode(tmp_path) == 0o755


def test_what_is_erased_is_overwritten_before_it_goes(tmp_path):
    path, other = tmp_path / "words", tmp_path / "another name"
    path.write_bytes(b"secret " * 300_000)
    os.link(path, other)
    private.erase(path)
    assert not path.exists() and set(other.read_bytes()) == {0}
    assert other.stat().st_size == 2_100_000
    private.erase(path)  # gone already


def test_what_is_read_is_not_erased_meanwhile(tmp_path):
    path = tmp_path / "words"
    path.write_bytes(b"secret")
    with private.reading(path) as file:
        erasing = threading.Thread(target=private.erase, args=(path,))
        erasing.start()
        erasing.join(0.05)
        assert erasing.is_alive() and file.read() == b"secret"
    erasing.join(30)
    assert not path.exists()


def test_a_mapping_that_is_left_over_keeps_nobody_from_erasing(tmp_path):
    path = SequenceStore(tmp_path).write("m", [memoryview(b"secret")])
    with SequenceStore(tmp_path).opened(path) as content:
        left = content.first(6)
    os.link(path, tmp_path / "another name")
    private.erase(path)
    assert bytes(left) == (tmp_path / "another name").read_bytes() == bytes(6)


def test_who_reads_for_ever_keeps_nobody_from_removing(tmp_path, monkeypatch):
    monkeypatch.setattr(private, "READING_S", 0.0)
    path = tmp_path / "words"
    path.write_bytes(b"secret")
    with private.reading(path) as file:
        private.erase(path)
        assert not path.exists() and file.read() == b"secret"


def test_a_file_made_like_another_is_as_closed_as_that(tmp_path):
    model, path = tmp_path / "out", tmp_path / "out.new"
    for wanted in (0o600, 0o640, 0o644):
        model.touch()
        model.chmod(wanted)
        private.make_like(model, path)
        assert mode(path) == wanted and path.stat().st_size == 0


MEMORY = """
import ctypes, resource
from localseek.system.dumps import keep_memory_private
keep_memory_private()
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
@pytest.mark.parametrize(("inspectable", "dumpable"), [("", 0), ("1", 1)])
def test_no_core_is_dumped_and_memory_is_closed_unless_it_is_to_be_inspected(
    inspectable, dumpable
):
    environment = os.environ | {"LOCALSEEK_INSPECTABLE": inspectable}
    done = subprocess.run([sys.executable, "-c", MEMORY], env=environment, capture_output=True,
                          text=True, check=True)  # fmt: skip
    assert done.stdout == f"(0, 0) {dumpable}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_engine_and_a_verb_with_words_dump_no_core(environment, tmp_path):
    def limit(pid: int) -> list[str]:
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        return next(line.split()[4:6] for line in limits if line.startswith("Max core"))

    with Child(LoadOptions()) as engine:
        engine.ask("machine")
        assert limit(engine.pid) == ["0", "0"]
    command = [sys.executable, str(Path(__file__).parents[1] / "fakes" / "run.py"), "chat"]
    chat = subprocess.Popen(
        [*command, "-q", "-m", "tiny"], env=environment, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    chat.stdin.write("say one\n")
    chat.stdin.flush()
    assert chat.stdout.readline() == "one\n"
    assert limit(chat.pid) == ["0", "0"]
    chat.communicate(timeout=30)


def test_a_file_that_a_full_disk_cannot_overwrite_is_removed_all_the_same(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"words")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(private, "overwrite", full)
    private.erase(path)
    assert not path.exists()
