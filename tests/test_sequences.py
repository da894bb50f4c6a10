import fcntl
import os

import pytest

from localseek.errors import UsageError
from localseek.store.sequences import STALE_SECONDS, SequenceStore


def put(store: SequenceStore, prefix: str, size: int, used: int) -> str:
    path = store.write(prefix, [memoryview(bytes(size))])
    os.utime(path, (used, used))
    return path.name


def names(store: SequenceStore) -> list[str]:
    return [saved.path.name for saved in store.list()]


def test_the_longest_unused_go_when_the_limit_is_reached(tmp_path):
    store = SequenceStore(tmp_path, limit_bytes=250)
    old, recent = put(store, "a", 100, 1000), put(store, "b", 100, 2000)
    assert names(store) == [recent, old]
    new = put(store, "c", 100, 3000)
    assert names(store) == [new, recent]


def test_a_file_that_was_used_again_stays(tmp_path):
    store = SequenceStore(tmp_path, limit_bytes=250)
    first, second = put(store, "a", 100, 1000), put(store, "b", 100, 2000)
    store.touch(tmp_path / first)
    third = put(store, "c", 100, 3000)
    assert first in names(store)
    assert third in names(store)
    assert second not in names(store)


def test_the_new_file_goes_too_when_it_alone_is_beyond_the_limit(tmp_path):
    store = SequenceStore(tmp_path, limit_bytes=50)
    put_name = store.write("a", [memoryview(bytes(100))]).name
    assert put_name not in names(store)


def test_files_are_readable_by_their_owner_only(tmp_path):
    path = SequenceStore(tmp_path).write("a", [memoryview(b"x")])
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_failed_write_leaves_nothing(tmp_path):
    def parts():
        yield memoryview(b"begun")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        SequenceStore(tmp_path).write("a", parts())
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_swept_away_and_what_is_being_written_is_not(tmp_path):
    store = SequenceStore(tmp_path)
    left, running, begun = (tmp_path / f"a-{number}.partial" for number in range(3))
    for path in (left, running, begun):
        path.write_bytes(b"x")
    for path in (left, running):
        long_ago = path.stat().st_mtime - STALE_SECONDS - 1
        os.utime(path, (long_ago, long_ago))
    with running.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        store.write("b", [memoryview(b"x")])
    assert not left.exists()
    assert running.exists() and begun.exists()


def test_what_is_no_file_of_its_own_is_neither_read_nor_removed(tmp_path):
    store = SequenceStore(tmp_path, limit_bytes=10)
    (tmp_path / "target").write_bytes(bytes(100))
    (tmp_path / "a.sequence").symlink_to(tmp_path / "target")
    (tmp_path / "b.sequence").mkdir()
    os.mkfifo(tmp_path / "c.sequence")
    assert store.list() == []
    kept = store.write("d", [memoryview(b"x")])
    assert [one.path for one in store.list()] == [kept]
    assert store.clear() == (1, 1)
    assert len(list(tmp_path.iterdir())) == 4


def test_many_small_files_are_kept_within_a_limit_too(tmp_path, monkeypatch):
    monkeypatch.setattr("localseek.store.sequences.LIMIT_FILES", 2)
    store = SequenceStore(tmp_path)
    put(store, "a", 1, 1000)
    kept = [put(store, "b", 1, 2000), put(store, "c", 1, 3000)]
    assert sorted(names(store)) == sorted(kept)


def test_the_limit_is_the_users_to_set(tmp_path, monkeypatch):
    assert SequenceStore(tmp_path).limit_bytes == 4 * 10**9
    monkeypatch.setenv("LOCALSEEK_SEQUENCE_LIMIT", "20GiB")
    assert SequenceStore(tmp_path).limit_bytes == 20 * 2**30
    monkeypatch.setenv("LOCALSEEK_SEQUENCE_LIMIT", "much")
    with pytest.raises(UsageError, match="LOCALSEEK_SEQUENCE_LIMIT 'much' is not a size"):
        SequenceStore(tmp_path)


def test_clear_removes_all_and_says_how_much(tmp_path):
    store = SequenceStore(tmp_path)
    put(store, "a", 100, 1000)
    put(store, "b", 23, 2000)
    (tmp_path / "notes.txt").write_text("mine")
    assert store.clear() == (2, 123)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_what_is_cleared_or_goes_with_its_conversation_is_overwritten_first(tmp_path):
    store = SequenceStore(tmp_path)
    names = []
    for number in range(2):
        path = store.write("m", [memoryview(b"words " * 1000)])
        names.append(path.name)
        os.link(path, tmp_path / f"another name {number}")
    store.remove_named(names[:1])
    assert set((tmp_path / "another name 0").read_bytes()) == {0}
    assert store.clear() == (1, 6000)
    assert set((tmp_path / "another name 1").read_bytes()) == {0}
