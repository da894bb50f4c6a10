import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from localseek.store.history import cipher, conversion, database, leftovers
from localseek.store.history.conversion import SEQUENCES, convert
from localseek.store.history.database import (
    BusyError,
    HistoryError,
    LockedError,
    WrongPassphraseError,
)
from localseek.store.history.history import History
from localseek.store.history.vault import Vault
from localseek.store.sequences import SequenceStore
from localseek.system import paths, private
from localseek.text.conversation import Reply

ROOT = Path(__file__).parents[2]
SECRET = "SECRET-Wörter 北京"
MAGIC = b"SQLite format 3\0"


@pytest.fixture(scope="module")
def keys():
    """Two keys; deriving one takes a fifth of a second."""
    return [cipher.derive(word, cipher.new_salt()) for word in ("one", "two")]


def fill(home: Path, key=None) -> Path:
    """Save two conversations."""
    (home / "history").mkdir(exist_ok=True)
    path = leftovers.history_file(home)
    with History(path, key=key) as history:
        for text in (SECRET, "other words"):
            number = history.new(text, "nano", SECRET)
            prompt = history.add_prompt(number, None, text)
            answer = history.begin_answer(number, prompt, "nano")
            history.write_answer(answer, Reply("because", f"answer to {text}", "stop"))
    return path


def sequence_of(home: Path, path: Path) -> str:
    (home / "sequences").mkdir(exist_ok=True)
    name = SequenceStore(home / "sequences").write("model", [memoryview(SECRET.encode())]).name
    with History(path) as history:
        history.keep_sequence(1, name)
    return name


def holding(home: Path) -> list[str]:
    """Name the files below a home that hold the secret words."""
    codings = ("utf-8", "utf-16-le", "utf-16-be")
    return [
        path.name for path in home.rglob("*")
        if path.is_file() and any(SECRET[:6].encode(c) in path.read_bytes() for c in codings)
    ]  # fmt: skip


def contents(path: Path, key=None):
    with History(path, key=key) as history:
        found = [hit.excerpt for hit in history.search("answer to")]
        rows = history._db.execute("SELECT conversation, name FROM sequence").fetchall()
        talks = [
            (one.title, one.system, [m.content for m in history.all_messages(one.id)])
            for one in history.conversations()
        ]
        return talks, sorted(found), len(rows), history.secret(SEQUENCES)


def test_an_encrypted_history_holds_all_that_the_plain_one_did_and_shows_none_of_it(home, keys):
    path = fill(home)
    sequence_of(home, path)
    before = contents(path)
    assert "history.sqlite3" in holding(home)
    convert(path, None, keys[0], home / "sequences")
    assert holding(home) == [] and path.read_bytes()[:16] != MAGIC
    assert contents(path, keys[0])[:3] == before[:3]
    assert {one.name for one in (home / "history").iterdir()} == {path.name, "converting.lock"}
    assert {one.stat().st_mode & 0o777 for one in (home / "history").iterdir()} == {0o600}


def test_saved_sequences_are_sealed_and_plain_again_and_their_conversation_knows_them(home, keys):
    path = fill(home)
    name = sequence_of(home, path)
    convert(path, None, keys[0], home / "sequences")
    with History(path, key=keys[0]) as history:
        key = history.secret(SEQUENCES)
        ((_, sealed),) = history._db.execute("SELECT * FROM sequence").fetchall()
    assert sealed != name and "model" not in sealed
    store = SequenceStore(home / "sequences", key=key)
    with store.opened(home / "sequences" / sealed) as content:
        assert bytes(content.first(content.size)).decode() == SECRET
    convert(path, keys[0], None, home / "sequences")
    (plain,) = (home / "sequences").iterdir()
    assert plain.read_bytes().decode() == SECRET
    with History(path) as history:
        assert history.delete([1]).sequences == (plain.name,)
        assert history.secret(SEQUENCES) is None


