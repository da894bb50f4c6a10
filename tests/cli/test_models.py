import json
import multiprocessing
import os
from pathlib import Path

import pytest
from fakes.gguf_file import write_dense, write_experts

from localseek import nano
from localseek.errors import ModelError
from localseek.store import library


@pytest.fixture
def checkpoint(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    monkeypatch.setattr(nano, "CHECKPOINT", folder)
    return folder


class Preparing:
    """A conversion that writes a fixed text and remembers what it was asked."""

    def __init__(self, version: str = "1", content: bytes = b"GGUF") -> None:
        self.calls: list[tuple[Path, Path]] = []
        self.notices: list[str] = []
        self.content = content
        self.preparation = library.Preparation(self.convert, version, self.notices.append)

    def convert(self, source: Path, target: Path) -> None:
        self.calls.append((source, target))
        target.write_bytes(self.content)


def test_a_path_and_a_name_with_or_without_its_ending_are_found(home, tmp_path):
    preparation = Preparing().preparation
    outside = write_dense(tmp_path / "outside.gguf")
    (home / "models" / "team").mkdir(parents=True)
    inside = write_dense(home / "models" / "team" / "v2.gguf")
    assert library.resolve(str(outside), preparation) == outside
    for name in ("team/v2", "team/v2.gguf", "v2", "v2.gguf"):
        assert library.resolve(name, preparation) == inside


def test_an_unknown_model_is_answered_with_the_nearest_name_and_how_to_get_one(run_cli, home):
    outcome = run_cli("ask", "-m", "tyny", "hi")
    assert outcome.status == 1
    assert outcome.err == (
        "localseek: There is no model 'tyny', neither as a file nor among those here. Did you mean "
        f"tiny? To get one: localseek convert CHECKPOINT {home}/models/NAME.gguf\n"
    )


def test_a_name_that_two_models_share_is_refused(home):
    for folder in ("a", "b"):
        (home / "models" / folder).mkdir(parents=True)
        write_dense(home / "models" / folder / "same.gguf")
    with pytest.raises(ModelError, match="same can mean a/same, b/same"):
        library.resolve("same", Preparing().preparation)


def test_a_folder_with_one_model_means_it_and_a_hub_cache_its_snapshot(run_cli, home, tmp_path):
    tiny = home / "models" / "tiny.gguf"
    snapshot = tmp_path / "models--org--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "tiny-Q8_0.gguf").symlink_to(tiny)
    for folder in (snapshot, tmp_path / "models--org--name"):
        shown = json.loads(run_cli("models", "show", str(folder), "--json").out)
        assert shown["path"].endswith("tiny-Q8_0.gguf"), shown
        assert run_cli("ask", "-q", "-m", str(folder), "say one").out == "one\n"
    (snapshot / "tiny-Q4_0.gguf").symlink_to(tiny)
    outcome = run_cli("models", "show", str(snapshot))
    assert outcome.status == 1
    assert "holds 2 models. Name one of them: tiny-Q4_0.gguf, tiny-Q8_0.gguf." in outcome.err


def test_a_git_lfs_pointer_is_named_as_one(run_cli, tmp_path):
    (tmp_path / "m.gguf").write_text("version https://git-lfs.github.com/spec/v1\nsize 5\n")
    outcome = run_cli("ask", "-m", str(tmp_path / "m.gguf"), "x")
    assert outcome.status == 1 and "is a Git LFS pointer, not the file itself. Run" in outcome.err


def test_a_checkpoint_folder_is_answered_with_the_conversion(tmp_path):
    with pytest.raises(ModelError, match="without a GGUF file. If it is a checkpoint: "):
        library.resolve(str(tmp_path), Preparing().preparation)


def test_what_is_no_regular_file_is_named_as_such(tmp_path):
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "link.gguf").symlink_to("away.gguf")
    cases = (("pipe.gguf", "is not a regular file"), ("link.gguf", "a link to away.gguf, "))
    for name, why in cases:
        with pytest.raises(ModelError, match=why):
            library.resolve(str(tmp_path / name), Preparing().preparation)
    with pytest.raises(ModelError, match="has no name"):
        library.resolve("", Preparing().preparation)


def test_nano_is_prepared_on_first_use_and_then_kept(checkpoint, home):
    preparing = Preparing()
    path = library.resolve("nano", preparing.preparation)
    assert library.resolve("nano", preparing.preparation) == path
    assert (path.parent, path.read_bytes()) == (home / "models", b"GGUF")
    assert preparing.notices == ["preparing the embedded model (first use)…"]
    assert len(preparing.calls) == 1


def test_nano_is_prepared_again_when_checkpoint_or_converter_change(checkpoint, home):
    first = library.resolve("nano", Preparing().preparation)
    second = library.resolve("nano", Preparing(version="2").preparation)
    (checkpoint / "config.json").write_text('{"changed": 1}')
    third = library.resolve("nano", Preparing(version="2").preparation)
    assert len({first, second, third}) == 3
    assert list((home / "models").glob("*.gguf")) == [third]


def test_a_file_of_the_users_own_is_not_taken_for_an_old_nano(checkpoint, home):
    (home / "models").mkdir(exist_ok=True)
    own = home / "models" / "nano-Q8_0-finetuned.gguf"
    own.write_bytes(b"mine")
    old = library.resolve("nano", Preparing().preparation)
    new = library.resolve("nano", Preparing(version="2").preparation)
    assert (own.exists(), old.exists(), new.exists()) == (True, False, True)
    assert library.library_name(own) == "nano-Q8_0-finetuned"


