import threading

import pytest

from localseek.errors import LocalseekError
from localseek.store.pulling.shards import ShardsAhead


class Source:
    """Shards that come when they are let in, and how many of them were there at once."""

    def __init__(self, folder):
        self.folder, self.most, self.fetched = folder, 0, []
        self.broken = ""
        self.changed = threading.Condition()

    def fetch(self, name):
        if name == self.broken:
            raise LocalseekError(f"{name} came twice with a wrong checksum.", "Try later.")
        (self.folder / name).write_bytes(name.encode())
        with self.changed:
            self.most = max(self.most, len(list(self.folder.iterdir())))
            self.fetched.append(name)
            self.changed.notify_all()

    def remove(self, name):
        (self.folder / name).unlink(missing_ok=True)

    def wait_for(self, name):
        with self.changed:
            assert self.changed.wait_for(lambda: name in self.fetched, timeout=20)


@pytest.fixture
def source(tmp_path):
    return Source(tmp_path)


@pytest.fixture
def ahead(source):
    shards = ShardsAhead(source.folder, source.fetch, source.remove, RuntimeError)
    yield shards
    shards.close()


def test_the_next_shard_comes_while_one_is_read_and_no_more(source, ahead):
    names = [f"{n}.safetensors" for n in range(6)]
    ahead.order(names)
    for name, following in zip(names, [*names[1:], ""], strict=True):
        ahead.take(name)
        assert (source.folder / name).read_bytes() == name.encode()
        if following:
            source.wait_for(following)
        ahead.give_back(name)
        assert not (source.folder / name).exists()
    assert source.most == 2 and source.fetched == names


def test_a_conversion_that_holds_on_to_shards_gets_those_that_it_asks_for(source, ahead):
    names = ["a", "b", "c", "d"]
    ahead.order(names)
    for name in names:
        ahead.take(name)
    assert source.fetched == names
    for name in names:
        ahead.give_back(name)


def test_what_was_not_ordered_can_be_taken_and_what_was_never_taken_given_back(source, ahead):
    (source.folder / "old").write_bytes(b"of a killed run")
    ahead.give_back("old")
    ahead.order(["a"])
    ahead.take("b")
    ahead.take("a")
    assert not (source.folder / "old").exists()


def test_a_shard_that_cannot_come_ends_the_wait_with_the_readers_error(source, ahead):
    source.broken = "b"
    ahead.order(["a", "b"])
    ahead.take("a")
    with pytest.raises(RuntimeError, match=r"^b came twice with a wrong checksum. Try later$"):
        ahead.take("b")


def test_whoever_waits_is_let_go_when_all_ends(source):
    began, held = threading.Event(), threading.Event()

    def fetch(_name):
        began.set()
        held.wait(20)

    shards = ShardsAhead(source.folder, fetch, source.remove, RuntimeError)
    shards.order(["a"])
    ended = []

    def wait():
        try:
            shards.take("a")
        except RuntimeError as error:
            ended.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    assert began.wait(20)
    shards.close()
    thread.join(20)
    held.set()
    assert ended == ["the download was stopped"]
