import json
import random

import pytest
from fakes import hub

SHARD = random.Random(1).randbytes(300_000)
OTHER = random.Random(2).randbytes(200_000)
NAME = "deepseek-ai/Tiny"
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
FILES = {
    "config.json": b'{"architectures": ["X"]}', "tokenizer.json": b"{}",
    ONE: SHARD, TWO: OTHER,
}  # fmt: skip
PAGE = f"/{NAME}"


@pytest.fixture
def served(serve):
    return serve({NAME: FILES})


@pytest.fixture
def folder(home):
    return home / "checkpoints" / NAME


def whole(folder):
    return {n: (folder / n).read_bytes() for n in FILES if (folder / n).exists()} == FILES


def one_line(done, status=1):
    last = done.err.splitlines()[-1]
    return done.status == status and last.startswith("localseek: ") and last


def test_a_connection_that_is_cut_again_and_again_goes_on_at_each_byte(served, run_cli, folder):
    served.faults.cut_after[ONE] = [1, 70_000, 100, 200_000]
    assert run_cli("pull", NAME).status == 0
    assert whole(folder)
    assert served.bytes_asked_from(ONE) == [0, 1, 70_001, 70_101, 270_101]


def test_a_large_file_comes_in_several_requests(served, run_cli, folder, monkeypatch):
    monkeypatch.setattr("localseek.store.pulling.downloading.REQUEST_BYTES", 120_000)
    assert run_cli("pull", NAME).status == 0
    assert whole(folder)
    assert [one.range for one in served.downloads(ONE)] == [
        "bytes=0-119999", "bytes=120000-239999", "bytes=240000-299999",
    ]  # fmt: skip


def test_a_connection_that_brings_nothing_is_given_up_and_gone_on_with(served, run_cli, folder):
    served.faults.cut_after[ONE] = [1000]
    served.faults.always_cut_after[ONE] = 0
    done = run_cli("pull", NAME)
    assert f"{ONE} could not be downloaded: " in one_line(done)
    assert "the same command goes on" in done.err and not (folder / ONE).exists()
    served.faults.always_cut_after.clear()
    done = run_cli("pull", NAME)
    assert done.status == 0 and whole(folder)
    assert "Going on where it stopped, at " in done.err
    assert served.bytes_asked_from(ONE)[-1] == 1000


def test_a_server_without_ranges_sends_all_of_it_again(served, run_cli, folder):
    served.faults.cut_after[ONE] = [1000]
    served.faults.ignore_ranges = True
    assert run_cli("pull", NAME).status == 0
    assert whole(folder)


@pytest.mark.parametrize("file", [ONE, "tokenizer.json"])
def test_a_wrong_file_is_fetched_once_more(served, run_cli, folder, file):
    served.faults.wrong[file] = 1
    assert run_cli("pull", NAME).status == 0
    assert whole(folder)


@pytest.mark.parametrize("file", [ONE, "tokenizer.json"])
def test_a_file_that_is_wrong_twice_is_named_and_not_kept(served, run_cli, folder, file):
    served.faults.wrong[file] = 2
    assert f"{file} came twice with a wrong checksum" in one_line(run_cli("pull", NAME))
    assert not (folder / file).exists()
    assert not any(len(p.read_bytes()) == len(FILES[file]) for p in folder.rglob("*.part"))


def test_a_part_that_was_damaged_on_the_disk_is_found_out(served, run_cli, folder):
    served.faults.cut_after[ONE] = [100_000]
    served.faults.always_cut_after[ONE] = 0
    run_cli("pull", NAME)
    part = max(folder.rglob("*.part"), key=lambda path: path.stat().st_size)
    part.write_bytes(b"\0" * part.stat().st_size)
    served.faults.always_cut_after.clear()
    assert run_cli("pull", NAME).status == 0
    assert whole(folder)


def test_a_file_that_changed_after_it_was_verified_is_not_overwritten(served, run_cli, folder):
    assert run_cli("pull", NAME).status == 0
    (folder / "config.json").write_bytes(b'{"mine": true}')
    done = run_cli("pull", NAME)
    assert "config.json is there with another content" in one_line(done)
    assert (folder / "config.json").read_bytes() == b'{"mine": true}'


def test_files_that_were_there_before_are_taken_if_they_are_the_same(served, run_cli, folder):
    folder.mkdir(parents=True)
    (folder / ONE).write_bytes(SHARD)
    assert run_cli("pull", NAME).status == 0
    assert whole(folder) and served.downloads(ONE) == []


def test_a_file_that_is_lost_comes_again_alone(served, run_cli, folder):
    run_cli("pull", NAME)
    (folder / TWO).unlink()
    assert run_cli("pull", NAME).status == 0
    assert whole(folder) and len(served.downloads()) == 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(served, run_cli, folder, status):
    served.faults.statuses[ONE] = [(status, {"Retry-After": "0"})] * 2
    served.faults.statuses["revision/main"] = [(status, {"Retry-After": "0"})]
    assert run_cli("pull", NAME).status == 0
    assert whole(folder)


