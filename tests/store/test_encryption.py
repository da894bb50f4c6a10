import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from histories import MAGIC, ROOT, SECRET, contents, fill, holding, sequence_of

from localseek.store.history import cipher, leftovers
from localseek.store.history.conversion import SEQUENCES, convert
from localseek.store.history.database import (
    HistoryError,
    LockedError,
    WrongPassphraseError,
)
from localseek.store.history.history import History
from localseek.store.history.vault import Vault
from localseek.store.sequences import SequenceStore


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
