import json
import os
import sys
import time
from pathlib import Path

import pytest
from fakes import programs as fake
from fakes.gguf_file import write_dense

from localseek.store.models import catalogue, programs
from localseek.store.models.walking import files_below
from localseek.system import paths

R1 = {"general.name": "DeepSeek R1 Distill Qwen 7B", "general.file_type": fake.Q4_K_M}
R1_FILE = "DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf"


@pytest.fixture
def user(home: Path) -> Path:
    folder = home / "user"
    folder.mkdir()
    return folder


def found() -> dict[str, str]:
    """Which names are listed, and whose they are."""
    return {one.name: one.place.program for one in catalogue.all_models()}


def test_models_of_every_program_are_found_where_they_are(user):
    fake.hub(user, "bartowski/R1-GGUF", R1_FILE, **R1)
    fake.lm_studio(user, "lmstudio-community/Coder/deepseek-coder-6.7b.Q8_0.gguf")
    fake.ollama(user / "ollama", "deepseek-r1", "8b", **{"general.name": "R1 Llama 8B"})
    fake.llama_cpp(user, "ggml-org_gemma-3-1b-it-GGUF_gemma-3-1b-it-Q4_K_M.gguf")
    before = sorted(user.rglob("*"))
    assert found() == {
        "deepseek-r1-distill-qwen-7b:q4_k_m": "huggingface",
        "deepseek-coder-6.7b:q8_0": "lmstudio",
        "r1-llama-8b:q8_0": "ollama",
        "gemma-3-1b-it:q4_k_m": "llamacpp",
    }
    assert sorted(user.rglob("*")) == before, "nothing is written beside them"


def test_ollamas_names_are_those_that_ollama_says(user):
    root = user / "ollama"
    fake.ollama(root, "deepseek-r1", "8b", **{"general.name": "a"})
    fake.ollama(root, "mine", "latest", registry="registry.ollama.ai/me", **{"general.name": "b"})
    fake.ollama(root, "r1-gguf", "Q4_K_M", registry="hf.co/bartowski", **{"general.name": "c"})
    assert {place.called for place in programs.ollama()} == {
        "deepseek-r1:8b", "me/mine:latest", "hf.co/bartowski/r1-gguf:Q4_K_M",
    }  # fmt: skip
    (model,) = catalogue.meant("deepseek-r1:8b", catalogue.all_models())
    assert model.place.called == "deepseek-r1:8b" and model.name == "a:q8_0"
    (latest,) = catalogue.meant("me/mine", catalogue.all_models())
    assert latest.place.called == "me/mine:latest"


def test_a_blob_that_says_nothing_of_itself_is_called_as_ollama_calls_it(user):
    fake.ollama(user / "ollama", "phi", "3b", **{"general.name": ""})
    assert list(found()) == ["phi:3b"]


@pytest.mark.parametrize(
    "manifest",
    ["{", "[]", '{"layers": 3}', '{"layers": [3]}', '{"layers": [{"mediaType": '
     '"application/vnd.ollama.image.model", "digest": "sha256:../../../etc/passwd"}]}',
     '{"layers": [{"mediaType": "application/vnd.ollama.image.model"}]}', "[" * 50_000],
)  # fmt: skip
def test_a_manifest_that_names_no_model_is_passed_over(user, manifest):
    file = user / "ollama/manifests/registry.ollama.ai/library/odd/latest"
    file.parent.mkdir(parents=True)
    file.write_text(manifest)
    assert list(programs.ollama()) == []


def test_a_model_that_ollama_still_downloads_is_passed_over(user):
    blob = fake.ollama(user / "ollama", "half", "1b")
    blob.rename(blob.with_name(blob.name + "-partial"))
    assert list(programs.ollama()) == []


def test_each_file_of_a_hub_repository_comes_from_its_newest_snapshot(user):
    old = fake.hub(user, "org/m", "a-Q8_0.gguf", "old", **{"general.name": "old"})
    fake.hub(user, "org/m", "b-Q8_0.gguf", "old", **{"general.name": "b"})
    os.utime(old.parent, (1, 1))
    new = fake.hub(user, "org/m", "sub/a-Q8_0.gguf", "new")
    newer = fake.hub(user, "org/m", "a-Q8_0.gguf", "new", **{"general.name": "new"})
    seen = {place.path for place in programs.hugging_face()}
    assert seen == {new, newer, old.with_name("b-Q8_0.gguf")}