def test_a_hub_that_wants_a_long_pause_is_asked_no_more(served, run_cli):
    served.faults.always["revision/main"] = (429, {"Retry-After": "900"})
    assert "wants fewer requests (HTTP 429). Try again in 900 s" in one_line(run_cli("pull", NAME))
    assert len(served.requests) == 1


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (401, {}, "There is no repository deepseek-ai/Tiny, or it is private."),
        (404, {"X-Error-Code": "RepoNotFound"}, "There is no repository deepseek-ai/Tiny"),
        (403, {}, "answered 403 Forbidden"),
        (418, {}, "answered Client error '418"),
    ],
)
def test_what_does_not_pass_is_said_at_once(served, run_cli, status, headers, message):
    served.faults.always["revision/main"] = (status, headers)
    assert message in one_line(run_cli("pull", NAME))
    assert len(served.requests) == 1


def test_a_file_that_is_listed_and_not_there_is_named(served, run_cli):
    served.faults.always[ONE] = (404, {"X-Error-Code": "EntryNotFound"})
    assert "A file of deepseek-ai/Tiny is listed, but not there" in one_line(run_cli("pull", NAME))


def test_a_gated_repository_says_what_to_do(served, run_cli, monkeypatch, folder):
    served.gated[NAME] = "hf_right"
    done = run_cli("pull", NAME)
    assert "It is gated: only those whom its owner lets in" in done.err
    assert f"Ask on {served.address}{PAGE}, then log in: hf auth login" in one_line(done)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert "has not let this account in" in one_line(run_cli("pull", NAME))
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert run_cli("pull", NAME).status == 0
    assert whole(folder)


def test_a_token_goes_to_the_hub_and_to_nobody_else(served, run_cli, monkeypatch, tmp_path):
    served.faults.token = "hf_secret"
    (tmp_path / "token").write_text("hf_secret\n")
    done = run_cli("pull", NAME)
    assert done.status == 0 and "hf_secret" not in done.out + done.err
    told = {one.server: one.authorization for one in served.requests}
    assert told == {"hub": "Bearer hf_secret", "cdn": ""}
    kept = [p for p in tmp_path.parent.rglob(".localseek*") if p.is_file()]
    assert not any(b"hf_secret" in p.read_bytes() for p in kept)


def test_main_that_moves_on_is_told_and_not_mixed_in(served, run_cli, folder):
    served.faults.cut_after[ONE] = [1000]
    served.faults.always_cut_after[ONE] = 0
    assert run_cli("pull", NAME).status == 1
    served.faults.always_cut_after.clear()
    newer = {**FILES, ONE: OTHER[::-1], "config.json": b'{"architectures": ["Y"]}'}
    commit = served.push(NAME, newer)
    done = run_cli("pull", NAME)
    said = f"{commit[:12]}; this goes on with commit {hub.COMMIT[:12]}. --update takes the new one."
    assert done.status == 0 and said in done.err and whole(folder)
    done = run_cli("pull", NAME)
    assert "what is here is commit c0ffee" in done.err and whole(folder)
    done = run_cli("pull", NAME, "--update")
    assert done.status == 0 and (folder / ONE).read_bytes() == OTHER[::-1]
    assert json.loads((folder / ".localseek-pull.json").read_bytes())["commit"] == commit
    assert len(served.downloads(TWO)) == 1 and not list(folder.rglob("*.part"))


def test_a_finished_pull_needs_no_hub(served, run_cli, folder, monkeypatch):
    assert run_cli("pull", NAME).status == 0
    served.faults.down = True
    done = run_cli("pull", NAME)
    assert done.status == 0 and "What was pulled before is used." in done.err
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    before = len(served.requests)
    done = run_cli("pull", NAME)
    assert done.status == 0 and "HF_HUB_OFFLINE is set." in done.err
    (folder / ONE).unlink()
    assert "HF_HUB_OFFLINE is set. Unset it to download." in one_line(run_cli("pull", NAME))
    assert len(served.requests) == before


def test_a_mirror_without_sizes_is_asked_for_its_tree(served, run_cli, folder):
    served.faults.without_sizes = True
    assert run_cli("pull", NAME).status == 0
    assert whole(folder)
    assert any("/tree/" in one.path for one in served.requests)


def test_too_little_room_is_said_before_the_first_byte(served, run_cli, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 400_000}))
    said = one_line(run_cli("pull", NAME))
    assert "deepseek-ai/Tiny takes 500.0 kB more and the disk of" in said
    assert "has 400.0 kB free." in said and "--to" in said and "LOCALSEEK_HOME" in said
    assert served.downloads() == []


def test_only_what_is_missing_needs_room(served, run_cli, monkeypatch, folder):
    run_cli("pull", NAME)
    (folder / TWO).unlink()
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 250_000}))
    assert run_cli("pull", NAME).status == 0


def test_two_pulls_of_one_folder_do_not_meet(served, run_cli, folder):
    from localseek.store.pulling.plan import claimed

    with claimed(folder):
        done = run_cli("pull", NAME)
    assert "Another localseek pull is filling" in one_line(done)


def test_a_folder_that_cannot_be_made_is_named(served, run_cli, tmp_path):
    (tmp_path / "file").write_text("")
    done = run_cli("pull", NAME, "--to", str(tmp_path / "file" / "below"))
    assert "cannot be made: Not a directory" in one_line(done)


def test_equal_files_of_other_names_do_not_grow_into_each_other(serve, run_cli, home):
    serve({"a/Twins": {**FILES, "generation_config.json": b"{}", TWO: SHARD}})
    assert run_cli("pull", "a/Twins").status == 0
    folder = home / "checkpoints" / "a" / "Twins"
    assert (folder / TWO).read_bytes() == SHARD and (folder / "tokenizer.json").exists()
