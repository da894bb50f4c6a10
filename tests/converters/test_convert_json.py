from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from gguf import GGUFReader

from converters import ConvertError, convert


def refusal(folder: Path) -> str:
    with pytest.raises(ConvertError) as caught:
        convert(folder, folder.parent / "out.gguf")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(values | changes))


def template(**single: Any) -> dict[str, Any]:
    return {"type": "TemplateProcessing"} | single


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pre_tokenizer": {"pretokenizers": ["x"]}}, "pretokenizers is not a list of objects"),
        ({"pre_tokenizer": {"pretokenizers": 5}}, "pretokenizers is not a list of objects"),
        (
            {"pre_tokenizer": {"type": "Split", "behavior": "Isolated", "pattern": "x"}},
            'no name for the pre-tokenizer ["x"]',
        ),
        ({"added_tokens": ["x"]}, "added_tokens is not a list of objects"),
        ({"added_tokens": 5}, "added_tokens is not a list of objects"),
        ({"post_processor": ["x"]}, "post_processor is not an object"),
        ({"post_processor": {"processors": ["x"]}}, "processors is not a list of objects"),
        ({"post_processor": template(single="x")}, "single is not a list of objects"),
    ],
)
def test_a_tokenizer_json_of_the_wrong_types_is_told_in_one_line(
    tiny: Path, changes: dict[str, Any], message: str
) -> None:
    edit(tiny / "tokenizer.json", **changes)
    settings = {"tokenizer_class": "Other", "add_bos_token": None, "add_eos_token": None}
    edit(tiny / "tokenizer_config.json", **settings)
    assert message in refusal(tiny)


def test_a_special_token_of_the_wrong_type_adds_nothing(tiny: Path, tmp_path: Path) -> None:
    edit(tiny / "tokenizer.json", post_processor=template(single=[{"SpecialToken": "x"}]))
    edit(tiny / "tokenizer_config.json", tokenizer_class="Other", add_bos_token=None)
    convert(tiny, tmp_path / "out.gguf")
    field = GGUFReader(tmp_path / "out.gguf").fields["tokenizer.ggml.add_bos_token"]
    assert field.contents() is False


@pytest.mark.parametrize("merges", [5, [[1, 2]], [["a"]], ["a b c"]])
def test_merges_of_the_wrong_types_are_told_in_one_line(tiny: Path, merges: Any) -> None:
    model = checkpoints.v3_tokenizer()["model"] | {"merges": merges}
    edit(tiny / "tokenizer.json", model=model)
    assert "merge" in refusal(tiny)


@pytest.mark.parametrize("chat_template", [["a"], 5, {"default": "x"}])
def test_a_chat_template_of_the_wrong_type_is_told_in_one_line(
    tiny: Path, chat_template: Any
) -> None:
    edit(tiny / "tokenizer_config.json", chat_template=chat_template)
    assert "chat_template is not a list of objects" in refusal(tiny)


@pytest.mark.parametrize(
    ("text", "token", "message"),
    [
        ("<think>", 300, "the tokens 268 and 300 have the same text '<think>'"),
        ("[PAD301]", 300, "the tokens 300 and 301 have the same text '[PAD301]'"),
        ("<think>\0x", 300, "the tokens 268 and 300 have the same text '<think>'"),
    ],
)
def test_a_text_that_two_tokens_share_is_named(
    tiny: Path, text: str, token: int, message: str
) -> None:
    added = checkpoints.v3_tokenizer()["added_tokens"]
    edit(tiny / "tokenizer.json", added_tokens=[*added, {"id": token, "content": text}])
    assert message in refusal(tiny)


@pytest.mark.parametrize("name", ["top_k", "temperature"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, 10**400, True, "x", [1]])
def test_a_sampling_value_that_is_not_a_number_is_named_and_left_out(
    tiny: Path, tmp_path: Path, name: str, value: Any
) -> None:
    edit(tiny / "generation_config.json", **{name: value})
    result = convert(tiny, tmp_path / "out.gguf")
    assert any(f"generation_config.json: {name} is " in one for one in result.warnings)
    key = {"temperature": "temp"}.get(name, name)
    assert f"general.sampling.{key}" not in GGUFReader(tmp_path / "out.gguf").fields


def test_a_top_k_of_minus_one_turns_it_off(tiny: Path, tmp_path: Path) -> None:
    edit(tiny / "generation_config.json", top_k=-1)
    convert(tiny, tmp_path / "out.gguf")
    field = GGUFReader(tmp_path / "out.gguf").fields["general.sampling.top_k"]
    assert field.contents() == 0
