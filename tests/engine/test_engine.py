import os
import signal
import threading
from pathlib import Path

import pytest

from localseek import Engine
from localseek.api.looking import diagnose
from localseek.engine.decoding.decoder import Decoder, Outcome
from localseek.engine.drafting.draft import Drafter
from localseek.engine.drafting.draft_policy import FixedDepth
from localseek.engine.llama import AbortFlag, Context, Model, Sampler, SamplerOptions
from localseek.engine.process.client import Child
from localseek.engine.process.deaths import death_message
from localseek.errors import EngineError
from localseek.events import AnswerDelta, Failed, Finished, PromptProgress, ReasoningDelta
from localseek.nano import prompts
from localseek.options import LoadOptions, Message, Request, Sampling

from .conftest import ask, text_of

SUM = "What is 348 + 257?"
LONG = "Calculate 999 * 99"


def finished(events) -> Finished:
    assert isinstance(events[-1], Finished), events[-1]
    return events[-1]


def test_a_sum_is_reasoned_out_and_answered(engine):
    events = list(engine.generate(ask(SUM)))
    reasoning, answer = text_of(events)
    assert "ones: 8+7=15, carry 1 → 5" in reasoning
    assert answer == "348 + 257 = 605"
    assert "think" not in reasoning + answer
    assert isinstance(events[0], PromptProgress)
    stats = finished(events).stats
    assert finished(events).reason == "stop"
    assert stats.generated_tokens > stats.reasoning_tokens > 20
    assert stats.draft is not None and stats.draft.steps > 3


def test_drafting_does_not_change_a_clear_text(nano_gguf, home, clear):
    questions = [
        SUM,
        LONG,
        "Hello",
        "Calculate 7 - 9000",
        "Tom has 12 apples and buys 7 more. How many?",
    ]
    questions = [clear(question) for question in questions]
    texts = []
    for mtp in ("auto", "off", 1, 2, 4):
        with Engine.of(LoadOptions(str(nano_gguf), mtp=mtp, threads=1)) as engine:
            assert engine.load().drafting == (mtp != "off")
            texts.append([text_of(list(engine.generate(ask(q)))) for q in questions])
    assert texts == [texts[0]] * 5


def test_sampled_text_with_a_seed_is_the_same_with_drafts_of_any_depth(nano_gguf, home):
    texts = []
    samplings = [Sampling(temperature=4.0, top_p=1.0, top_k=20, seed=seed) for seed in range(8)]
    for mtp in ("off", "auto", 1, 3):
        options = LoadOptions(str(nano_gguf), mtp=mtp, threads=1)
        with Engine.of(options) as engine:
            engine.load()
            requests = [ask(SUM, sampling=one, max_tokens=12) for one in samplings]
            texts.append([text_of(list(engine.generate(request))) for request in requests])
    assert len(set(texts[0])) > 4
    for drafted in texts[1:]:  # rounding moves the edges between tokens a little
        assert sum(a == b for a, b in zip(texts[0], drafted, strict=True)) >= len(samplings) - 1


def test_different_seeds_give_different_texts(engine):
    def text(seed):
        sampling = Sampling(temperature=20.0, top_p=1.0, seed=seed)
        return text_of(list(engine.generate(ask(SUM, sampling=sampling, max_tokens=60))))

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(5)}) > 1


def test_a_later_turn_reuses_the_cache_and_answers_as_a_fresh_engine_does(engine, nano_gguf, clear):
    first = text_of(list(engine.generate(ask(SUM))))[1]
    question = clear("Calculate 62 * 17", past=((SUM, first),))
    messages = (Message("user", SUM), Message("assistant", first), Message("user", question))
    request = Request(messages, Sampling(temperature=0.0))
    reused = list(engine.generate(request))
    assert finished(reused).stats.cached_tokens > 5
    with Engine.of(LoadOptions(str(nano_gguf), threads=1)) as fresh:
        fresh.load()
        again = list(fresh.generate(request))
    assert finished(again).stats.cached_tokens == 0
    assert text_of(reused) == text_of(again)
    # The same request once more: all of it but the last tokens is reused.
    third = list(engine.generate(request))
    assert text_of(third) == text_of(again)