def test_the_variables_of_other_programs_move_their_folders(user, monkeypatch, tmp_path):
    for name, folder in (
        ("HF_HUB_CACHE", "hub"), ("OLLAMA_MODELS", "ollama"), ("LLAMA_CACHE", "llama"),
    ):  # fmt: skip
        monkeypatch.setenv(name, str(tmp_path / folder))
    fake.model(tmp_path / "hub/models--o--m/snapshots/1/x-Q8_0.gguf", **{"general.name": "x"})
    fake.ollama(tmp_path / "ollama", "y", "1b", **{"general.name": "y"})
    fake.model(tmp_path / "llama/z-Q8_0.gguf", **{"general.name": "z"})
    assert list(found()) == ["x:q8_0", "y:q8_0", "z:q8_0"]
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    assert paths.hugging_face_caches() == [tmp_path / "home" / "hub"]
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert paths.hugging_face_caches() == [tmp_path / "xdg" / "huggingface" / "hub"]
    monkeypatch.delenv("LLAMA_CACHE")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert paths.llama_cpp_caches() == [user / "Library" / "Caches" / "llama.cpp"]


def test_lm_studio_is_followed_to_where_its_settings_and_its_pointer_lead(user, tmp_path):
    fake.model(tmp_path / "disk/pub/repo/a-Q8_0.gguf")
    fake.model(tmp_path / "studio/models/pub/repo/b-Q8_0.gguf")
    (user / ".lmstudio-home-pointer").write_text(f"{tmp_path}/studio\n")
    settings = user / ".lmstudio" / "settings.json"
    settings.parent.mkdir()
    for text, expected in (
        (json.dumps({"downloadsFolder": f"{tmp_path}/disk"}), ["a-Q8_0.gguf", "b-Q8_0.gguf"]),
        (json.dumps({"downloadsFolder": 3}), ["b-Q8_0.gguf"]),
        (json.dumps({"downloadsFolder": "~nobody-here/x\0"}), ["b-Q8_0.gguf"]),
        ("not json", ["b-Q8_0.gguf"]),
    ):
        settings.write_text(text)
        assert [place.path.name for place in programs.lm_studio()] == expected


def test_what_is_no_whole_model_is_passed_over(user):
    folder = user / ".lmstudio/models/pub/repo"
    fake.split(folder, "big-Q8_0", 3)
    fake.lm_studio(user, "pub/repo/mmproj-model-f16.gguf")
    fake.lm_studio(user, "pub/repo/eyes-f16.gguf", architecture="clip")
    for name in ("a.gguf.part", "b.gguf.incomplete", "c.gguf.downloadInProgress", ".d.gguf"):
        (folder / name).write_bytes(b"GGUF")
    (folder / "dangling.gguf").symlink_to("away")
    (folder / "circle.gguf").symlink_to("circle.gguf")
    (folder / "around").symlink_to(folder.parent)
    (folder / "folder.gguf").mkdir()
    os.mkfifo(folder / "pipe.gguf")
    assert list(found()) == ["big:q8_0"]


def test_a_truncated_file_of_another_program_is_kept_apart(user):
    whole = fake.lm_studio(user, "pub/repo/half-Q8_0.gguf")
    whole.write_bytes(whole.read_bytes()[:3000])
    (model,) = catalogue.all_models()
    assert model.facts is None and "is truncated" in model.problem


def test_a_folder_that_must_not_be_read_holds_nothing(user, monkeypatch):
    fake.lm_studio(user, "pub/repo/a-Q8_0.gguf")
    real = os.scandir

    def scandir(folder):
        if Path(folder).name == "repo":
            raise PermissionError(13, "Permission denied", folder)
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert found() == {}


def test_a_file_seen_in_two_places_is_one_model(user, home):
    (home / "models").mkdir()
    own = write_dense(home / "models" / "mine.gguf")
    linked = user / ".lmstudio/models/pub/repo/same-Q8_0.gguf"
    linked.parent.mkdir(parents=True)
    os.link(own, linked)
    hub = fake.hub(user, "org/m", "m-Q8_0.gguf")
    digest = hub.resolve().name
    fake.ollama(user / "ollama", "m", "1b")  # the same bytes, so the same digest in its name
    assert (user / "ollama/blobs" / f"sha256-{digest}").exists()
    mine, theirs = catalogue.all_models()
    assert (mine.name, [one.path for one in mine.also]) == ("mine:q8_0", [linked])
    assert (theirs.name, [one.called for one in theirs.also]) == ("m:q8_0", ["m:1b"])
    assert catalogue.meant("m:1b", [mine, theirs]) == [theirs]


def test_ten_thousand_files_are_walked_in_a_moment_and_a_million_not_to_the_end(
    tmp_path, monkeypatch
):
    for number in range(100):
        folder = tmp_path / f"{number:03}"
        folder.mkdir()
        for one in range(100):
            (folder / f"{one}.txt").touch()
        (folder / "m.gguf").touch()
    before = time.process_time()
    assert len(files_below(tmp_path, ".gguf")) == 100
    assert time.process_time() - before < 1
    monkeypatch.setattr("localseek.store.models.walking.MOST_ENTRIES", 500)
    assert 0 < len(files_below(tmp_path, ".gguf")) < 10
