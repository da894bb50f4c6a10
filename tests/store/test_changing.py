import contextlib
import json
import multiprocessing
import os
import resource
import signal
from pathlib import Path

import pytest
from fakes import programs as fake
from fakes.gguf_file import write_dense

from localseek.errors import LocalseekError, ModelError, UsageError
from localseek.store import changing, pulled
from localseek.store.belonging import origin_of
from localseek.store.models import catalogue
from localseek.store.pulled import Pulled
from localseek.system import paths
from localseek.system.in_use import mapping_processes

PARTS = 3
NAMES = [f"big-{number:05}-of-{PARTS:05}.gguf" for number in range(1, PARTS + 1)]
RENAMED = [name.replace("big", "new") for name in NAMES]


@pytest.fixture
def repository(home: Path) -> Path:
    """A split model as it was pulled, beside another file of the same repository."""
    (home / "user").mkdir()
    folder = paths.models() / "owner" / "repo"
    fake.split(folder, "big", PARTS)
    write_dense(folder / "other.gguf")
    sums = {name: f"sum of {name}" for name in [*NAMES, "other.gguf"]}
    pulled.record(folder, Pulled("owner/repo", "c0ffee", "mit", sums))
    return folder


def ggufs(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.gguf"))


def test_all_parts_are_renamed_and_the_record_of_the_download_follows(repository):
    contents = [(repository / name).read_bytes() for name in NAMES]
    new = changing.rename(repository / NAMES[0], "new")
    assert new == repository / RENAMED[0]
    assert ggufs(repository) == [*RENAMED, "other.gguf"]
    assert [(repository / name).read_bytes() for name in RENAMED] == contents
    record = pulled.recorded(repository)
    assert record and record.files == {
        **{new: f"sum of {old}" for old, new in zip(NAMES, RENAMED, strict=True)},
        "other.gguf": "sum of other.gguf",
    }
    assert not (repository / changing.NOTE).exists()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "it is empty"), ("  ", "it is empty"), (".gguf", "it is empty"),
        ("a/b", "'/' cannot stand in it"), ("..", "it begins with '.'"),
        ("../x", "'/' cannot stand in it"), (".x", "it begins with '.'"),
        ("-x", "it begins with '-'"), ("nano", "that is the embedded model's"),
        ("Nano", "that is the embedded model's"), ("a b", "a space cannot stand in it"),
        ("a:q4", "':' cannot stand in it"), ("a@b", "'@' cannot stand in it"),
        ("$x", "'$' cannot stand in it"), ("a\n", r"'\n' cannot stand in it"),
        ("a\0", r"'\x00' cannot stand in it"),
        ("a-00001-of-00002", "it ends like a part of a model"),
        ("x" * 231, "it is longer than 230 bytes"), ("模" * 77, "it is longer than 230 bytes"),
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_one_is_refused_and_nothing_is_touched(repository, name, why):
    with pytest.raises(UsageError) as caught:
        changing.rename(repository / NAMES[0], name)
    assert f"cannot be a model's name: {why}." in str(caught.value)
    assert ggufs(repository) == [*NAMES, "other.gguf"]


@pytest.mark.parametrize("name", ["模型-v2", "R1.5_small", "new.gguf"])
def test_names_in_any_language_are_taken(repository, name):
    new = changing.rename(repository / "other.gguf", name)
    assert new.name == f"{name.removesuffix('.gguf')}.gguf" and new.is_file()


@pytest.mark.parametrize("taken", [RENAMED[0], RENAMED[2]])
def test_no_file_is_written_over(repository, taken):
    (repository / taken).symlink_to("away")
    with pytest.raises(ModelError, match=f"{taken} is there already. Take another name."):
        changing.rename(repository / NAMES[0], "new")
    assert set(NAMES) < set(ggufs(repository)) and os.path.lexists(repository / taken)


def rename_until(step: int, path: Path) -> None:
    """Rename, and die by SIGKILL before the file system is changed for the `step`-th time."""
    left = step
    for name in ("link", "unlink", "replace", "rename"):
        real = getattr(os, name)

        def counted(*words, real=real, **options):
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return real(*words, **options)

        setattr(os, name, counted)
    changing.rename(path, "new")


@pytest.mark.parametrize("step", range(10))
def test_a_renaming_that_is_killed_at_any_step_loses_nothing_and_is_finished(repository, step):
    contents = {(repository / name).read_bytes() for name in NAMES}
    context = multiprocessing.get_context("fork")
    process = context.Process(target=rename_until, args=(step, repository / NAMES[0]))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "the step was reached"
    assert contents <= {path.read_bytes() for path in repository.glob("*.gguf")}
    begun = changing.unfinished()
    for one in begun:
        assert (one.old, one.new) == ("big", "new")
        changing.finish(one)
    if not begun:  # nothing was written down, so nothing was touched, or all was done
        assert NAMES[0] in ggufs(repository)
        changing.rename(repository / NAMES[0], "new")
    assert ggufs(repository) == [*RENAMED, "other.gguf"] and changing.unfinished() == []
    assert {(repository / name).read_bytes() for name in RENAMED} == contents
    origin = origin_of(repository / RENAMED[2])
    assert origin and origin.sha256 == f"sum of {NAMES[2]}"


