import json
import os
import re
import shlex
from pathlib import Path

import pytest
from fakes import programs as fake
from fakes.gguf_file import write_dense, write_experts

from localseek.errors import ModelError
from localseek.gguf import architectures
from localseek.store import library
from localseek.store.models import catalogue, reading
from localseek.store.models.families import family
from localseek.store.models.names import short_name
from localseek.system import paths


@pytest.fixture
def models(home: Path) -> Path:
    (home / "user").mkdir()
    return paths.models()


@pytest.mark.parametrize(
    ("file", "title", "kind", "expected"),
    [
        ("DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf", "x", "Q4_K_M",
         ("deepseek-r1-distill-qwen-7b", "q4_k_m")),
        ("DeepSeek-V3-0324-UD-Q2_K_XL-00001-of-00006.gguf", "x", "Q2_K",
         ("deepseek-v3-0324", "ud-q2_k_xl")),
        ("model.i1-IQ2_XXS.gguf", "Some Title", "IQ2_XXS", ("some-title", "i1-iq2_xxs")),
        ("v2-lite.gguf", "DeepSeek V2 Lite", "Q4_K_M", ("v2-lite", "q4_k_m")),
        ("deepseek-coder-6.7b-instruct.Q8_0.gguf", "x", "Q8_0",
         ("deepseek-coder-6.7b-instruct", "q8_0")),
        ("r1-DS_Q3.gguf", "x", "Q3_K", ("r1", "ds_q3")),
        ("gpt-oss-20b-mxfp4.gguf", "x", "MXFP4", ("gpt-oss-20b", "mxfp4")),
        ("ggml-model-f16.gguf", "Tiny", "F16", ("tiny", "f16")),
        ("bartowski_R1-GGUF_R1-Q4_0.gguf", "x", "Q4_0", ("r1", "q4_0")),
        ("sha256-" + "a" * 64, "R1 Q4_K_M", "Q4_K_M", ("r1", "q4_k_m")),
        ("问答 模型🙂 (v2).gguf", "x", "Q8_0", ("问答-模型-v2", "q8_0")),
        ("$(rm -rf ~);'x'.gguf", "x", "Q8_0", ("rm-rf-x", "q8_0")),
        ("🙂.gguf", "🙂", "?", ("model", "")),
    ],
)  # fmt: skip
def test_a_name_is_what_people_say_with_the_type_as_its_tag(file, title, kind, expected):
    assert short_name(Path(file), title, kind) == expected
    assert all(shlex.quote(part) == part for part in expected if part and part.isascii())


def test_a_name_of_bytes_that_are_no_text_can_be_written(models):
    write_dense(models / os.fsdecode(b"\xff\xfe-x.gguf"))
    (model,) = catalogue.all_models()
    assert model.name.encode().decode() == model.name and model.facts


@pytest.mark.parametrize("word", ["mine", "mine:q8_0", "MINE:Q8_0", "mine:q8_0.gguf"])
def test_a_model_answers_to_its_name_with_and_without_tag(models, word):
    path = write_dense(models / "mine.gguf")
    assert library.look_up(word).path == path


def test_a_name_without_tag_is_refused_where_there_are_several_types(models):
    write_dense(models / "v2-Q4_0.gguf")
    write_dense(models / "v2-Q8_0.gguf")
    with pytest.raises(ModelError) as caught:
        library.look_up("v2")
    assert str(caught.value) == "v2 can mean v2:q4_0, v2:q8_0. Write one of these names."
    assert library.look_up("v2-Q8_0").path.name == "v2-Q8_0.gguf"


def test_files_of_one_name_are_told_apart_by_program_then_owner_then_place(models, home):
    user = home / "user"
    one = {"general.name": "one"}
    fake.lm_studio(user, "team-a/r/m-Q8_0.gguf", **one)
    assert [model.name for model in catalogue.all_models()] == ["m:q8_0"]
    fake.lm_studio(user, "team-b/r/m-Q8_0.gguf", **one)
    fake.lm_studio(user, "team-b/s/m-Q8_0.gguf", **one)
    write_dense(models / "m-Q8_0.gguf")
    fake.llama_cpp(user, "m-Q8_0.gguf", **one)
    found = [model.name for model in catalogue.all_models()]
    assert {"m:q8_0", "m:q8_0@lmstudio-team-a", "m:q8_0@llamacpp"} < set(found)
    assert {"m:q8_0@lmstudio-r", "m:q8_0@lmstudio-s"} < set(found) and len(set(found)) == 5
    for name in found:
        assert library.look_up(name).name == name
    assert library.look_up("m:q8_0").in_library
    assert library.look_up("m@llamacpp").place.program == "llamacpp"
    with pytest.raises(ModelError, match="m@lmstudio can mean m:q8_0@lmstudio-"):
        library.look_up("m@lmstudio")


