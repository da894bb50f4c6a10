from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import checkpoints
import crash
import pytest
import torch_files
from test_arriving_shards import DIMS, FAMILIES, OPTIONS, SHARD, make_tiny
from warehouse import END, headers_only, journaled, tiles_of

from converters import ConvertError, ConvertOptions, Progress, audit, convert, freeable
from converters.errors import OptionError
from converters.source.checkpoint import Checkpoint
from converters.writing import freeing, saver, tiles
from converters.writing.spans import covers

FREE = ConvertOptions(type="Q4_K_M", threads=2, name="model", free_source=True)
ALL = [SHARD.format(number) for number in range(1, 6)]


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    # No test cuts the power of the real disk, and crash.py keeps account of what was synced.
    monkeypatch.setattr(os, "fsync", lambda file: None)
    monkeypatch.setattr(saver, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(tiles, "TILE_ELEMENTS", 1 << 10)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Case:
    """A checkpoint, the SHA-256 of what it becomes, and a copy of it that a test may lose."""

    def __init__(self, whole: Path, tmp_path: Path, options: ConvertOptions = OPTIONS) -> None:
        self.whole, self.source = whole, tmp_path / "source" / "model"
        self.out = tmp_path / "out" / "model.gguf"
        self.journal = self.out.with_name("model.gguf.partial.journal")
        convert(whole, tmp_path / "whole.gguf", options)
        self.wanted = sha256(tmp_path / "whole.gguf")
        self.tiles = tiles_of(whole, options)
        self.notices: list[str] = []
        self.renew()

    def renew(self) -> None:
        for folder in (self.source, self.out.parent):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.whole, self.source)
        self.out.parent.mkdir()

    def convert(
        self, options: ConvertOptions = FREE, progress: Callable[[Progress], None] | None = None
    ) -> None:
        convert(self.source, self.out, options, progress, self.notices.append)

    def stop(self, removed: int = 2) -> None:
        """Convert until so many shards are removed."""
        real, left = freeing.FreedShards.give_back, removed

        def give_back(shards: freeing.FreedShards, name: str) -> None:
            nonlocal left
            if not left:
                raise KeyboardInterrupt
            left -= 1
            real(shards, name)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(freeing.FreedShards, "give_back", give_back)
            self.convert()
        assert len(self.shards) == 5 - removed

    @property
    def shards(self) -> list[str]:
        """The names of the shards that are there."""
        return sorted(path.name for path in self.source.glob("*" + END))

    def unsafe(self) -> list[str]:
        """Return what is gone without a header, or before all that was made of it was safe."""
        gone = [name for name in self.tiles if not (self.source / name).exists()]
        done = journaled(self.journal)
        return [
            name
            for name in gone
            if not (self.source / f"{name}.header").exists()
            or not (self.out.exists() or all(covers(done, one) for one in self.tiles[name]))
        ]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(make_tiny(tmp_path / "whole" / "model"), tmp_path)


@pytest.mark.parametrize("family", [*FAMILIES, "an MTP layer with tables of its own"])
def test_a_freed_source_gives_the_same_bytes_and_leaves_headers(
    family: str, tmp_path: Path
) -> None:
    make = FAMILIES.get(family) or (lambda folder: make_tiny(folder, shared_mtp=False, shards=3))
    case = Case(make(tmp_path / "whole" / "model"), tmp_path)
    kept = [path.name for path in case.source.iterdir() if path.suffix != END]
    headers = [f"{name}.header" for name in case.shards]
    case.convert()
    assert sha256(case.out) == case.wanted
    assert sorted(path.name for path in case.source.iterdir()) == sorted(kept + headers)
    assert [path.name for path in case.out.parent.iterdir()] == ["model.gguf"]


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power lost"])
def test_a_run_killed_at_random_points_loses_no_shard_and_goes_on_to_the_same_bytes(
    case: Case, power: bool
) -> None:
    calls = crash.count_calls(case.convert)
    chance, kills, freed = random.Random(power), 0, 0
    while kills < 8:  # the calls of a run vary a little with its threads
        case.renew()
        finished = crash.run_until(chance.randrange(1, calls + 1), case.convert, power, seed=kills)
        kills += not finished
        assert case.unsafe() == []
        freed += 0 < len(case.shards) < 5
        if not case.out.exists():
            case.convert()
        assert sha256(case.out) == case.wanted
        assert case.shards == []
    assert freed


@pytest.mark.parametrize("since", ["replace", "unlink"])
@pytest.mark.parametrize("power", [False, True], ids=["killed", "power lost"])
def test_a_run_killed_around_the_removal_of_a_shard_goes_on(
    case: Case, since: str, power: bool
) -> None:
    for call in range(1, 7):
        case.renew()
        assert not crash.run_until(call, case.convert, power, seed=call, since=since)
        assert case.unsafe() == []
        case.convert()
        assert (sha256(case.out), case.shards) == (case.wanted, [])