def test_what_killed_preparations_left_goes_when_nano_is_prepared(checkpoint, home):
    (home / "models").mkdir(exist_ok=True)
    left = [
        home / "models" / f".nano-Q8_0-0123456789ab.gguf.{end}"
        for end in ("4711.partial", "new", "new.partial", "new.partial.journal")
    ]
    own = home / "models" / ".nano-Q8_0-mine.gguf.partial"
    for path in (*left, own):
        path.write_bytes(b"half")
    library.resolve("nano", Preparing().preparation)
    assert not any(path.exists() for path in left)
    assert own.exists()


def test_a_lock_that_cannot_be_written_is_an_error_with_a_remedy(checkpoint, home):
    (home / "models" / ".nano.lock").mkdir(parents=True)
    with pytest.raises(ModelError, match="nano.lock cannot be written: .* Set LOCALSEEK_HOME"):
        library.resolve("nano", Preparing().preparation)


def test_a_conversion_that_fails_leaves_nothing_that_counts(checkpoint, home):
    def convert(_source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise ModelError("No.")

    preparation = library.Preparation(convert, "1", lambda _text: None)
    for _ in range(2):
        with pytest.raises(ModelError, match="No."):
            library.resolve("nano", preparation)
    assert [p.name for p in (home / "models").iterdir()] == [".nano.lock"]


def convert_slowly(source: Path, target: Path) -> None:
    with (source / "calls").open("a") as calls:
        calls.write("x")
    target.write_bytes(b"GGUF" * 100_000)


def prepare(results) -> None:
    preparation = library.Preparation(convert_slowly, "1", lambda _text: None)
    results.put(library.resolve("nano", preparation).stat().st_size)


def test_two_processes_that_need_nano_at_once_prepare_it_once(checkpoint, home):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=prepare, args=(results,)) for _ in range(3)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [400_000] * 3
    for process in processes:
        process.join()
    assert (checkpoint / "calls").read_text() == "x"


def test_an_installation_without_the_checkpoint_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(nano, "CHECKPOINT", tmp_path / "nowhere")
    with pytest.raises(ModelError, match="The embedded model is not in this installation"):
        library.resolve("nano", Preparing().preparation)


def test_the_list_is_a_table_of_what_is_in_the_library(run_cli, home, checkpoint):
    write_experts(home / "models" / "small-v3.gguf")
    outcome = run_cli("models", "list")
    assert outcome.status == 0
    assert outcome.out == (
        "NAME           FAMILY  TYPE  SIZE     CONTEXT  MTP  FITS\n"
        "small-v3:q8_0  V3      Q8_0  28.1 kB  4,096    yes  yes\n"
        "tiny:q8_0      llama   Q8_0  13.0 kB  2,048    no   yes\n"
    )
    assert outcome.err == "nano, the embedded model, is prepared on first use.\n"


def test_the_embedded_model_is_listed_by_the_name_that_it_is_asked_for(run_cli, home, checkpoint):
    (home / "models").mkdir(exist_ok=True)
    write_dense(home / "models" / "nano-Q8_0-0123456789ab.gguf")
    outcome = run_cli("models", "--json", "list")
    assert [row["name"] for row in json.loads(outcome.out)] == ["nano", "tiny"]
    assert run_cli("models", "list").err == ""


def test_a_damaged_file_in_the_library_is_named_and_the_rest_listed(run_cli, home, checkpoint):
    (home / "models" / "broken.gguf").write_bytes(b"GGUF")
    outcome = run_cli("models", "list", "--json")
    assert outcome.status == 1
    assert [row["name"] for row in json.loads(outcome.out)] == ["tiny"]
    assert outcome.err.startswith("localseek: ") and "broken.gguf is not a GGUF file" in outcome.err


def test_show_tells_the_facts_the_types_by_group_and_the_metadata(run_cli):
    outcome = run_cli("models", "show", "tiny")
    lines = outcome.out.splitlines()
    assert "parameters    10.6 k in 3 tensors" in lines
    assert "  token_embd.weight  1 × Q8_0" in lines
    assert "  attn_norm.weight   1 × F32" in lines
    assert "  tokenizer.ggml.tokens    100 elements" in lines


def test_show_cuts_long_values_and_disarms_control_characters(run_cli, home):
    evil = {"general.name": "a\x1b[2Jb", "tokenizer.chat_template": "x" * 500}
    write_dense(home / "models" / "evil.gguf", **evil)
    shown = run_cli("models", "show", "evil").out
    assert "\x1b" not in shown and "a␛[2Jb" in shown
    assert "x" * 59 + "…" in shown and "x" * 60 not in shown


def test_show_as_json_holds_the_metadata_and_only_the_length_of_long_arrays(run_cli):
    shown = json.loads(run_cli("models", "show", "tiny", "--json").out)
    assert shown["metadata"]["tokenizer.ggml.tokens"] == {"elements": 100}
    assert shown["tensor_types"]["attn_q.weight"] == {"Q8_0": 1}
    assert (shown["mtp"], shown["experts"], shown["layers"]) == (False, 0, 1)


def test_saved_sequences_are_counted_and_cleared(run_cli, environment):
    folder = Path(environment["LOCALSEEK_HOME"]) / "sequences"
    folder.mkdir(parents=True)
    (folder / "a-1.sequence").write_bytes(bytes(1500))
    shown = run_cli("models", "sequences").out
    assert shown == f"1 saved sequence, 1.5 kB; at most 4.0 GB are kept, in {folder}.\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALSEEK_SEQUENCE_LIMIT", "much")
        assert run_cli("models", "sequences").status == 2
        assert run_cli("models", "sequences", "--clear").out == "Removed: 1 saved, 1.5 kB.\n"
    assert json.loads(run_cli("models", "--json", "sequences").out) == {
        "sequences": 0, "size_bytes": 0,
    }  # fmt: skip