def test_a_renaming_is_not_finished_over_a_file_that_came_meanwhile(repository):
    pairs = tuple(zip(NAMES, RENAMED, strict=True))
    (repository / RENAMED[1]).write_bytes(b"mine")
    with pytest.raises(ModelError, match=r"new-00002-of-00003.gguf is there already. Move it"):
        changing.finish(changing.Renaming(repository, "big", "new", pairs))
    assert (repository / RENAMED[1]).read_bytes() == b"mine"
    assert (repository / NAMES[1]).is_file()


@pytest.mark.parametrize(
    "text", ["{", "3", '{"old": "a", "new": "b", "files": [["../a.gguf", "b.gguf"]]}',
             '{"old": "a", "new": "b", "files": []}', '{"files": [["a"]]}'],
)  # fmt: skip
def test_a_note_that_is_not_ours_is_passed_over(repository, text):
    (repository / changing.NOTE).write_text(text)
    assert changing.unfinished() == []


def test_where_files_can_have_one_name_only_they_are_renamed_all_the_same(repository, monkeypatch):
    def link(*_words, **_options):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    changing.rename(repository / NAMES[0], "new")
    assert ggufs(repository) == [*RENAMED, "other.gguf"]


@contextlib.contextmanager
def full_disk():
    """No file can grow, as on a full disk; the limit binds root too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_old_names(repository):
    with full_disk(), pytest.raises(LocalseekError, match="cannot be changed: File too large"):
        changing.rename(repository / NAMES[0], "new")
    assert ggufs(repository) == [*NAMES, "other.gguf"] and changing.unfinished() == []
    assert [path.name for path in repository.glob(f"{changing.NOTE}*")] == []


def test_a_model_is_removed_with_its_parts_its_record_and_what_is_empty_then(repository):
    (repository / "notes.txt").write_text("mine")
    gone = changing.remove(repository / NAMES[0])
    assert [path.name for path in gone] == NAMES and ggufs(repository) == ["other.gguf"]
    record = pulled.recorded(repository)
    assert record and list(record.files) == ["other.gguf"]
    changing.remove(repository / "other.gguf")
    assert [path.name for path in repository.iterdir()] == ["notes.txt"]
    (repository / "notes.txt").unlink()
    write_dense(repository / "last.gguf")
    changing.remove(repository / "last.gguf")
    assert list(paths.models().iterdir()) == [] and paths.models().is_dir()


def test_removing_begins_with_the_last_part_so_that_the_rest_can_be_removed(
    repository, monkeypatch
):
    real = os.unlink

    def unlink(path, *words, **options):
        if Path(path).name == NAMES[1]:
            raise OSError(5, "Input/output error")
        return real(path, *words, **options)

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(LocalseekError, match="cannot be changed: Input/output error"):
        changing.remove(repository / NAMES[0])
    assert ggufs(repository) == [*NAMES[:2], "other.gguf"]
    monkeypatch.undo()


def test_only_what_no_other_name_leads_to_is_freed(repository, tmp_path):
    path = repository / "other.gguf"
    size = path.stat().st_size
    assert changing.freed_bytes([path]) == size
    os.link(path, tmp_path / "again")
    assert changing.freed_bytes([path]) == 0
    link = paths.models() / "link.gguf"
    link.symlink_to(path)
    assert changing.freed_bytes([link]) == 0
    changing.remove(link)
    assert path.is_file() and not os.path.lexists(link)


def test_a_process_that_has_a_file_mapped_is_known(repository):
    import mmap

    path = repository / "other.gguf"
    assert os.getpid() not in mapping_processes([path])
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        link = repository / "link.gguf"
        link.symlink_to(path)
        assert os.getpid() in mapping_processes([link])


def test_a_file_beside_a_download_belongs_to_none(repository):
    assert origin_of(write_dense(repository / "own.gguf")) is None
    found = origin_of(repository / "other.gguf")
    assert found and (found.pulled.licence, found.key) == ("mit", "other.gguf")
    assert json.loads((repository / pulled.RECORD).read_text())["commit"] == "c0ffee"


def test_a_saved_sequence_knows_its_model_by_what_it_holds_and_not_by_its_name(repository):
    from localseek.engine.loading.keeper import origin

    before = origin([repository / "other.gguf"], "f16")
    new = changing.rename(repository / "other.gguf", "moved")
    assert origin([new], "f16").model == before.model
    assert catalogue.at(new, catalogue.all_models())
