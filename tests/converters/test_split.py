from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import crash
import numpy as np
import pytest
from gguf import GGUFReader

from converters import ConvertError, ConvertOptions, convert
from converters.writing import saver
from localseek.errors import ModelError
from localseek.gguf.info import read_info
from localseek.gguf.runnable import check_runnable

HERE = Path(__file__).parent
LIMIT = 64_000  # several parts of the tiny model
SPLIT = ConvertOptions(type="F16", split_bytes=LIMIT, name="tiny", threads=2)


def keys(reader: GGUFReader) -> dict[str, Any]:
    own = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    return {key: field.contents() for key, field in own.items()}


def digests(paths: tuple[Path, ...]) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.gguf"


@pytest.fixture
def parts(tiny: Path, tmp_path: Path) -> tuple[Path, ...]:
    """Return the files of an uninterrupted conversion."""
    (tmp_path / "whole").mkdir()
    return convert(tiny, tmp_path / "whole" / "model.gguf", SPLIT).parts


def test_parts_are_named_and_numbered_as_llama_cpp_does(
    tiny: Path, parts: tuple[Path, ...], tmp_path: Path
) -> None:
    convert(tiny, tmp_path / "single.gguf", ConvertOptions(type="F16", name="tiny"))
    single, count = GGUFReader(tmp_path / "single.gguf"), len(parts)
    assert count > 2
    assert [p.name for p in parts] == [
        f"model-{n:05}-of-{count:05}.gguf" for n in range(1, count + 1)
    ]
    tensors = []
    for number, part in enumerate(parts):
        reader = GGUFReader(part)
        own = {
            "split.no": number, "split.tensors.count": len(single.tensors), "split.count": count,
        }  # fmt: skip
        assert keys(reader) == ({**keys(single), **own} if number == 0 else own)
        assert sum(-(-int(one.n_bytes) // 32) * 32 for one in reader.tensors) <= LIMIT
        tensors += reader.tensors
    assert [one.name for one in tensors] == [one.name for one in single.tensors]
    for ours, theirs in zip(tensors, single.tensors, strict=True):
        np.testing.assert_array_equal(ours.data, theirs.data)


def test_llama_cpp_answers_with_a_split_model_as_with_the_single_file(
    models: Path, tmp_path: Path
) -> None:
    single = tmp_path / "single.gguf"
    convert(models / "v3-fp8", single, ConvertOptions(type="Q8_0"))
    options = ConvertOptions(type="Q8_0", split_bytes=1_500_000)
    split = convert(models / "v3-fp8", tmp_path / "split.gguf", options)
    assert len(split.parts) > 2
    found = []
    for path in (single, split.path):
        command = [sys.executable, str(HERE / "llama_logits.py"), str(path)]
        run = subprocess.run(
            [*command, str(tmp_path / "out.npz"), "5,6,7,8,9,10,11,12"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr[-2000:]
        found.append(dict(np.load(tmp_path / "out.npz")))
    assert found[0].keys() == found[1].keys()
    for key, values in found[0].items():
        np.testing.assert_array_equal(values, found[1][key])


def test_a_part_that_is_missing_is_named(parts: tuple[Path, ...]) -> None:
    assert read_info(parts[0]).missing == ()
    check_runnable(read_info(parts[0]))
    parts[1].unlink()
    with pytest.raises(ModelError, match=rf"it lacks 1 of its parts \({parts[1].name}\)"):
        check_runnable(read_info(parts[0]))
    with pytest.raises(ModelError, match=f"is part {len(parts)} of {len(parts)}"):
        read_info(parts[-1])


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power lost"])
def test_a_split_conversion_killed_anywhere_goes_on_and_names_its_first_part_last(
    tiny: Path, out: Path, parts: tuple[Path, ...], power: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)
    monkeypatch.setattr(saver, "SAVE_SECONDS", 0.0)
    expected, first = digests(parts), out.with_name(parts[0].name)
    for since in ("", "replace"):
        for call in range(2, 2 + 2 * len(parts), 2):
            step = call if since else 7 * call
            crash.run_until(step, lambda: convert(tiny, out, SPLIT), power, call, since)
            if not power and first.exists():
                assert digests(tuple(sorted(out.parent.glob("*.gguf")))) == expected
            if any(out.parent.glob("*.journal")):
                convert(tiny, out, SPLIT)
            assert digests(tuple(sorted(out.parent.iterdir()))) == expected
            for file in out.parent.iterdir():
                file.unlink()


def test_another_split_size_starts_anew_and_leaves_no_old_parts(tiny: Path, out: Path) -> None:
    def stop(progress: Any) -> None:
        if progress.done_bytes > 0.5 * progress.total_bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(tiny, out, SPLIT, stop)
    assert len(list(out.parent.glob("*.partial"))) > 2
    convert(tiny, out, ConvertOptions(type="F16", name="tiny"))
    assert [path.name for path in out.parent.iterdir()] == ["model.gguf"]


def test_a_model_that_fits_in_one_file_keeps_its_name(tiny: Path, out: Path) -> None:
    result = convert(tiny, out, ConvertOptions(split_bytes=10**9))
    assert (result.path, result.parts) == (out, ())
    assert "split.count" not in GGUFReader(out).fields


def test_a_size_below_a_tensors_is_refused(tiny: Path, out: Path) -> None:
    with pytest.raises(ConvertError, match="--split-size is too small: .* alone has"):
        convert(tiny, out, ConvertOptions(split_bytes=1000))
    assert list(out.parent.iterdir()) == []


def test_a_part_that_exists_is_not_replaced(tiny: Path, out: Path, parts: tuple[Path, ...]) -> None:
    taken = out.with_name(parts[1].name)
    taken.write_bytes(b"mine")
    with pytest.raises(ConvertError, match="exists already"):
        convert(tiny, out, SPLIT)
    assert [path.name for path in out.parent.iterdir()] == [taken.name]
    assert taken.read_bytes() == b"mine"