def test_a_run_killed_again_and_again_gets_to_the_end(case: Case) -> None:
    chance = random.Random(3)
    for kill in range(40):
        if crash.run_until(chance.randrange(10, 80), case.convert, True, seed=kill):
            break
        assert case.unsafe() == []
        if case.out.exists():
            break
    assert (sha256(case.out), case.shards) == (case.wanted, [])


def test_what_was_begun_without_freeing_goes_on_with_it_and_the_other_way_round(
    case: Case,
) -> None:
    def stop(progress: Progress) -> None:
        if progress.tensor:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        case.convert(OPTIONS, stop)
    assert case.shards == ALL
    case.stop(3)
    left = case.shards
    case.convert(OPTIONS)  # what is still needed is still there
    assert case.notices == []
    assert (sha256(case.out), case.shards) == (case.wanted, left)


def test_other_options_are_refused_once_shards_are_gone(case: Case) -> None:
    case.stop()
    before = {path: sha256(path) for path in case.out.parent.iterdir()}
    gone = f"of {case.source} are missing, only headers are there ({SHARD.format(1)} first)"
    for options, text in (
        (ConvertOptions(type="Q8_0", free_source=True), "give the command that it began with"),
        (ConvertOptions(type="Q8_0", free_source=True, force=True), "--force begins again, but"),
        (ConvertOptions(type="Q4_K_M", name="model", restart=True), "--restart begins again, but"),
        (ConvertOptions(type="Q4_K_M", name="other"), "it cannot start over"),
    ):
        with pytest.raises(ConvertError) as raised:
            case.convert(options)
        assert gone in str(raised.value)
        assert text in str(raised.value)
        assert "is kept" not in str(raised.value)
        assert {path: sha256(path) for path in case.out.parent.iterdir()} == before
    case.convert()
    assert sha256(case.out) == case.wanted


def test_a_finished_file_is_never_replaced_by_force_when_its_source_is_gone(case: Case) -> None:
    case.convert()
    with pytest.raises(ConvertError, match="--force begins again, but all shards of"):
        case.convert(ConvertOptions(type="Q8_0", force=True))
    assert sha256(case.out) == case.wanted
    assert [path.name for path in case.out.parent.iterdir()] == ["model.gguf"]


def test_a_lost_output_is_told_and_nothing_more_is_removed(case: Case) -> None:
    case.stop()
    case.out.with_name("model.gguf.partial").unlink()
    left = case.shards
    with pytest.raises(ConvertError, match="the unfinished file is not as it was left, but it can"):
        case.convert()
    assert case.shards == left
    assert case.journal.exists()


def test_a_shard_that_changed_in_between_is_noticed(case: Case) -> None:
    case.stop()
    shard = case.source / case.shards[-1]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ConvertError, match="is of another source.*but it cannot start over"):
        case.convert()
    assert shard.exists()


