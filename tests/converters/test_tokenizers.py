from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints_dense as dense
import pytest
import small_tokenizers
from texts import texts
from tokenizers import Tokenizer

from converters import ConvertOptions, convert
from converters.errors import ConvertError
from converters.layout import Described
from converters.metadata.tokenizer import tokenizer_metadata

HERE = Path(__file__).parent
SMALL = dense.Dims(32, 32, 1, 2, 2)
KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "deepseek-coder": dense.coder_tokenizer,
    "deepseek-llm": small_tokenizers.v2_tokenizer,
    "deepseek-r1-qwen": dense.qwen_tokenizer,
    "deepseek-v3": small_tokenizers.v3_tokenizer,
    "llama-bpe": dense.llama3_tokenizer,
}


def special_tokens(tokenizer: dict[str, Any]) -> dict[str, int]:
    return {entry["content"]: entry["id"] for entry in tokenizer["added_tokens"]}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Convert a model of every kind and let llama.cpp tokenize, in one child process."""
    work = tmp_path_factory.mktemp("tokenizers")
    asked: dict[str, list[str]] = {}
    for name, make in KINDS.items():
        tokenizer = make()
        folder = dense.make_llama(work / name, SMALL, kind="coder" if "coder" in name else "llm")
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        convert(folder, work / f"{name}.gguf", ConvertOptions(type="F16", threads=1))
        asked[str(work / f"{name}.gguf")] = texts([*special_tokens(tokenizer)])
    run = subprocess.run(
        [sys.executable, str(HERE / "llama_tokens.py")],
        input=json.dumps(asked), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    return {Path(path).stem: answer for path, answer in json.loads(run.stdout).items()}


@pytest.mark.parametrize("name", KINDS)
def test_llama_cpp_gives_the_ids_of_hugging_face(runtime: dict[str, Any], name: str) -> None:
    tokenizer = KINDS[name]()
    original = Tokenizer.from_str(json.dumps(tokenizer))
    samples = texts([*special_tokens(tokenizer)])
    assert len(samples) == 200
    for text, found in zip(samples, runtime[name]["ids"], strict=True):
        assert found == original.encode(text, add_special_tokens=False).ids, text


def test_a_word_that_no_merge_leads_to_is_one_token_where_merges_are_skipped() -> None:
    tokenizer = dense.llama3_tokenizer()
    ids = Tokenizer.from_str(json.dumps(tokenizer)).encode(" hello", add_special_tokens=False).ids
    assert ids == [tokenizer["model"]["vocab"]["Ġhello"]]


def test_coders_own_end_token_ends_generation(runtime: dict[str, Any]) -> None:
    ids = special_tokens(dense.coder_tokenizer())
    assert set(runtime["deepseek-coder"]["ends"]) == {ids["<|EOT|>"], ids[small_tokenizers.EOS]}


def described(
    folder: Path, tokenizer: dict[str, Any], config: dict[str, Any] | None = None, **settings: Any
) -> Described:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    values = {"bos_token": small_tokenizers.BOS, "eos_token": small_tokenizers.EOS} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(values))
    return tokenizer_metadata(folder, 320, config or {})


@pytest.mark.parametrize(
    ("make", "shortcut", "cls", "name"),
    [
        (dense.coder_tokenizer, False, "LlamaTokenizerFast", "deepseek-coder"),
        (small_tokenizers.v2_tokenizer, False, "LlamaTokenizerFast", "deepseek-llm"),
        (small_tokenizers.v3_tokenizer, False, "PreTrainedTokenizerFast", "deepseek-v3"),
        (dense.qwen_tokenizer, False, "LlamaTokenizerFast", "deepseek-r1-qwen"),
        (dense.qwen_tokenizer, False, "Qwen2TokenizerFast", "qwen2"),
        (dense.llama3_tokenizer, True, "LlamaTokenizerFast", "llama-bpe"),
        (dense.llama3_tokenizer, False, "LlamaTokenizerFast", "smaug-bpe"),
    ],
)
def test_the_splitting_has_the_name_that_llama_cpp_gives_it(
    tmp_path: Path, make: Callable[[], dict[str, Any]], shortcut: bool, cls: str, name: str
) -> None:
    tokenizer = make()
    tokenizer["model"]["ignore_merges"] = shortcut
    found = described(tmp_path, tokenizer, tokenizer_class=cls)
    assert found.values["tokenizer.ggml.pre"] == name


# What transformers 4.48.3 does with these settings and files, asked once by hand.
@pytest.mark.parametrize(
    ("cls", "template", "setting", "adds"),
    [
        ("LlamaTokenizerFast", False, None, True),
        ("LlamaTokenizerFast", False, True, True),
        ("LlamaTokenizerFast", True, False, False),
        ("LlamaTokenizer", False, None, True),
        ("PreTrainedTokenizerFast", False, True, False),
        ("PreTrainedTokenizerFast", True, None, True),
        ("PreTrainedTokenizerFast", True, False, True),
        ("Qwen2Tokenizer", False, True, False),
        ("Qwen2TokenizerFast", False, None, False),
        ("Qwen2TokenizerFast", True, None, True),
    ],
)
def test_bos_is_added_as_transformers_does(
    tmp_path: Path, cls: str, template: bool, setting: bool | None, adds: bool
) -> None:
    tokenizer = dense.llama3_tokenizer()
    if not template:
        tokenizer["post_processor"] = small_tokenizers.v2_tokenizer()["post_processor"]
    found = described(tmp_path, tokenizer, tokenizer_class=cls, add_bos_token=setting)
    assert found.values["tokenizer.ggml.add_bos_token"] is adds


def test_bos_is_the_tokenizers_even_where_config_json_names_another(tmp_path: Path) -> None:
    tokenizer = dense.qwen_tokenizer()
    ids = special_tokens(tokenizer)
    found = described(tmp_path, tokenizer, {"bos_token_id": ids[small_tokenizers.EOS]}).values
    assert found["tokenizer.ggml.bos_token_id"] == ids[small_tokenizers.BOS]


@pytest.mark.parametrize(("ends", "written"), [(264, None), (267, 267), ([264, 267], 267)])
def test_an_end_that_only_config_json_names_is_kept(
    tmp_path: Path, ends: int | list[int], written: int | None
) -> None:
    tokenizer = dense.coder_tokenizer()
    assert special_tokens(tokenizer)[small_tokenizers.EOS] == 264
    found = described(tmp_path, tokenizer, {"eos_token_id": ends}).values
    assert found["tokenizer.ggml.eos_token_id"] == 264
    assert found.get("tokenizer.ggml.eot_token_id") == written


def test_tokens_that_look_special_are_control_tokens(tmp_path: Path) -> None:
    found = described(tmp_path, dense.qwen_tokenizer()).values
    tokens, kinds = (found[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type"))
    assert isinstance(tokens, tuple) and isinstance(kinds, tuple)
    types = dict(zip(tokens, kinds, strict=True))
    assert types["<｜User｜>"] == types[small_tokenizers.EOS] == 3
    assert types["<think>"] == 4
    assert types["a"] == 1
    assert types["[PAD319]"] == 5


def test_composing_accents_is_warned_of(tmp_path: Path) -> None:
    tokenizer = dense.qwen_tokenizer()
    assert not described(tmp_path, tokenizer).warnings
    tokenizer["normalizer"] = {"type": "NFC"}
    assert "NFC" in described(tmp_path, tokenizer).warnings[0]


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("normalizer", {"type": "Lowercase"}, "no normalizer Lowercase"),
        ("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFKC"}]}, "normalizer NFKC"),
        ("pre_tokenizer", None, "no name for the pre-tokenizer []"),
        ("pre_tokenizer", {"type": "Metaspace"}, 'no name for the pre-tokenizer ["Metaspace?"]'),
        ("model", {"type": "Unigram"}, "no byte-level BPE"),
        ("model", {"type": "BPE", "byte_fallback": True}, "no byte-level BPE"),
    ],
)
def test_a_tokenizer_that_llama_cpp_cannot_follow_is_refused(
    tmp_path: Path, part: str, value: Any, message: str
) -> None:
    tokenizer = small_tokenizers.v3_tokenizer() | {part: value}
    with pytest.raises(ConvertError) as caught:
        described(tmp_path, tokenizer)
    assert message in str(caught.value)


def test_skipping_merges_is_refused_where_llama_cpp_never_does(tmp_path: Path) -> None:
    tokenizer = dense.coder_tokenizer()
    tokenizer["model"]["ignore_merges"] = True
    with pytest.raises(ConvertError, match="with ignore_merges"):
        described(tmp_path, tokenizer)
