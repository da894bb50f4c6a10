from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest
from gguf import GGUFReader

from converters import ConvertError, ConvertOptions, Progress, convert

SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.gguf"


def test_a_shard_that_grows_under_the_conversion_is_noticed(tiny: Path, out: Path) -> None:
    shard = next(tiny.glob("*-00002-of-*"))

    def grow(progress: Progress) -> None:
        with shard.open("ab") as file:
            file.write(b"more")

    with pytest.raises(ConvertError, match=f"{shard.name} changed during the conversion"):
        convert(tiny, out, progress=grow)
    assert list(out.parent.iterdir()) == []


def test_a_shard_that_is_written_again_is_noticed(tiny: Path, out: Path) -> None:
    shard = next(tiny.glob("*-00001-of-*"))

    def touch(progress: Progress) -> None:
        os.utime(shard, ns=(0, shard.stat().st_mtime_ns + 1_000_000_000))

    with pytest.raises(ConvertError, match="changed during the conversion"):
        convert(tiny, out, progress=touch)


@pytest.mark.parametrize("how", ["replaced", "removed"])
def test_a_shard_in_whose_place_another_stands_is_noticed(tiny: Path, out: Path, how: str) -> None:
    shard = next(tiny.glob("*-00001-of-*"))

    def swap(progress: Progress) -> None:
        if progress.done_bytes == 0 and how == "removed":
            shard.unlink()
        elif progress.done_bytes == 0:
            copy = shard.with_suffix(".new")
            shutil.copy2(shard, copy)
            copy.replace(shard)

    with pytest.raises(ConvertError, match="changed during the conversion"):
        convert(tiny, out, progress=swap)
    assert list(out.parent.iterdir()) == []


def test_a_hugging_face_cache_of_links_is_read_through_them(
    tiny: Path, tmp_path: Path, out: Path
) -> None:
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "0123"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(tiny.iterdir())):
        shutil.copy(path, blobs / f"{number:040x}")
        (snapshot / path.name).symlink_to(Path("../../blobs") / f"{number:040x}")
    options = ConvertOptions(name="tiny")
    convert(snapshot, out, options)
    convert(tiny, tmp_path / "plain.gguf", options)
    assert out.read_bytes() == (tmp_path / "plain.gguf").read_bytes()


@pytest.mark.parametrize("name", ["with spaces.gguf", "模型 ✓ é.gguf", "-dash.gguf", "no suffix"])
def test_a_name_of_any_kind_is_taken(tiny: Path, out: Path, name: str) -> None:
    folder = out.parent / "ein Ördner 模"
    folder.mkdir()
    convert(tiny, folder / name)
    assert [path.name for path in folder.iterdir()] == [name]


def test_a_target_inside_the_source_is_written_there(tiny: Path) -> None:
    convert(tiny, tiny / "model.gguf")
    assert (tiny / "model.gguf").read_bytes()[:4] == b"GGUF"


@pytest.mark.parametrize("name", ["config.json", "model-00001-of-00002.safetensors"])
def test_a_file_of_the_checkpoint_is_never_replaced(tiny: Path, name: str) -> None:
    before = (tiny / name).read_bytes()
    with pytest.raises(ConvertError, match="is a file of the source"):
        convert(tiny, tiny / name, ConvertOptions(force=True))
    assert (tiny / name).read_bytes() == before


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_as_target_stays_and_its_file_is_written(
    tiny: Path, tmp_path: Path, out: Path, exists: bool
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if exists:
        (elsewhere / "real.gguf").write_bytes(b"old")
    out.symlink_to(elsewhere / "real.gguf")
    result = convert(tiny, out, ConvertOptions(force=exists))
    assert (result.path, out.is_symlink()) == (out, True)
    assert (elsewhere / "real.gguf").read_bytes()[:4] == b"GGUF"
    assert [path.name for path in elsewhere.iterdir()] == ["real.gguf"]


def test_a_link_that_leads_in_a_circle_is_told(tiny: Path, out: Path) -> None:
    out.symlink_to(out)
    with pytest.raises(ConvertError):
        convert(tiny, out)


def test_an_unfinished_file_that_is_a_link_is_not_written_through(
    tiny: Path, tmp_path: Path, out: Path
) -> None:
    (tmp_path / "precious").write_bytes(b"mine")
    for end in (".partial", ".partial.journal"):
        link = out.with_name(out.name + end)
        link.symlink_to(tmp_path / "precious")
        with pytest.raises(ConvertError, match=f"cannot create .*{end}: Too many levels"):
            convert(tiny, out)
        link.unlink(missing_ok=True)
    assert (tmp_path / "precious").read_bytes() == b"mine"


def test_a_folder_that_cannot_be_written_to_is_told(tiny: Path, out: Path) -> None:
    out.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    # Nothing is forbidden to root, but for a file system that takes no files.
    target = Path("/sys/model.gguf") if os.geteuid() == 0 else out
    refusal = "cannot create .*: (Permission denied|Read-only file system)"
    with pytest.raises(ConvertError, match=refusal):
        convert(tiny, target)


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="no second file system")
def test_a_target_on_another_file_system_is_written_there(tiny: Path, tmp_path: Path) -> None:
    folder = SHARED_MEMORY / f"localseek-test-{os.getpid()}"
    folder.mkdir()
    try:
        convert(tiny, folder / "model.gguf", ConvertOptions(name="tiny"))
        convert(tiny, tmp_path / "model.gguf", ConvertOptions(name="tiny"))
        assert (folder / "model.gguf").read_bytes() == (tmp_path / "model.gguf").read_bytes()
    finally:
        shutil.rmtree(folder)


def test_a_name_too_long_for_its_journal_is_told(tiny: Path, out: Path) -> None:
    with pytest.raises(ConvertError, match="File name too long"):
        convert(tiny, out.with_name("x" * 250))
    assert list(out.parent.iterdir()) == []


def test_a_file_tells_its_source_and_recipe_and_no_path(tiny: Path, out: Path) -> None:
    overrides = (("ffn_down", "Q6_K"),)
    options = ConvertOptions(type="F16", tensor_types=overrides, mtp="drop", name="tiny")
    convert(tiny, out, options)
    found = {
        key: field.contents()
        for key, field in GGUFReader(out).fields.items()
        if key.startswith("localseek.")
    }
    fingerprint = found.pop("localseek.source.fingerprint")
    assert found.pop("localseek.recipe") == "--type F16 --mtp drop --tensor-type ffn_down=Q6_K"
    assert set(found) <= {"localseek.version"}
    assert str(tiny.parent).encode() not in out.read_bytes()
    moved = tiny.rename(tiny.parent / "moved")
    os.utime(moved / "config.json", (0, 0))
    convert(moved, out.with_name("again.gguf"), options)
    assert out.with_name("again.gguf").read_bytes() == out.read_bytes()
    (moved / "config.json").write_text((moved / "config.json").read_text() + " ")
    convert(moved, out.with_name("other.gguf"), options)
    other = GGUFReader(out.with_name("other.gguf")).fields["localseek.source.fingerprint"]
    assert other.contents() != fingerprint
