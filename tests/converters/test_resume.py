from __future__ import annotations

import hashlib
import os
import random
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import crash
import imatrices
import numpy as np
import pytest

from converters import ConvertError, ConvertOptions, Progress, convert
from converters.errors import UnfinishedError
from converters.writing import saver, tiles

OPTIONS = ConvertOptions(type="Q4_K_M", threads=2, name="tiny")


@pytest.fixture(autouse=True)
def saved_at_every_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    # No test cuts the power of the real disk, and crash.py keeps account of what was synced.
    monkeypatch.setattr(os, "fsync", lambda file: None)
    monkeypatch.setattr(saver, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(tiles, "TILE_ELEMENTS", 1 << 10)  # several a tensor


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".safetensors")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.gguf"


@pytest.fixture
def whole(tiny: Path, tmp_path: Path) -> str:
    """Return the SHA-256 of an uninterrupted conversion."""
    convert(tiny, tmp_path / "whole.gguf", OPTIONS)
    return sha256(tmp_path / "whole.gguf")


class Run:
    """A conversion that remembers what it was told, and can be stopped at a share of the work."""

    def __init__(
        self,
        source: Path,
        target: Path,
        options: ConvertOptions = OPTIONS,
        stop_at: float = 2.0,
        how: Callable[[], None] | None = None,
    ) -> None:
        self.notices: list[str] = []
        self.reports: list[Progress] = []
        self.error: BaseException | None = None
        self._stop_at, self._how = stop_at, how
        try:
            convert(source, target, options, self._report, self.notices.append)
        except (ConvertError, KeyboardInterrupt) as error:
            self.error = error

    def _report(self, progress: Progress) -> None:
        self.reports.append(progress)
        if progress.done_bytes >= self._stop_at * progress.total_bytes:
            if self._how is None:
                raise KeyboardInterrupt
            self._how()


def stopped(source: Path, target: Path, share: float = 0.5) -> Run:
    run = Run(source, target, stop_at=share)
    assert isinstance(run.error, KeyboardInterrupt)
    return run


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power lost"])
def test_a_conversion_killed_at_20_random_points_goes_on_to_the_same_bytes(
    tiny: Path, out: Path, whole: str, power: bool
) -> None:
    def work() -> object:
        return convert(tiny, out, OPTIONS)

    calls = crash.count_calls(work)
    out.unlink()
    chance, kills, resumed = random.Random(power), 0, 0
    while kills < 20:  # the calls of a run vary a little with its threads
        finished = crash.run_until(chance.randrange(1, calls + 1), work, power, seed=kills)
        kills += not finished
        assert not out.exists() or sha256(out) == whole
        if not finished:
            run = Run(tiny, out)
            assert run.error is None
            resumed += bool(run.reports) and run.reports[0].resumed_bytes > 0
        assert sha256(out) == whole
        assert names(out.parent) == ["model.gguf"]
        out.unlink()
    assert resumed


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power lost"])
def test_a_conversion_killed_again_and_again_gets_to_the_end(
    tiny: Path, out: Path, whole: str, power: bool
) -> None:
    def work() -> object:
        return convert(tiny, out, OPTIONS)

    chance = random.Random(power)
    for kill in range(6):
        crash.run_until(chance.randrange(20, 90), work, power, seed=kill)
        assert not out.exists() or sha256(out) == whole
        if out.exists():
            break
    else:
        assert Run(tiny, out).error is None
    assert sha256(out) == whole


@pytest.mark.parametrize("call", [1, 2, 3], ids=["rename", "sync of the folder", "tidying up"])
@pytest.mark.parametrize("power", [False, True], ids=["killed", "power lost"])
def test_a_conversion_killed_in_its_last_steps_is_finished_by_the_same_command(
    tiny: Path, out: Path, whole: str, call: int, power: bool
) -> None:
    assert not crash.run_until(
        call, lambda: convert(tiny, out, OPTIONS), power, seed=call, since="replace"
    )
    run = Run(tiny, out)
    assert run.error is None
    assert run.reports == []  # nothing was left to convert
    assert sha256(out) == whole
    assert names(out.parent) == ["model.gguf"]