def test_a_shard_that_changes_while_it_is_read_is_kept(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(progress: Progress) -> None:
        if progress.done_bytes > 0.5 * progress.total_bytes:
            os.utime(case.source / case.shards[0])

    with pytest.raises(ConvertError, match="changed during the conversion"):
        case.convert(progress=change)
    assert case.unsafe() == []
    assert case.shards


def test_shards_of_which_nothing_is_made_go_last(case: Case) -> None:
    options = ConvertOptions(type="Q4_K_M", name="model", mtp="drop", free_source=True, threads=1)
    unused = {name for name, spans in tiles_of(case.whole, options).items() if not spans}
    assert unused == {SHARD.format(4), SHARD.format(5)}
    left: list[list[str]] = []
    case.convert(options, lambda _: left.append(case.shards))
    assert set(left[-1]) >= unused
    assert case.shards == []


def test_the_disk_takes_the_output_as_shards_go(case: Case) -> None:
    def used() -> int:
        folders = (case.source, case.out.parent)
        files = [path for folder in folders for path in folder.iterdir()]
        return sum(path.stat().st_blocks * 512 for path in files if path.exists())

    whole = used()
    peaks: list[int] = []
    case.convert(progress=lambda _: peaks.append(used()))
    largest = max(path.stat().st_size for path in case.whole.glob("*" + END))
    assert max(peaks) < whole + largest
    case.renew()
    peaks.clear()
    case.convert(OPTIONS, lambda _: peaks.append(used()))
    assert max(peaks) >= whole + case.out.stat().st_size


def test_no_shard_is_removed_if_the_output_will_not_fit(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(case.source)
    for free, fits in ((100_000, False), (2_000_000, True)):
        few = usage._replace(free=free)
        monkeypatch.setattr(freeing.shutil, "disk_usage", lambda _path, few=few: few)
        if fits:
            case.convert()
            continue
        with pytest.raises(ConvertError, match=r"no room for .*model\.gguf: while shards are rem"):
            case.convert()
        assert case.shards == ALL
        assert list(case.out.parent.iterdir()) == []


def test_a_disk_that_fills_up_keeps_every_shard_that_is_not_safe(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.pwrite, 0

    def full(file: int, data: bytes, offset: int) -> int:
        nonlocal calls
        calls += 1
        if calls > 60:
            raise OSError(28, "No space left on device")
        return real(file, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(ConvertError, match="No space left on device"):
            case.convert()
    assert case.unsafe() == []
    assert 0 < len(case.shards) < 5
    case.convert()
    assert sha256(case.out) == case.wanted


def test_what_must_not_be_removed_is_refused_by_name(case: Case, tmp_path: Path) -> None:
    def refused(source: Path, text: str, options: ConvertOptions = FREE) -> None:
        for work in (freeable, lambda path: convert(path, case.out, options)):
            with pytest.raises(ConvertError, match=text):
                work(source)
        assert list(case.out.parent.iterdir()) == []

    gguf = tmp_path / "whole.gguf"
    with pytest.raises(OptionError, match="--free-source removes the shards of a checkpoint"):
        convert(gguf, case.out, ConvertOptions(type="keep", free_source=True))
    with pytest.raises(OptionError, match=r"whole\.gguf is a file"):
        freeable(gguf)
    cache = tmp_path / "models--a--b" / "snapshots" / "1"
    shutil.copytree(case.whole, cache)
    for shard in cache.glob("*" + END):
        shard.unlink()
        shard.symlink_to(case.source / shard.name)
    refused(cache.parent.parent, "is a link, as in a Hub cache, whose files others may use")
    for shard in cache.glob("*" + END):
        shard.unlink()
        os.link(case.source / shard.name, shard)
    refused(cache, "has another name elsewhere")
    tensors = checkpoints.v3_tensors(DIMS, "BF16", 0, True, True)
    torch = shutil.copytree(case.whole, tmp_path / "torch")
    (torch / "model.safetensors.index.json").unlink()
    for shard in torch.glob("*" + END):
        shard.unlink()
    torch_files.replace_by_torch(torch, tensors)
    refused(torch, "is a PyTorch file, which no header can stand for")


def test_a_folder_that_is_read_only_is_refused(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The suite may run as root, to whom no mode forbids anything.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != case.source)
    with pytest.raises(ConvertError, match="is read-only: make it writable, or copy it"):
        case.convert()
    assert case.shards == ALL


def test_a_shard_that_cannot_be_removed_stops_the_conversion_and_the_next_run_goes_on(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", forbidden)
        with pytest.raises(ConvertError, match="cannot remove .*00001-of-00005.*: Operation not p"):
            case.convert()
    assert case.shards == ALL
    case.convert()
    assert (sha256(case.out), case.shards, case.notices) == (case.wanted, [], [])


def test_verify_compares_what_is_still_there_and_says_what_is_not(case: Case) -> None:
    case.convert()
    found = audit(case.out, case.source, threads=1)
    assert found.sound
    assert all(one.rmse is None for one in found.tensors)
    assert found.notes == (
        f"all shards are missing, only headers are there ({SHARD.format(1)} first): "
        f"{len(found.tensors)} tensors were not compared",
    )
    shutil.copy(case.whole / SHARD.format(2), case.source)
    part = audit(case.out, case.source, threads=1)
    compared = [one.name for one in part.tensors if one.rmse is not None]
    assert part.sound
    assert 0 < len(compared) < len(part.tensors)
    assert "4 of 5 shards are missing" in part.notes[0]
    shutil.copytree(case.whole, case.source, dirs_exist_ok=True)
    again = audit(case.out, case.source, threads=1)
    assert (again.sound, again.notes) == (True, ())


def test_an_identity_that_was_known_before_stays_known(case: Case, tmp_path: Path) -> None:
    headers = headers_only(case.whole, tmp_path / "headers")
    for path in headers.glob("*.header"):
        shutil.copy(path, case.source)
    case.convert()
    with Checkpoint(headers) as told, Checkpoint(case.source) as freed:
        marks = [[one.mark(path) for path in one.sizes] for one in (told, freed)]
    assert marks[0] == marks[1]
    assert marks[0] == [sha256(case.whole / name) for name in ALL]
