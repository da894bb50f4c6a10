import json

import pytest

from localseek.errors import LocalseekError, UsageError
from localseek.store.pulling.choosing import (
    checkpoint_files,
    choose,
    group_models,
    only_one,
    type_of,
)
from localseek.store.pulling.remote import RemoteFile, check_name


def files(*names, size=10):
    return [RemoteFile(name, size + number) for number, name in enumerate(names)]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("DeepSeek-R1-Distill-Qwen-7B-Q4_K_M", "Q4_K_M"),
        ("DeepSeek-R1-UD-IQ1_S/DeepSeek-R1-UD-IQ1_S", "UD-IQ1_S"),
        ("model.i1-IQ2_XXS", "IQ2_XXS"),
        ("BF16/DeepSeek-V3", "BF16"),
        ("r1-q8_0", "Q8_0"),
        ("DeepSeek-V2-Lite-Q4_0_4_8", "Q4_0_4_8"),
        ("v3-Q2_K_XL", "Q2_K_XL"),
        ("DeepSeek-V3-UD-Q4_K_XL", "UD-Q4_K_XL"),
        ("v4-flash-MXFP4_MOE", "MXFP4_MOE"),
        ("v3-DS_Q3", "DS_Q3"),
        ("m.f16", "F16"),
        ("Qwen2-7B", ""),
        ("QQ4_K_M7", ""),
    ],
)
def test_types_are_read_from_names_as_people_give_them(name, kind):
    assert type_of(name) == kind


def test_split_files_are_one_model_and_folders_tell_types():
    parts = [f"Q8_0/R1-{n:05}-of-00003.gguf" for n in (2, 3, 1)]
    models = group_models(files(*parts, "Q4_K_M/R1-00001-of-00002.gguf", "R1-Q2_K.gguf"))
    found = {model.name: model for model in models}
    assert set(found) == {"Q8_0/R1", "Q4_K_M/R1", "R1-Q2_K"}
    assert [file.name[-18:] for file in found["Q8_0/R1"].files] == [
        "R1-00001-of-00003.gguf"[-18:], "R1-00002-of-00003.gguf"[-18:],
        "R1-00003-of-00003.gguf"[-18:],
    ]  # fmt: skip
    assert found["Q8_0/R1"].type == "Q8_0" and found["Q8_0/R1"].lacking == 0
    assert found["Q4_K_M/R1"].lacking == 1
    assert found["Q8_0/R1"].size_bytes == 10 + 11 + 12


def test_projectors_and_importance_matrices_are_no_models():
    names = ("mmproj-model-f16.gguf", "model-Q8_0.gguf", "m.imatrix.gguf", "sub/mmproj.gguf")
    assert [model.name for model in group_models(files(*names))] == ["model-Q8_0"]


def test_an_improved_type_answers_to_the_plain_name_where_that_is_not_there():
    models = group_models(files("a-UD-Q4_K_XL.gguf", "a-Q4_K_M.gguf", "a-UD-Q4_K_M.gguf"))
    assert [m.type for m in choose("a/b", models, "q4_k_xl")] == ["UD-Q4_K_XL"]
    assert [m.type for m in choose("a/b", models, "Q4_K_M")] == ["Q4_K_M"]


def test_models_of_one_type_are_told_apart_by_name():
    models = group_models(files("small-Q8_0.gguf", "large-Q8_0.gguf"))
    with pytest.raises(UsageError) as error:
        only_one("a/b", choose("a/b", models, "Q8_0"))
    assert "a/b holds 2 models: small-Q8_0 (10 B), large-Q8_0 (11 B)." in str(error.value)
    assert "--file 'large-Q8_0*'" in str(error.value)


def names_of(listed, **contents):
    def read(file):
        return contents["index"]

    small, shards = checkpoint_files("a/b", listed, read)
    return [f.name for f in small], [f.name for f in shards]


def test_the_index_says_which_shards_belong_to_a_checkpoint():
    index = json.dumps({"weight_map": {"x": "model-1.safetensors", "y": "model-2.safetensors"}})
    listed = files(
        "config.json", "model.safetensors.index.json", "model-1.safetensors", "LICENSE-MODEL",
        "model-2.safetensors", "consolidated.safetensors", "chat_template.jinja", "README.md",
        "pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin", "figures/x.json",
    )  # fmt: skip
    small, shards = names_of(listed, index=index.encode())
    assert shards == ["model-1.safetensors", "model-2.safetensors"]
    assert small == [
        "LICENSE-MODEL", "chat_template.jinja", "config.json", "model.safetensors.index.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (b'{"weight_map": {"x": "model-9.safetensors"}}', "lacks model-9.safetensors"),
        (b"{", "is not an index of shards"),
        (b"[1]", "is not an index of shards"),
        (b'{"weight_map": "all"}', "is not an index of shards"),
    ],
)
def test_an_index_that_cannot_be_right_is_named(index, message):
    listed = files("config.json", "model.safetensors.index.json", "model-1.safetensors")
    with pytest.raises(LocalseekError, match=message):
        names_of(listed, index=index)


def test_shards_without_an_index_and_single_files_are_found():
    assert names_of(files("config.json", "model.safetensors", "model-x.safetensors"))[1] == [
        "model.safetensors"
    ]
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert names_of(files("config.json", *shards, "adapter.safetensors"))[1] == shards


@pytest.mark.parametrize(
    "name",
    ["../x.gguf", "/x.gguf", "a/../x.gguf", "C:x.gguf", "a\\x.gguf", "", "a//x.gguf", "x\n.gguf",
     ".localseek-pull.json", "a/.localseek-pull/x.gguf", "x\u202egguf"],
)  # fmt: skip
def test_names_that_would_be_written_elsewhere_are_refused(name):
    with pytest.raises(LocalseekError, match="is not safe to write"):
        check_name(name)
    check_name("Q8_0/模型-🐳-00001-of-00002.gguf")


def test_weights_without_a_config_are_no_checkpoint():
    assert names_of(files("model.safetensors", "tokenizer.json")) == ([], [])