def test_another_passphrase_keeps_all_and_the_sequences_as_they_are(home, keys):
    path = fill(home)
    sequence_of(home, path)
    convert(path, None, keys[0], home / "sequences")
    before = contents(path, keys[0])
    sealed = {one.name: one.read_bytes() for one in (home / "sequences").iterdir()}
    convert(path, keys[0], keys[1], home / "sequences")
    assert contents(path, keys[1]) == before
    assert {one.name: one.read_bytes() for one in (home / "sequences").iterdir()} == sealed
    with pytest.raises(WrongPassphraseError):
        History(path, key=keys[0])


def test_a_wrong_passphrase_and_none_are_said_as_such_and_touch_nothing(home):
    path = fill(home)
    vault = Vault(path)
    vault.encrypt("pässword")
    vault.open().close()
    before = path.read_bytes()
    again = Vault(path)
    assert again.encrypted and again.locked
    with pytest.raises(WrongPassphraseError, match="The passphrase is wrong: it does not open"):
        again.unlock("password")
    with pytest.raises(LockedError, match="is encrypted. Its passphrase opens it"):
        again.open()
    assert again.locked and path.read_bytes() == before
    again.unlock("pa\u0308ssword")  # the same letters, typed on another system
    with again.open() as history:
        assert len(history.conversations()) == 2


def test_sqlcipher_itself_opens_the_file_with_the_passphrase(home):
    path = fill(home)
    Vault(path).encrypt("it's")
    connection = cipher.connect(path, None, 1.0)
    connection.execute("PRAGMA key = 'it''s'")
    assert connection.execute("SELECT count(*) FROM message").fetchone() == (4,)
    connection.close()


def test_the_log_of_an_encrypted_history_and_its_deletions_hold_no_words(home, keys):
    path = fill(home)
    convert(path, None, keys[0], home / "sequences")
    with History(path, key=keys[0]) as history:
        number = history.new(SECRET, "nano")
        history.add_prompt(number, None, SECRET)
        assert path.with_name(path.name + "-wal").stat().st_size > 0
        assert holding(home) == []
        assert [hit.excerpt for hit in history.search("北京")][:1] == [SECRET]
        assert history.delete([number]).overwritten
        assert path.with_name(path.name + "-wal").stat().st_size == 0


@pytest.mark.parametrize("place", [5, 100, 5000, -100])
def test_a_damaged_encrypted_history_ends_in_one_line(home, keys, place):
    path = fill(home)
    convert(path, None, keys[0], home / "sequences")
    contents(path, keys[0])
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    key = keys[0] if Vault(path).encrypted else None  # the salt says that it is
    with pytest.raises(HistoryError, match="damaged" if place != 100 else "passphrase is wrong"):
        contents(path, key)
    assert path.read_bytes() == content


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


def opens(path: Path, key) -> bool:
    try:
        History(path, key=key).close()
    except (LockedError, HistoryError):
        return False
    return True


def test_without_the_extra_it_is_said_what_to_install_and_nothing_is_touched(
    home, keys, monkeypatch
):
    path = fill(home)
    convert(path, None, keys[0], home / "sequences")
    before = path.read_bytes()
    monkeypatch.setitem(sys.modules, "sqlcipher3", None)
    vault = Vault(path)
    for attempt in (vault.need_library, lambda: vault.unlock("one")):
        with pytest.raises(LockedError, match=r'not installed.*pip install "localseek\[encrypt\]"'):
            attempt()
    assert not vault.askable and path.read_bytes() == before


def test_a_plain_history_needs_nothing_of_the_extra(home):
    code = (
        "import sys; sys.modules['sqlcipher3'] = sys.modules['cryptography'] = None\n"
        "from pathlib import Path; from localseek.store.history.vault import Vault\n"
        "with Vault().open() as history:\n    history.new('q', 'nano')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LOCALSEEK_HOME": str(home)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    with closing(sqlite3.connect(leftovers.history_file(home))) as db:
        assert db.execute("SELECT count(*) FROM conversation").fetchone() == (1,)
