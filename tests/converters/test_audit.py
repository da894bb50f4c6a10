from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from converters import Audit, ConvertError, ConvertOptions, audit, convert
from converters.checking.tile_errors import limits_of, measure_tile
from converters.source.gguf_source import GGUFFile


@pytest.fixture(scope="module")
def files(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The two V3 checkpoints, one with odd widths, in some types."""
    folder = tmp_path_factory.mktemp("files")
    for name in ("v3-fp8", "v3-odd-own-head"):
        for kind in ("F16", "Q8_0", "Q4_0"):
            convert(models / name, folder / f"{name}-{kind}.gguf", ConvertOptions(type=kind))
    return {path.stem: path for path in folder.iterdir()}


def problems(found: Audit) -> list[str]:
    return [*found.problems, *(text for one in found.tensors for text in one.problems)]


@pytest.mark.parametrize("name", ["v3-fp8", "v3-odd-own-head"])
@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0"])
def test_a_sound_file_is_as_far_from_its_source_as_its_type_makes_it(
    models: Path, files: dict[str, Path], name: str, kind: str
) -> None:
    found = audit(files[f"{name}-{kind}"], models / name, threads=1)
    assert found.sound, problems(found)
    assert all(one.rmse is not None for one in found.tensors)
    errors = {one.rmse for one in found.tensors if one.type == kind}
    low, high = {"F16": (-1, 4e-4), "Q8_0": (4e-3, 8e-3), "Q4_0": (0.07, 0.1)}[kind]
    assert all(error is not None and low < error < high for error in errors), errors
    assert audit(files[f"{name}-{kind}"], files[f"{name}-F16"], threads=2).sound
    assert audit(files[f"{name}-{kind}"], threads=1).sound


@pytest.mark.parametrize("name", ["blk.1.ffn_down_exps.weight", "blk.2.attn_k_b.weight"])
@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0"])
def test_one_damaged_scale_is_found_and_where(
    tmp_path: Path, models: Path, files: dict[str, Path], name: str, kind: str
) -> None:
    path = shutil.copy(files[f"v3-fp8-{kind}"], tmp_path / "damaged.gguf")
    with GGUFFile(path) as model:
        tensor = model.tensors[name]
    block = {"F16": 64, "Q8_0": 34, "Q4_0": 18}[kind]  # bytes of 32 values
    number = tensor.size_bytes // block // 2
    data = bytearray(path.read_bytes())
    at = tensor.offset + number * block
    scale = np.frombuffer(data, np.float16, 1, at)  # of a block, or a weight itself
    data[at : at + 2] = (scale * np.float16(16)).tobytes()
    path.write_bytes(data)
    found = audit(path, models / "v3-fp8", threads=1)
    assert not found.sound
    worst = found.tensors[0]
    assert worst.name == name and "off its source" in worst.problems[0]
    assert worst.worst_at is not None
    at = int(np.ravel_multi_index(worst.worst_at, worst.shape))
    assert at <= number * 32 < at + 256
    assert [one.name for one in found.tensors if one.problems] == [name]


def test_what_is_no_number_is_found_without_a_source(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    path = shutil.copy(files["v3-fp8-Q8_0"], tmp_path / "damaged.gguf")
    with GGUFFile(path) as model:
        tensor = model.tensors["blk.1.ffn_up_exps.weight"]
    data = bytearray(path.read_bytes())
    data[tensor.offset : tensor.offset + 2] = b"\xff\x7f"
    path.write_bytes(data)
    found = audit(path, threads=1)
    assert not found.sound and found.tensors[0].name == tensor.name
    assert "no number" in found.tensors[0].problems[0]


def test_a_hole_of_zeros_is_noted(tmp_path: Path, models: Path, files: dict[str, Path]) -> None:
    path = shutil.copy(files["v3-fp8-Q8_0"], tmp_path / "hole.gguf")
    with GGUFFile(path) as model:
        tensor = model.tensors["output.weight"]
    data = bytearray(path.read_bytes())
    data[tensor.offset : tensor.offset + tensor.size_bytes] = bytes(tensor.size_bytes)
    path.write_bytes(data)
    notes = {one.name: one.notes for one in audit(path, threads=1).tensors if one.notes}
    assert list(notes) == ["output.weight"]
    assert not audit(path, models / "v3-fp8", threads=1).sound


def test_another_model_is_no_source(tmp_path: Path, models: Path, files: dict[str, Path]) -> None:
    found = audit(files["v3-fp8-Q4_0"], models / "v3-odd-own-head", threads=1)
    assert any("has the shape" in text for text in found.problems)
    import checkpoints

    other = checkpoints.make_v3(tmp_path / "other", seed=1)
    found = audit(files["v3-fp8-Q4_0"], other, threads=1)
    wrong = [one for one in found.tensors if one.problems]
    assert len(wrong) > 0.8 * len(found.tensors)  # but for vectors near one


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, files: dict[str, Path]) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(files["v3-fp8-Q4_0"].read_bytes()[:-5000])
    with pytest.raises(ConvertError, match="is truncated"):
        audit(path)


def test_the_limits_leave_heavy_tails_alone_and_no_block_of_zeros() -> None:
    rng = np.random.default_rng(0)
    source = rng.standard_t(3, (4, 1000)).astype(np.float32)
    for kind in ("F16", "Q8_0", "Q2_K", "IQ1_S", "TQ1_0", "Q1_0"):
        assert limits_of(kind).tensor < 1
        found = source.copy()
        found[2, :600] = 0
        error = measure_tile(found, source, kind)
        assert not error.explained and error.worst_block == 1
        assert 1750 < error.worst_at < 2600
        assert measure_tile(source.copy(), source, kind).explained
