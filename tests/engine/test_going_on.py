"""A reply that was cut off goes on where it was, as the model would have gone on itself."""

from dataclasses import replace

import pytest

from localseek import Engine
from localseek.errors import EngineError
from localseek.events import Failed
from localseek.nano import prompts
from localseek.options import LoadOptions, Sampling
from localseek.store.sequences import SequenceStore
from localseek.text.reasoning import Splitter
from localseek.text.template import BLOCK_END, Prompt, going_on

from .conftest import ask, text_of

QUESTION = "What is 12 + 34?"
LONG_QUESTION = "What is 348 + 257? " + "Think about it. " * 20


@pytest.mark.parametrize(
    ("prompt", "reasoning", "answer", "text", "opened"),
    [
        (Prompt("a<think>\n", True), "why", "", "a<think>\nwhy", True),
        (Prompt("a<think>\n", True), "why", "so", "a<think>\nwhy\n</think>\n\nso", False),
        (Prompt("a<think>\n", True), "", "so", "a<think>\n\n</think>\n\nso", False),
        (Prompt("a", False), "why", "", "a<think>\nwhy", True),
        (Prompt("a", False), "", "so", "aso", False),
        (Prompt("a</think>", False, closed=True), "why", "so", "a</think>so", False),
        (Prompt("Assistant:", False, space=True), "", "so", "Assistant: so", False),
    ],
)
def test_the_prompt_ends_with_what_the_model_itself_had_written(
    prompt, reasoning, answer, text, opened
):
    assert going_on(prompt, reasoning, answer, BLOCK_END) == Prompt(text, opened)


def test_white_space_within_a_text_that_goes_on_stays():
    answer = Splitter(False, begun=True)
    assert answer.feed("\n\n  more <think>") == [("answer", "\n\n  more <think>")]
    reasoning = Splitter(True, begun=True)
    assert reasoning.feed(" on\n</think>\n\nso") == [("reasoning", " on"), ("answer", "so")]


@pytest.mark.parametrize("cut", [2, 6, 12, 20, 24])
def test_a_reply_that_was_cut_off_goes_on_to_the_same_end(engine, clear, cut):
    whole = text_of(list(engine.generate(ask(clear(QUESTION)))))
    begun = text_of(list(engine.generate(ask(QUESTION, max_tokens=cut))))
    prompt = Prompt(prompts.prompt(QUESTION), opened=True)
    clear(QUESTION, begun=going_on(prompt, *begun, BLOCK_END).text)
    request = replace(ask(QUESTION), begun_reasoning=begun[0], begun_answer=begun[1])
    rest = text_of(list(engine.generate(request)))
    joined = tuple("".join((a + b).split()) for a, b in zip(begun, rest, strict=True))
    assert joined == tuple("".join(text.split()) for text in whole)
    assert begun != whole


def test_an_answer_with_a_grammar_does_not_go_on(engine):
    request = ask(QUESTION, sampling=Sampling(grammar='root ::= "a"'), begun_answer="a")
    failed = list(engine.generate(request))[-1]
    assert isinstance(failed, Failed) and failed.wrong_use and "cannot go on" in failed.message


def test_what_was_read_is_kept_when_asked_for_and_only_then(nano_gguf, monkeypatch, tmp_path):
    monkeypatch.setenv("LOCALSEEK_HOME", str(tmp_path))
    with Engine.of(LoadOptions(str(nano_gguf), threads=1, prompt_cache=True)) as engine:
        engine.load()
        assert engine.keep() == "", "nothing was read yet"
        list(engine.generate(ask(LONG_QUESTION, keep=False)))
        assert SequenceStore().list() == []
        name = engine.keep()
        assert [saved.path.name for saved in SequenceStore().list()] == [name]
        assert engine.keep() == name, "the same is not saved twice"
    SequenceStore().remove_named(["../keep.me", "no-sequence", name])
    assert SequenceStore().list() == []


def test_the_engine_says_what_it_can_reach(engine):
    assert "cut off by the kernel" in engine.info.network or "reachable" in engine.info.network


def test_an_engine_that_is_gone_cannot_keep(started):
    engine = started()
    engine.kill()
    with pytest.raises(EngineError, match="died of signal 9|is not running"):
        engine.keep()