def test_a_place_in_a_name_is_understood_before_it_is_needed(models, home):
    fake.lm_studio(home / "user", "team/r/m-Q8_0.gguf")
    for name in ("m", "m:q8_0", "m:q8_0@lmstudio", "m@lmstudio", "m:q8_0@lmstudio-team"):
        assert library.look_up(name).place.program == "lmstudio"


def test_two_library_files_of_one_name_are_told_apart_by_their_folders(models):
    for owner in ("a", "b"):
        (models / owner).mkdir()
        write_dense(models / owner / "m-Q8_0.gguf")
    assert [model.name for model in catalogue.all_models()] == ["m:q8_0@a", "m:q8_0@b"]
    assert library.look_up("a/m-Q8_0").path.parent.name == "a"


def test_library_files_of_one_owner_are_told_apart_by_folder_and_last_by_digits(models):
    for folder in ("", "a/r", "a/s", "b/x/t", "b/y/t"):
        fake.model(models / folder / "m-Q8_0.gguf")
    found = sorted(model.name for model in catalogue.all_models())
    assert found[2:] == ["m:q8_0@models", "m:q8_0@r", "m:q8_0@s"]
    assert all(re.fullmatch(r"m:q8_0@[0-9a-f]{6}", name) for name in found[:2])
    assert all(library.look_up(name).name == name for name in found)


def test_folders_that_are_links_are_followed_and_the_folder_itself_goes_first(models, tmp_path):
    fake.model(tmp_path / "disk" / "far-Q8_0.gguf")
    fake.model(models / "z" / "near-Q8_0.gguf")
    (models / "link").symlink_to(tmp_path / "disk")
    (models / "a").symlink_to(models / "z")
    (models / "z" / "loop").symlink_to(models)
    found = {model.name: model.path for model in catalogue.all_models()}
    assert found == {
        "far:q8_0": models / "link" / "far-Q8_0.gguf",
        "near:q8_0": models / "z" / "near-Q8_0.gguf",
    }


def test_more_names_than_fit_are_counted(models):
    for number in range(9):
        fake.model(models / f"qwerty{number}-Q8_0.gguf")
    with pytest.raises(ModelError, match=r"There is: nano, .*qwerty6:q8_0 and 2 more\. To get"):
        library.look_up("zzzzzzzz")


def test_no_other_model_is_called_nano(models):
    write_dense(models / "nano.gguf")
    (model,) = catalogue.all_models()
    assert model.name == "nano-file:q8_0" and "nano" not in catalogue.spoken([model])[1:]


def test_a_near_miss_is_answered_with_what_to_write(models, home):
    fake.ollama(home / "user/ollama", "deepseek-r1", "8b", **{"general.name": "R1 Llama"})
    write_dense(models / "v2-lite.gguf")
    with pytest.raises(ModelError, match=r"Did you mean deepseek-r1:8b\? To get one: "):
        library.look_up("deepseek-r1:7b")
    with pytest.raises(ModelError, match=r"There is: nano, v2-lite:q8_0, r1-llama:q8_0\."):
        library.look_up("zzzzzzzz")


@pytest.mark.parametrize(
    ("architecture", "said", "experts", "nextn", "expected"),
    [
        ("qwen2", "DeepSeek-R1-Distill-Qwen-7B", 0, 0, "R1 distill (Qwen2)"),
        ("llama", "DeepSeek R1 Distill Llama 8B", 0, 0, "R1 distill (Llama)"),
        ("qwen3", "DeepSeek-R1-0528-Qwen3-8B", 0, 0, "R1 distill (Qwen3)"),
        ("qwen3", "Qwen3 8B", 0, 0, "qwen3"),
        ("llama", "deepseek-coder-6.7b-instruct", 0, 0, "Coder"),
        ("llama", "deepseek-llm-7b-chat", 0, 0, "LLM"),
        ("llama", "DeepSeek Math 7B", 0, 0, "Math"),
        ("llama", "Llama 3.1 8B", 0, 0, "llama"),
        ("deepseek2", "DeepSeek-V3-0324", 256, 1, "V3"),
        ("deepseek2", "DeepSeek-V3.1", 256, 1, "V3.1"),
        ("deepseek2", "DeepSeek-R1-0528", 256, 0, "R1"),
        ("deepseek2", "DeepSeek-V2-Lite-Chat", 64, 0, "V2-Lite"),
        ("deepseek2", "DeepSeek-Coder-V2-Lite-Instruct", 64, 0, "Coder V2 Lite"),
        ("deepseek2", "model", 64, 0, "V2-Lite"),
        ("deepseek2", "model", 160, 0, "V2"),
        ("deepseek2", "nano", 8, 1, "V3"),
        ("deepseek32", "x", 256, 1, "V3.2"),
        ("deepseek4", "x", 256, 1, "V4"),
        ("deepseek", "x", 64, 0, "MoE-16B"),
        ("", "x", 0, 0, "?"),
    ],
)
def test_families_are_called_what_people_call_them(architecture, said, experts, nextn, expected):
    assert family(architecture, said, experts, nextn) == expected


