"""Where a vocabulary is otherwise than llama.cpp sees it: role tokens, markup, further ends."""

import json
from pathlib import Path

import checkpoints_dense as dense
import pytest
from tokenizers import Tokenizer

from converters import ConvertOptions, convert
from localseek import Engine
from localseek.engine.llama import Model
from localseek.engine.loading.vocabulary import read_vocabulary
from localseek.events import Finished
from localseek.gguf.info import read_info
from localseek.options import LoadOptions, Message, Request, Sampling

from .conftest import ask, text_of

SUM = "Calculate 348 + 257"


def forced(text, **fields):
    """Make the model write a token at the beginning of its answer, whatever it wants."""
    sampling = Sampling(temperature=0.0, logit_bias=((text, 1000.0),))
    return ask(SUM, sampling=sampling, max_tokens=150, **fields)


@pytest.mark.parametrize("token", ["<｜User｜>", "<｜Assistant｜>"])
def test_a_reply_ends_where_another_turn_begins(engine, token):
    events = list(engine.generate(forced(token)))
    reasoning, answer = text_of(events)
    assert reasoning and answer == ""
    assert isinstance(events[-1], Finished) and events[-1].reason == "stop"


def test_a_stop_text_may_be_a_special_token(engine):
    pad = "<｜▁pad▁｜>"
    assert list(engine.generate(forced(pad)))[-1].reason == "length"
    stopped = list(engine.generate(forced(pad, stop=("nothing", pad))))
    assert stopped[-1].reason == "stop"
    assert list(engine.generate(forced(pad)))[-1].reason == "length", "of that request only"


def test_several_at_once_end_at_their_own_stops(nano_gguf, home):
    pad = "<｜▁pad▁｜>"
    with Engine.of(LoadOptions(str(nano_gguf), threads=1, ctx=4096, parallel=3)) as engine:
        engine.load()
        requests = [forced(pad), forced(pad, stop=(pad,)), forced("<｜User｜>")]
        answers = [engine.generate(one) for one in requests]
        reasons = [answer.reply.finish_reason for answer in answers]
    assert reasons == ["length", "stop", "stop"]


@pytest.fixture(scope="module")
def distill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A distillation whose vocabulary has `</s>` as an ordinary token, as R1-Distill-Qwen's."""
    folder = dense.make_qwen2(tmp_path_factory.mktemp("distill") / "qwen")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    unused = max(vocab, key=vocab.get)
    vocab["</s>"] = vocab.pop(unused)
    tokenizer["model"]["merges"] = [
        pair for pair in tokenizer["model"]["merges"] if pair.replace(" ", "") != unused
    ]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    convert(folder, folder / "out.gguf", ConvertOptions(type="F16"))
    return folder


TEXTS = [
    "<s>old price</s> new", "</s>", "a</s>\n\n</s>b", "</s><｜User｜></s>", "x<｜User｜>y</s> z",
    "no markup <｜User｜> at all", "</", "<think>\n</s>\n</think>", "数</s>字",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_markup_that_llama_cpp_takes_for_an_end_is_text_as_for_hugging_face(distill, text):
    model = Model(str(distill / "out.gguf"), False)
    try:
        model.vocabulary = read_vocabulary(model, read_info(distill / "out.gguf"))
        (plain,) = model.vocabulary.plain
        reference = Tokenizer.from_file(str(distill / "tokenizer.json"))
        wanted = reference.encode(text, add_special_tokens=False).ids
        assert model.tokenize(text) == wanted
        assert model.piece(plain) == b"</s>"
        assert plain not in model.ends | model.stops
    finally:
        model.close()


def test_all_ends_of_both_configurations_end_an_answer(tmp_path):
    folder = dense.make_qwen2(tmp_path / "qwen")
    config = json.loads((folder / "config.json").read_text())
    eos = config["eos_token_id"]
    config["eos_token_id"] = [eos, 5, 10**9]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 5, eos, "x"]}))
    convert(folder, folder / "out.gguf", ConvertOptions(type="F16"))
    info = read_info(folder / "out.gguf")
    assert info.get("tokenizer.ggml.eot_token_id") == 5
    model = Model(str(info.path), False)
    try:
        model.vocabulary = read_vocabulary(model, info)
        assert {eos, 5, 7} <= model.stops
    finally:
        model.close()


def test_an_unknown_reasoning_effort_is_wrong_use(engine):
    request = Request((Message("user", SUM),), Sampling(temperature=0.0), effort="max")
    (failed,) = list(engine.generate(request))
    assert failed.wrong_use and "knows no reasoning effort" in failed.message