def test_a_limit_on_tokens_ends_with_length(engine):
    events = list(engine.generate(ask(SUM, max_tokens=11)))
    assert finished(events).reason == "length"
    assert finished(events).stats.generated_tokens == 11


def test_a_stop_string_ends_the_text_before_it(engine):
    events = list(engine.generate(ask(SUM, stop=("= 6", "+"))))
    assert finished(events).reason == "stop"
    assert text_of(events)[1] == "348 "
    assert "tens: 4+5+1=10" in text_of(events)[0]  # the reasoning is not the answer
    assert text_of(list(engine.generate(ask(SUM))))[1] == "348 + 257 = 605"


def test_no_thinking_gives_an_answer_only(engine):
    events = list(engine.generate(ask("Hello", think=False, max_tokens=50)))
    reasoning, answer = text_of(events)
    assert reasoning == ""
    assert answer


def test_cancelling_ends_the_answer_and_the_engine_stays(engine):
    events = []
    for event in engine.generate(ask(LONG, sampling=Sampling(temperature=5.0, seed=13))):
        events.append(event)
        if isinstance(event, ReasoningDelta | AnswerDelta):
            engine.cancel()
    assert finished(events).reason == "cancelled"
    assert text_of(list(engine.generate(ask(SUM))))[1] == "348 + 257 = 605"


def test_cancelling_while_the_prompt_is_read_does_not_wait_for_the_rest_of_it(engine):
    stream = engine.generate(ask("word " * 1900))
    events = [next(stream)]
    engine.cancel()
    events += stream
    assert finished(events).reason == "cancelled"
    assert finished(events).stats.context_used < 1900
    assert text_of(list(engine.generate(ask(SUM))))[1] == "348 + 257 = 605"


def test_a_decode_that_is_given_up_leaves_the_cache_usable(nano_gguf, clear):
    abort = AbortFlag()
    model = Model(str(nano_gguf), load_mtp=True)
    target = Context(model, 512, 1, hidden=True, abort=abort)
    decoder = Decoder(model, target, Drafter(model, target, 1), FixedDepth(1))
    prompt = model.tokenize(prompts.prompt(clear(SUM)))

    def run(stop_after: int) -> list[int]:
        sampler = Sampler(model, SamplerOptions())
        outcome, found = Outcome(), []
        for step in decoder.generate(
            prompt, sampler, 400, lambda: False, lambda _done, _cached: None, outcome
        ):
            found += step
            if len(found) >= stop_after:
                abort.set()
        assert outcome.reason == ("cancelled" if stop_after < 400 else "stop")
        abort.clear()
        sampler.close()
        return found

    whole = run(400)
    for stop_after in (1, 2, 7, 30):
        part = run(stop_after)
        assert stop_after <= len(part) <= stop_after + 1 and part == whole[: len(part)]
        assert run(400) == whole
    for closing in (decoder.drafter, target, model):
        closing.close()


