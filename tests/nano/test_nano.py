import json
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from localseek import Engine, nano
from localseek.bench.arithmetic import evaluate, held_out
from localseek.events import AnswerDelta
from localseek.nano import phrases, problems, prompts
from localseek.options import LoadOptions, Message, Request, Sampling
from localseek.text.template import ChatTemplate

SAMPLE = 90  # ten of each family; the whole evaluation asks 1,000


@pytest.fixture(scope="module")
def running(nano_gguf: Path, tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALSEEK_HOME", str(tmp_path_factory.mktemp("home")))
        # With the automatic depth few drafts are made, and only to see whether more would pay.
        with Engine.of(LoadOptions(str(nano_gguf), mtp=1)) as engine:
            engine.load()
            yield engine


def test_the_embedded_model_solves_held_out_problems_and_accepts_its_drafts(running):
    score = evaluate(running, held_out(SAMPLE, "suite"))
    wrong = [(p.question, r.answer, p.answer) for p, r in score.misses]
    assert score.share >= 0.93, wrong
    assert min(score.family(name) for name in score.asked) >= 0.7, wrong
    assert score.acceptance >= 0.92


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Hello", phrases.GREET_ANSWER),
        ("Who are you?", phrases.WHO_ANSWER),
        ("What is the capital of France?", phrases.OTHER_ANSWER),
        ("Write a poem about the sea.", phrases.OTHER_ANSWER),
    ],
)
def test_what_is_not_arithmetic_is_answered_with_what_it_can_do(running, question, expected):
    request = Request((Message("user", question),), Sampling(temperature=0.0), max_tokens=200)
    events = running.generate(request)
    assert "".join(e.text for e in events if isinstance(e, AnswerDelta)) == expected
    assert "localseek pull" in phrases.OTHER_ANSWER and "localseek convert" in phrases.OTHER_ANSWER


def test_the_checkpoint_has_the_released_layout_and_size():
    size = sum(file.stat().st_size for file in nano.CHECKPOINT.iterdir())
    assert size < 8_000_000
    config = json.loads((nano.CHECKPOINT / "config.json").read_text())
    assert config["architectures"] == ["DeepseekV3ForCausalLM"]
    assert config["num_nextn_predict_layers"] == 1
    assert config["quantization_config"]["weight_block_size"] == [128, 128]
    with (nano.CHECKPOINT / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    kinds = {entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
    assert kinds == {"F8_E4M3", "BF16", "F32"}
    for name, entry in header.items():
        if entry.get("dtype") == "F8_E4M3":
            scale = header[f"{name}_scale_inv"]
            assert scale["dtype"] == "F32"
            assert scale["shape"] == [-(-n // 128) for n in entry["shape"]]


def test_the_template_renders_what_the_model_was_trained_on():
    config = json.loads((nano.CHECKPOINT / "tokenizer_config.json").read_text())
    template = ChatTemplate(config["chat_template"], prompts.BOS, prompts.EOS)
    past = (("1 + 1", "1 + 1 = 2"),)
    messages = (
        Message("system", "Be brief."), Message("user", "1 + 1"),
        Message("assistant", "<think>\nhm\n</think>\n\n1 + 1 = 2"), Message("user", "2 + 2"),
    )  # fmt: skip
    rendered = template.render(messages)
    assert rendered.text == prompts.prompt("2 + 2", past, "Be brief.")
    assert rendered.opened


def test_llama_cpp_tokenizes_as_hugging_face_tokenizers_do(nano_gguf):
    from localseek.engine.llama import Model

    tokenizer = Tokenizer.from_file(str(nano.CHECKPOINT / "tokenizer.json"))
    model = Model(str(nano_gguf), load_mtp=False)
    rng = random.Random(6)
    texts = [
        prompts.prompt(p.question) + prompts.completion(p)
        for p in (problems.make(rng, f, held_out=False) for f in list(problems.MAKERS) * 8)
    ]
    texts += ["", " ", "\n\n  \n", "12345", "你好，世界！", "😀🚀 naïve café", "<think></think>"]
    texts += ["x" * 5000, "ÄÖß", "a\tb", "if x:\r\n    y()", "１２３", "٣٤", "e\u0301"]
    texts += ["<｜User｜>hi"]
    for text in texts:
        assert model.tokenize(text) == tokenizer.encode(text, add_special_tokens=False).ids, text
    model.close()