def test_the_architectures_are_those_of_the_llama_cpp_that_is_installed():
    import llama_cpp

    folder = Path(llama_cpp.__file__).parent / "lib"
    (binary,) = (one for one in folder.iterdir() if re.fullmatch(r"libllama\.(so|dylib)", one.name))
    data = binary.read_bytes()
    missing = [name for name in architectures.KNOWN if name.encode() + b"\0" not in data]
    assert missing == [] and architectures.EMBEDDERS < architectures.KNOWN


@pytest.mark.parametrize(
    ("facts", "obstacle"),
    [
        ({"architecture": "mllama"}, "llama.cpp does not know mllama"),
        ({"architecture": "nomic-bert"}, "vectors, no text"),
        ({"architecture": "qwen3", "qwen3.pooling_type": 3}, "vectors, no text"),
        ({"architecture": "clip"}, "only sees, for another model"),
        ({"architecture": "llama", "llama.block_count": 0}, "holds no layers"),
        ({"architecture": "llama"}, ""),
    ],
)
def test_what_cannot_answer_says_why(models, facts, obstacle):
    path = fake.model(models / "m.gguf", **facts)
    assert reading.read_facts(path).obstacle == obstacle


def test_facts_are_read_once_and_again_when_any_of_the_files_changes(models, monkeypatch):
    parts = fake.split(models, "big", 3)
    parts[2].rename(models / "away")
    read = []
    real = reading.read_facts
    monkeypatch.setattr(reading, "read_facts", lambda path: read.append(path.name) or real(path))
    (first,) = catalogue.all_models()
    assert first.facts and first.facts.obstacle == "1 of 3 parts missing"
    assert catalogue.all_models() == [first] and read == [parts[0].name]
    (models / "away").rename(parts[2])
    (whole,) = catalogue.all_models()
    assert whole.facts and not whole.facts.missing
    assert whole.facts.size_bytes == sum(part.stat().st_size for part in parts)
    write_experts(parts[0].with_name("big.gguf"))
    os.utime(parts[1], (5, 5))
    catalogue.all_models()
    assert read == [parts[0].name] * 3 + ["big.gguf"]


@pytest.mark.parametrize(
    "kept",
    [b"", b"{", b"[]", b'{"version": 1}', b'{"version": 1, "models": 3}',
     b'{"version": 99, "models": {}}'],
)  # fmt: skip
def test_kept_facts_that_are_none_are_read_anew(models, home, kept):
    path = write_dense(models / "m.gguf")
    (first,) = catalogue.all_models()
    file = home / "cache" / "models.json"
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(kept)
    assert catalogue.all_models() == [first]
    found = json.loads(file.read_text())
    found["models"][str(path)]["facts"] = {"title": "half"}
    file.write_text(json.dumps(found))
    assert catalogue.all_models() == [first]


def test_what_a_killed_list_left_goes_with_the_next(models, home):
    write_dense(models / "m.gguf")
    left = [home / "cache" / f"models.json.{number}.partial" for number in (1, 2)]
    left[0].parent.mkdir()
    for path in left:
        path.write_text("{")
    os.utime(left[0], (1, 1))
    catalogue.all_models()
    assert [path.exists() for path in left] == [False, True]


def test_a_home_that_cannot_be_written_to_keeps_no_facts_and_lists_all_the_same(models, home):
    write_dense(models / "m.gguf")
    (home / "cache").write_text("a file where the folder would be")
    assert [model.name for model in catalogue.all_models()] == ["m:q8_0"]


def test_names_are_told_without_opening_a_file(models, monkeypatch):
    write_dense(models / "m-Q4_K_M.gguf")
    monkeypatch.setattr(reading, "read_facts", lambda path: pytest.fail(f"{path} was read"))
    assert catalogue.spoken(catalogue.all_models(read=False)) == ["nano", "m:q4_k_m"]
