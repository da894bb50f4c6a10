import os

import pytest

from localseek.sequences import STALE_SECONDS, SequenceStore


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


def test_what_a_killed_process_left_is_swept_away_later(tmp_path):
    store = SequenceStore(tmp_path)
    left, running = tmp_path / "a-1.partial", tmp_path / "a-2.partial"
    left.write_bytes(b"x")
    running.write_bytes(b"x")
    long_ago = left.stat().st_mtime - STALE_SECONDS - 1
    os.utime(left, (long_ago, long_ago))
    store.write("b", [memoryview(b"x")])
    assert not left.exists()
    assert running.exists()


def test_clear_removes_all_and_says_how_much(tmp_path):
    store = SequenceStore(tmp_path)
    put(store, "a", 100, 1000)
    put(store, "b", 23, 2000)
    (tmp_path / "notes.txt").write_text("mine")
    assert store.clear() == (2, 123)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