def test_nothing_is_imported_from_the_folder_that_the_user_stands_in(
    nano_gguf, home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "secrets.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    with Engine.of(LoadOptions(str(nano_gguf), threads=1)) as engine:
        engine.load()


@pytest.mark.parametrize("ctx", [1, 8, 300])
def test_a_small_context_is_no_fault(nano_gguf, home, ctx):
    with Engine.of(LoadOptions(str(nano_gguf), ctx=ctx, threads=1)) as engine:
        engine.load()
        events = list(engine.generate(ask("word " * 200)))
        assert isinstance(events[-1], Finished | Failed)
        assert engine.alive


def test_leaving_the_iterator_early_cancels_too(engine):
    stream = engine.generate(ask(LONG, sampling=Sampling(temperature=5.0, seed=13)))
    next(stream)
    stream.close()
    assert text_of(list(engine.generate(ask(SUM))))[1] == "348 + 257 = 605"


def test_a_prompt_longer_than_the_context_is_refused_and_the_engine_stays(engine):
    events = list(engine.generate(ask("word " * 20_000)))
    assert isinstance(events[-1], Failed)
    assert "20,0" in events[-1].message and "4,096" in events[-1].message
    assert not events[-1].fatal
    assert text_of(list(engine.generate(ask(SUM))))[1] == "348 + 257 = 605"


def test_a_full_context_ends_with_length(nano_gguf, home):
    with Engine.of(LoadOptions(str(nano_gguf), ctx=256, threads=1)) as engine:
        assert engine.load().context_size == 256
        events = list(engine.generate(ask("5 " * 119)))  # leaves room for a few tokens only
        stats = finished(events).stats
        assert stats.prompt_tokens > 240
        assert finished(events).reason == "length"
        assert stats.prompt_tokens + stats.generated_tokens == 256
        assert text_of(list(engine.generate(ask(SUM))))[1] == "348 + 257 = 605"


@pytest.mark.parametrize(
    "question", ["", "😀" * 300, "你好，世界", "\x00\x1b[31m", "a" * 3000, "\ud800"]
)
def test_odd_prompts_do_no_harm(engine, question):
    events = list(engine.generate(ask(question, max_tokens=40)))
    assert isinstance(events[-1], Finished | Failed)
    assert engine.alive


def test_a_killed_child_ends_the_stream_with_one_clear_failure(engine):
    stream = engine.generate(ask(LONG, sampling=Sampling(temperature=9.0, seed=1)))
    next(stream)
    os.kill(engine.pid, signal.SIGKILL)
    events = list(stream)
    assert isinstance(events[-1], Failed)
    assert events[-1].fatal
    assert "signal 9" in events[-1].message
    assert "\n" not in events[-1].message + events[-1].hint
    assert any("llama" in line for line in events[-1].log)
    assert text_of(list(engine.generate(ask(SUM))))[1] == "348 + 257 = 605", "it is started again"


def test_the_child_ends_when_its_client_is_gone(nano_gguf, home):
    child = Child(LoadOptions(str(nano_gguf), threads=1))
    child.load()
    child._process.stdin.close()
    assert child._process.wait(60) == 0
    child.close()


def test_cancel_from_another_thread_is_safe_when_nothing_runs(engine):
    thread = threading.Thread(target=engine.cancel)
    thread.start()
    thread.join()
    assert text_of(list(engine.generate(ask(SUM))))[1] == "348 + 257 = 605"


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "truncated", "folder"])
def test_a_file_that_is_no_model_is_refused_in_one_line(nano_gguf, home, tmp_path: Path, damage):
    path = tmp_path / "model.gguf"
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("hello")
    elif damage == "truncated":
        path.write_bytes(nano_gguf.read_bytes()[:-1000])
    elif damage == "folder":
        path.mkdir()
    with Child(LoadOptions(str(path))) as child:
        with pytest.raises(EngineError) as caught:
            child.load()
        assert child.alive
    assert "\n" not in str(caught.value)
    assert "model.gguf" in str(caught.value)


def test_the_engine_says_what_it_was_built_with(home):
    facts = diagnose()
    assert facts["mtp"] == "yes"
    assert facts["rpc"] == "yes"
    assert "CPU" in facts["devices"]


def test_the_last_words_of_a_dead_engine_are_told_when_they_say_why():
    lines = ["load: ok", "/x/ggml.c:10: GGML_ASSERT(a == b) failed", "backtrace follows"]
    message, hint = death_message(-6, Path("engine.log"), lines)
    assert message == f"The engine died of signal 6. Its last words: {lines[1]}"
    assert hint == "Its log is engine.log."
    assert death_message(1, Path("x"), ["load: ok"])[0] == "The engine exited with status 1."
