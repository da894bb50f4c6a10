from __future__ import annotations

import shutil
from pathlib import Path

import checkpoints
import pytest

from converters import KEEP, ConvertError, ConvertOptions, convert
from converters.planning.origin import source_fingerprint
from converters.source.checkpoint import Checkpoint
from converters.source.gguf_reader import decode_value, read_head
from converters.source.gguf_source import GGUFFile


def without_layer(checkpoint: Path, target: Path, kind: str = "Q4_0") -> Path:
    convert(checkpoint, target, ConvertOptions(type=kind, mtp="drop", threads=1))
    return target


def with_layer(model: Path, checkpoint: Path, target: Path, kind: str = KEEP) -> Path:
    convert(model, target, ConvertOptions(type=kind, add_mtp=checkpoint, threads=1))
    return target


def contents(path: Path) -> dict[str, tuple[str, bytes]]:
    found = {}
    with GGUFFile(path) as model:
        for name, tensor in model.tensors.items():
            data = bytearray(tensor.size_bytes)
            model.read_into(tensor, 0, memoryview(data))
            found[name] = (tensor.dtype, bytes(data))
    return found


@pytest.mark.parametrize("name", ["v3-fp8", "v3-odd-own-head"])
def test_a_layer_that_was_dropped_comes_back_as_if_it_had_been_kept(
    tmp_path: Path, models: Path, name: str
) -> None:
    trunk = without_layer(models / name, tmp_path / "trunk.gguf")
    joined = with_layer(trunk, models / name, tmp_path / "joined.gguf")
    convert(models / name, tmp_path / "direct.gguf", ConvertOptions(type="Q4_0", threads=1))
    direct = contents(tmp_path / "direct.gguf")
    # The walk of llama-quantize counts all layers, so the trunk's types are those of the drop.
    draft = {key: one for key, one in direct.items() if key.startswith("blk.3.")}
    assert draft and contents(joined) == contents(trunk) | draft
    heads = [read_head(path).metadata for path in (joined, tmp_path / "direct.gguf")]
    with Checkpoint(models / name) as checkpoint:
        assert decode_value(heads[0].pop("localseek.mtp.fingerprint")) == source_fingerprint(
            checkpoint
        )
    for key in ("general.size_label", "localseek.recipe"):
        heads[0][key] = heads[1][key]
    assert heads[0] == heads[1]


def test_a_layer_is_added_while_the_types_change(tmp_path: Path, models: Path) -> None:
    source = models / "v3-fp8"
    trunk = without_layer(source, tmp_path / "trunk.gguf", "F32")
    joined = with_layer(trunk, source, tmp_path / "joined.gguf", "Q4_0")
    convert(source, tmp_path / "direct.gguf", ConvertOptions(type="Q4_0", threads=1))
    assert contents(joined) == contents(tmp_path / "direct.gguf")


def test_the_shards_with_the_layer_are_enough(tmp_path: Path) -> None:
    whole = checkpoints.make_v3(tmp_path / "whole", shards=12)
    trunk = without_layer(whole, tmp_path / "trunk.gguf", "Q8_0")
    expected = contents(with_layer(trunk, whole, tmp_path / "expected.gguf"))
    part = tmp_path / "part"
    part.mkdir()
    for file in whole.iterdir():
        needed = file.suffix == ".json" or b"model.layers.3." in file.read_bytes()
        if needed:
            shutil.copy(file, part)
    assert len(list(part.glob("*.safetensors"))) < 6
    found = contents(with_layer(trunk, part, tmp_path / "found.gguf"))
    assert {name: found[name] for name in expected} == expected


def test_a_missing_shard_of_the_layer_is_named(tmp_path: Path) -> None:
    whole = checkpoints.make_v3(tmp_path / "whole", shards=12)
    trunk = without_layer(whole, tmp_path / "trunk.gguf", "Q8_0")
    shards = [
        file
        for file in sorted(whole.glob("*.safetensors"))
        if b"model.layers.3." in file.read_bytes()
    ]
    shards[0].unlink()
    with pytest.raises(ConvertError, match=f"is in {shards[0].name}, which is not in"):
        with_layer(trunk, whole, tmp_path / "out.gguf")
    for shard in shards[1:]:
        shard.unlink()
    with pytest.raises(ConvertError, match="lacks .* shards, the one with the MTP layer"):
        with_layer(trunk, whole, tmp_path / "out.gguf")


def test_a_layer_of_another_model_is_refused(tmp_path: Path, models: Path) -> None:
    trunk = without_layer(models / "v3-fp8", tmp_path / "trunk.gguf", "Q8_0")
    with pytest.raises(ConvertError, match="these are two models"):
        with_layer(trunk, models / "v3-odd-own-head", tmp_path / "out.gguf")
    with pytest.raises(ConvertError, match="holds no MTP layer"):
        with_layer(trunk, models / "v2-lite", tmp_path / "out.gguf")
    whole = tmp_path / "whole.gguf"
    convert(models / "v3-fp8", whole, ConvertOptions(threads=1))
    with pytest.raises(ConvertError, match="has an MTP layer already"):
        with_layer(whole, models / "v3-fp8", tmp_path / "out.gguf")