def test_ctrl_c_keeps_what_is_done_and_the_next_run_starts_there(
    tiny: Path, out: Path, whole: str
) -> None:
    first = stopped(tiny, out, 0.6)
    assert names(out.parent) == ["model.gguf.partial", "model.gguf.partial.journal"]
    second = Run(tiny, out)
    start = second.reports[0]
    assert start.done_bytes == start.resumed_bytes >= first.reports[-1].done_bytes
    assert second.reports[-1].done_bytes == start.total_bytes
    assert second.notices == []
    assert sha256(out) == whole


def test_a_disk_that_fills_up_in_the_middle_loses_nothing(
    tiny: Path, out: Path, whole: str
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:  # the kernel itself refuses the next write
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))

    try:
        run = Run(tiny, out, stop_at=0.0, how=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(run.error) == (
        "cannot write model.gguf: File too large; what is done is kept, run the same command to "
        "go on"
    )
    run = Run(tiny, out)
    assert run.reports[0].resumed_bytes > 0
    assert sha256(out) == whole


def test_a_sync_that_fails_is_never_believed(
    tiny: Path, out: Path, whole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = saver.Output.sync, []

    def fail_once(output: Any) -> None:
        calls.append(output)
        if len(calls) == 3:
            raise UnfinishedError("cannot write model.gguf: Input/output error")
        real(output)

    with monkeypatch.context() as patch:
        patch.setattr(saver.Output, "sync", fail_once)
        run = Run(tiny, out)
    assert "Input/output error; what is done is kept" in str(run.error)
    assert Run(tiny, out).error is None
    assert sha256(out) == whole


def test_a_journal_cut_off_anywhere_is_believed_as_far_as_it_is_whole(
    tiny: Path, out: Path, whole: str
) -> None:
    stopped(tiny, out)
    partial, journal = (out.with_name(f"model.gguf.partial{end}") for end in ("", ".journal"))
    kept = partial.read_bytes(), journal.read_bytes()
    lines = [at for at, byte in enumerate(kept[1]) if byte == 10]
    assert len(lines) > 2
    for cut in (0, 1, lines[0], lines[0] + 1, lines[1] - 1, lines[1] + 5, lines[-1]):
        partial.write_bytes(kept[0])
        journal.write_bytes(kept[1][:cut])
        run = Run(tiny, out)
        nothing = ["the unfinished conversion had saved nothing yet: starting over"]
        assert run.notices == (nothing if 0 < cut <= lines[1] else [])
        assert sha256(out) == whole
        out.unlink()


@pytest.mark.parametrize("seed", range(4))
def test_a_journal_with_garbage_never_makes_a_wrong_file(
    tiny: Path, out: Path, whole: str, seed: int
) -> None:
    stopped(tiny, out)
    journal = out.with_name("model.gguf.partial.journal")
    rng, data = np.random.default_rng(seed), bytearray(journal.read_bytes())
    if seed == 0:
        data[:] = rng.bytes(1000) + b"\n" + rng.bytes(1000)
    else:
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    journal.write_bytes(data)
    assert Run(tiny, out).error is None
    assert sha256(out) == whole


def test_a_journal_of_a_lost_output_is_not_believed(tiny: Path, out: Path, whole: str) -> None:
    stopped(tiny, out)
    out.with_name("model.gguf.partial").unlink()
    run = Run(tiny, out)
    assert run.notices == ["the unfinished file is not as it was left: starting over"]
    assert sha256(out) == whole


def test_an_unfinished_file_of_another_size_is_not_believed(
    tiny: Path, out: Path, whole: str
) -> None:
    stopped(tiny, out)
    with out.with_name("model.gguf.partial").open("ab") as file:
        file.write(b"more")
    assert Run(tiny, out).notices == ["the unfinished file is not as it was left: starting over"]
    assert sha256(out) == whole


ANEW = (
    "the unfinished conversion is of another source, version or options, or its journal is "
    "damaged: starting over"
)


def test_other_options_start_anew(tiny: Path, out: Path, tmp_path: Path) -> None:
    stopped(tiny, out)
    options = ConvertOptions(type="Q8_0", name="tiny")
    run = Run(tiny, out, options)
    assert (run.notices, run.reports[0].resumed_bytes) == ([ANEW], 0)
    convert(tiny, tmp_path / "q8.gguf", options)
    assert sha256(out) == sha256(tmp_path / "q8.gguf")


def test_a_source_that_changed_in_between_starts_anew(
    tiny: Path, out: Path, tmp_path: Path
) -> None:
    stopped(tiny, out)
    shard = next(tiny.glob("*-00001-of-*"))
    data = bytearray(shard.read_bytes())
    data[-1:] = bytes([data[-1] ^ 1])
    shard.write_bytes(data)
    run = Run(tiny, out)
    assert (run.notices, run.reports[0].resumed_bytes) == ([ANEW], 0)
    convert(tiny, tmp_path / "changed.gguf", OPTIONS)
    assert sha256(out) == sha256(tmp_path / "changed.gguf")


@pytest.mark.parametrize("kind", ["checkpoint", "GGUF file", "importance matrix"])
def test_a_change_that_left_name_size_and_time_as_they_were_starts_anew(
    tiny: Path, out: Path, tmp_path: Path, kind: str
) -> None:
    source, changed, options = tiny, next(tiny.glob("*-00001-of-*")), OPTIONS
    if kind == "GGUF file":
        source = changed = tmp_path / "in.gguf"
        convert(tiny, source, ConvertOptions(type="F32", threads=1))
    elif kind == "importance matrix":
        rows = np.ones((1, 32), np.float32)
        entries = {"blk.0.attn_output.weight": imatrices.Seen(rows, (1,))}
        changed = imatrices.write_gguf(tmp_path / "m.gguf", entries)
        options = ConvertOptions(type="Q4_0", threads=2, name="tiny", imatrix=changed)
    Run(source, out, options, stop_at=0.5)
    assert out.with_name("model.gguf.partial").exists()
    state, data = changed.stat(), bytearray(changed.read_bytes())
    at = data.index(struct.pack("<f", 1)) if kind == "importance matrix" else len(data) - 2
    data[at] ^= 1
    changed.write_bytes(data)
    os.utime(changed, ns=(state.st_atime_ns, state.st_mtime_ns))
    run = Run(source, out, options)
    assert (run.notices, run.reports[0].resumed_bytes) == ([ANEW], 0)
    convert(source, tmp_path / "changed.gguf", options)
    assert sha256(out) == sha256(tmp_path / "changed.gguf")


def test_another_version_of_the_converter_starts_anew(
    tiny: Path, out: Path, whole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(tiny, out)
    monkeypatch.setattr(np, "__version__", "0.0")
    assert Run(tiny, out).notices == [ANEW]
    assert sha256(out) == whole


def test_restart_forgets_what_was_done(tiny: Path, out: Path, whole: str) -> None:
    stopped(tiny, out)
    run = Run(tiny, out, ConvertOptions(type="Q4_K_M", threads=2, name="tiny", restart=True))
    assert run.notices == ["the unfinished conversion is discarded (--restart)"]
    assert run.reports[0].resumed_bytes == 0
    assert sha256(out) == whole


def test_the_number_of_threads_may_change_in_between(tiny: Path, out: Path, whole: str) -> None:
    stopped(tiny, out)
    run = Run(tiny, out, ConvertOptions(type="Q4_K_M", threads=1, name="tiny"))
    assert run.reports[0].resumed_bytes > 0
    assert sha256(out) == whole


def test_a_name_that_was_taken_in_between_is_not_replaced(tiny: Path, out: Path) -> None:
    stopped(tiny, out)
    out.write_bytes(b"mine")
    run = Run(tiny, out)
    assert "exists already: choose another name or --force; what is done is kept" in str(run.error)
    assert out.read_bytes() == b"mine"
    run = Run(tiny, out, ConvertOptions(type="Q4_K_M", name="tiny", force=True))
    assert run.reports[0].resumed_bytes > 0
    assert out.read_bytes()[:4] == b"GGUF"
