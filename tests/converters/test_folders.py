from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from gguf import GGUFReader

from converters import ConvertError, ConvertOptions, audit, convert, preview
from converters.source.checkpoint import Checkpoint
from converters.source.folders import followed

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 14244\n"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.gguf"


def into_cache(checkpoint: Path, cache: Path, commit: str, when: int) -> Path:
    """Store a checkpoint as huggingface_hub does: blobs, and links to them in a snapshot."""
    (cache / "blobs").mkdir(parents=True, exist_ok=True)
    snapshot = cache / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for file in checkpoint.iterdir():
        blob = cache / "blobs" / f"{commit}-{file.name}"
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    os.utime(snapshot, (when, when))
    return snapshot


def general_name(path: Path) -> str:
    return str(GGUFReader(path).fields["general.name"].contents())


@pytest.mark.parametrize(("ref", "expected"), [("old1", "old1"), ("", "new2"), ("gone", "new2")])
def test_a_hub_cache_is_followed_to_its_snapshot(
    tiny: Path, tmp_path: Path, out: Path, ref: str, expected: str
) -> None:
    cache = tmp_path / "models--deepseek-ai--DeepSeek-V3-Tiny"
    for when, commit in enumerate(("old1", "new2"), 1):
        into_cache(tiny, cache, commit, when)
    if ref:
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text(f"{ref}\n")
    assert followed(cache).name == expected
    convert(cache, out, ConvertOptions(type="Q8_0"))
    assert general_name(out) == "DeepSeek-V3-Tiny"
    assert preview(cache, ConvertOptions(type="Q8_0")).tensors
    assert audit(out, cache).tensors


def test_a_snapshot_is_named_after_its_repository(tiny: Path, tmp_path: Path, out: Path) -> None:
    cache = tmp_path / "models--deepseek-ai--V3"
    convert(into_cache(tiny, cache, "abc", 1), out, ConvertOptions(type="Q8_0"))
    assert general_name(out) == "V3"


def test_a_cache_that_holds_nothing_yet_is_named(tmp_path: Path, out: Path) -> None:
    (tmp_path / "models--a--b" / "snapshots").mkdir(parents=True)
    with pytest.raises(ConvertError, match="Hub cache without a snapshot"):
        convert(tmp_path / "models--a--b", out)


def test_shards_without_an_index_are_read_if_all_are_there(tiny: Path, out: Path) -> None:
    index = tiny / "model.safetensors.index.json"
    with Checkpoint(tiny) as checkpoint:
        expected = set(checkpoint.tensors)
    index.unlink()
    with Checkpoint(tiny) as checkpoint:
        assert set(checkpoint.tensors) == expected
    convert(tiny, out, ConvertOptions(type="Q8_0"))
    next(tiny.glob("*-00001-of-00002.safetensors")).unlink()
    with pytest.raises(ConvertError, match="lacks 1 of 2 shards, model-00001-of-00002.safetensors"):
        Checkpoint(tiny)


def test_one_shard_that_says_one_of_one_needs_no_index(tiny: Path) -> None:
    shards = sorted(tiny.glob("*.safetensors"))
    (tiny / "model.safetensors.index.json").unlink()
    shards[1].unlink()
    shards[0].rename(tiny / "model-00001-of-00001.safetensors")
    with Checkpoint(tiny) as checkpoint:
        assert checkpoint.tensors


@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer.json", "model.safetensors.index.json",
     "model-00002-of-00002.safetensors"],
)  # fmt: skip
def test_a_git_lfs_pointer_is_named_as_one(tiny: Path, out: Path, name: str) -> None:
    (tiny / name).write_text(POINTER)
    with pytest.raises(ConvertError, match=rf"{name} is a Git LFS pointer.*git lfs pull"):
        convert(tiny, out)
    assert list(out.parent.iterdir()) == []


def test_a_pointer_in_place_of_a_gguf_file_is_named_as_one(tmp_path: Path, out: Path) -> None:
    (tmp_path / "model.gguf").write_text(POINTER)
    with pytest.raises(ConvertError, match="is a Git LFS pointer"):
        convert(tmp_path / "model.gguf", out)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["adapter_config.json", "adapter_model.safetensors"], r"is an adapter \(LoRA\).*merge it"),
        (["adapter_model.bin", "config.json"], r"is an adapter \(LoRA\)"),
        (["a-Q4_K_M.gguf", "b.gguf"], "holds GGUF files: they run as they are.*a-Q4_K_M.gguf"),
        (["config.json", "onnx/model.onnx"], "is an ONNX export"),
        (["model.onnx"], "is an ONNX export"),
        (["config.json", "weights.npz"], "is an MLX model"),
        (["config.json", "tokenizer.json"], "has no model.safetensors.*download the weights"),
        (["tokenizer.json"], "holds only a tokenizer"),
        ([], "is empty"),
        (["README.md"], "is not a checkpoint: it has neither config.json nor model.safetensors"),
    ],
)
def test_a_folder_that_cannot_be_converted_is_named_as_what_it_is(
    tmp_path: Path, out: Path, files: list[str], expected: str
) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    for name in files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    with pytest.raises(ConvertError, match=expected) as raised:
        convert(folder, out)
    assert "\n" not in str(raised.value) and list(out.parent.iterdir()) == []


def test_an_mlx_model_in_safetensors_is_named_as_one(tiny: Path, out: Path) -> None:
    config = json.loads((tiny / "config.json").read_text())
    config["quantization"] = {"group_size": 64, "bits": 4}
    (tiny / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConvertError, match=re.escape("quantization is MLX's own")):
        convert(tiny, out)
