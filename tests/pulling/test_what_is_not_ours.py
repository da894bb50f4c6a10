import threading

import pytest
from test_pull_convert import FREE, SHARDS, conversion, served, shard_name

from localseek.store.hub import asking
from localseek.store.pulling.plan import part_path

__all__ = ["conversion", "served"]  # fixtures
ONE, TWO = shard_name(1), shard_name(2)


@pytest.fixture
def folder(home):
    return home / "checkpoints" / "a" / "Split"


def shards_in(folder):
    return sorted(path.name for path in folder.glob("*.safetensors"))


def test_a_shard_that_was_there_before_is_used_and_stays(
    served, conversion, run_cli, folder, home
):
    folder.mkdir(parents=True)
    (folder / TWO).write_bytes(SHARDS[TWO])
    done = run_cli(*FREE)
    assert done.status == 0, done.err
    assert "1 shard was here before: used where needed, and left here." in done.err
    assert shards_in(folder) == [TWO] and (folder / TWO).read_bytes() == SHARDS[TWO]
    assert len(served.downloads(TWO)) == 1  # its table alone
    assert (home / "models" / "Split-Q8_0.gguf").read_bytes() == b"".join(SHARDS.values())


def test_a_link_to_a_shard_stays_and_so_does_what_it_names(
    served, conversion, run_cli, folder, tmp_path
):
    folder.mkdir(parents=True)
    (tmp_path / "mine").write_bytes(SHARDS[TWO])
    (folder / TWO).symlink_to(tmp_path / "mine")
    assert run_cli(*FREE).status == 0
    assert shards_in(folder) == [TWO] and (tmp_path / "mine").read_bytes() == SHARDS[TWO]


def test_what_a_plain_pull_brought_stays(served, conversion, run_cli, folder):
    assert run_cli("pull", "a/Split").status == 0
    assert run_cli(*FREE).status == 0
    assert shards_in(folder) == sorted(SHARDS)


def stopped(run_cli):
    # Its threads would end with a process of their own.
    before = set(threading.enumerate())
    done = run_cli(*FREE)
    for thread in set(threading.enumerate()) - before:
        if thread.name.endswith(("(_run)", "(work)")):
            thread.join(30)
    return done


def test_what_a_stopped_run_brought_goes_unless_a_plain_pull_wanted_it(
    served, conversion, run_cli, folder
):
    conversion.stop_after = ONE
    assert stopped(run_cli).status == 1
    conversion.stop_after = None
    assert run_cli("pull", "a/Split").status == 0
    assert run_cli(*FREE).status == 0
    assert shards_in(folder) == sorted(SHARDS)


def test_a_shard_that_the_user_put_where_a_brought_one_was_stays(
    served, conversion, run_cli, folder
):
    served.faults.wrong[shard_name(3)] = 3
    assert stopped(run_cli).status == 1
    (folder / TWO).unlink(missing_ok=True)
    (folder / TWO).write_bytes(SHARDS[TWO])
    assert run_cli(*FREE).status == 0
    assert shards_in(folder) == [TWO]


def test_a_linked_work_folder_is_refused(served, run_cli, folder, tmp_path):
    folder.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (folder / ".localseek-pull").symlink_to(tmp_path / "elsewhere")
    done = run_cli("pull", "a/Split")
    assert done.status == 1 and "is a link, and pull writes through none. Remove it." in done.err
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_links_in_place_of_our_files_are_not_followed(served, run_cli, folder, tmp_path):
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    state = folder / ".localseek-pull"
    state.mkdir(parents=True)
    found = asking.look_up("a/Split", "main")
    planted = [part_path(folder, file) for file in found.files if file.name == ONE]
    for link in (*planted, state / "lock", state / "verified.new"):
        link.unlink(missing_ok=True)  # of the pull before
        link.symlink_to(mine)
        done = run_cli("pull", "a/Split")
        assert done.status == 1 and "is a link, and pull writes through none" in done.err, link
        assert mine.read_bytes() == b"mine"
        link.unlink()
    (folder / ".localseek-pull.json.new").symlink_to(mine)
    assert run_cli("pull", "a/Split").status == 0
    assert mine.read_bytes() == b"mine"
