from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import mutations
import pytest
from test_arriving_shards import OPTIONS, SHARD, make_tiny
from warehouse import head_of, headers_only, write_header

from converters import ConvertError, convert
from converters.source.checkpoint import Checkpoint
from converters.source.shard_header import read_header


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return headers_only(whole, tmp_path / "模型 🐳")


def with_trailer(folder: Path, whole: Path, trailer: bytes) -> Path:
    path = folder / f"{SHARD.format(2)}.header"
    path.write_bytes(head_of(whole / SHARD.format(2)) + trailer)
    return path


@pytest.mark.parametrize(
    "trailer",
    [
        b"", b"{}", b"[]", b"\xff", b'{"size_bytes": 30000', b'{"size_bytes": 30000}',
        b'{"size_bytes": "30000", "identity": ""}', b'{"size_bytes": true, "identity": ""}',
        b'{"size_bytes": -1, "identity": ""}', b'{"size_bytes": 1e4, "identity": ""}',
        b'{"size_bytes": 99999999999999999999, "identity": ""}',
        b'{"size_bytes": 30000, "identity": "abc"}', b'{"size_bytes": 30000, "identity": null}',
        b'{"size_bytes": 30000, "identity": "", "mark": 3}',
        b'{"size_bytes": 30000, "identity": "", "digests": {"a": 3}}',
        b'{"size_bytes": 30000, "size_bytes": 30000, "identity": ""}',
        b'{"size_bytes": 30000, "identity": ""} and more', b" " * (1 << 21), b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_header_is_refused_by_name(folder: Path, whole: Path, trailer: bytes) -> None:
    path = with_trailer(folder, whole, trailer)
    with pytest.raises(ConvertError) as raised:
        Checkpoint(folder)
    assert str(raised.value) == (
        f"{path} is truncated or damaged: download it, or its shard, again"
    )


def test_the_table_must_fit_into_the_size_of_the_shard(folder: Path, whole: Path) -> None:
    size = (whole / SHARD.format(2)).stat().st_size
    path = with_trailer(
        folder, whole, json.dumps({"size_bytes": size - 1, "identity": ""}).encode()
    )
    with pytest.raises(ConvertError) as raised:
        Checkpoint(folder)
    assert str(raised.value).startswith(f"{path} is truncated: ")
    assert f"ends at byte {size}, the file at {size - 1}" in str(raised.value)


def test_headers_that_are_cut_off_anywhere_or_hold_garbage_are_refused(
    folder: Path, whole: Path
) -> None:
    path = folder / f"{SHARD.format(2)}.header"
    good, chance = path.read_bytes(), random.Random(0)
    cuts = [good[:size] for size in (0, 7, 8, 9, 100, len(good) - 90, len(good) - 1)]
    for data in cuts + [mutations.mutate_safetensors(chance, good) for _ in range(150)]:
        path.write_bytes(data)
        try:
            with Checkpoint(folder) as checkpoint:
                assert data not in cuts
                shard = folder / SHARD.format(2)
                ends = [one.offset + one.size_bytes for one in checkpoint.tensors.values()
                        if one.shard == shard]  # fmt: skip
                assert max(ends) <= checkpoint.sizes[shard]
        except ConvertError as error:
            assert "\n" not in str(error) and len(str(error)) <= 500


@pytest.mark.parametrize("what", ["no index", "one file"])
def test_headers_stand_for_shards_that_no_index_lists(tmp_path: Path, what: str) -> None:
    source = make_tiny(tmp_path / "whole", shards=1 if what == "one file" else 5)
    (source / "model.safetensors.index.json").unlink(missing_ok=True)
    with Checkpoint(source) as seen, Checkpoint(headers_only(source, tmp_path / "model")) as told:
        assert [one.name for one in told.tensors.values()] == list(seen.tensors)
        assert [path.name for path in told.away] == [path.name for path in seen.here]


def test_a_header_that_came_first_tells_what_its_shard_must_be(whole: Path, tmp_path: Path) -> None:
    source = shutil.copytree(whole, tmp_path / "model")
    shard = source / SHARD.format(2)
    shard.write_bytes(shard.read_bytes() + b"more")
    write_header(shard, whole / shard.name)
    with Checkpoint(source) as checkpoint:
        assert checkpoint.away == [shard]


def test_a_header_that_a_conversion_left_tells_nothing_of_a_file_put_there_later(
    whole: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(whole, tmp_path / "model")
    shard = source / SHARD.format(2)
    with Checkpoint(source) as checkpoint:
        mark = checkpoint.mark(shard)
    write_header(shard, whole / SHARD.format(3), mark="1" * 64)
    with Checkpoint(source) as checkpoint:
        assert (checkpoint.away, checkpoint.mark(shard)) == ([], mark)


def test_a_damaged_header_beside_its_shard_does_no_harm(whole: Path, tmp_path: Path) -> None:
    source = shutil.copytree(whole, tmp_path / "model")
    (source / f"{SHARD.format(2)}.header").write_bytes(b"damaged")
    convert(source, tmp_path / "model.gguf", OPTIONS)


def test_a_header_reads_back_as_it_was_written(whole: Path, tmp_path: Path) -> None:
    with Checkpoint(whole) as checkpoint:
        shard = checkpoint.here[0]
        checkpoint.compared.add("model.embed_tokens.weight")
        header = checkpoint.header(shard)
    (tmp_path / f"{shard.name}.header").write_bytes(header.encode())
    assert read_header(tmp_path / shard.name) == header
    assert list(header.digests) == ["model.embed_tokens.weight"]
