import os
import signal
import threading

import pytest

from localseek.engine.process.measurement import Task
from localseek.errors import EngineError
from localseek.events import AnswerDelta, Finished, ReasoningDelta

from .conftest import ask

QUESTIONS = ("Calculate 981 * 87", "Calculate 347 * 28")


def test_what_llama_bench_measures_is_measured_in_as_many_tokens(engine):
    for kind in ("prompt", "decode"):
        found = engine.measure(Task(kind, "off", 40))
        assert found.tokens == 40 and found.seconds > 0
    assert engine.measure(Task("prompt", 1, 40)).tokens == 40  # drafts on


def test_answers_are_the_same_however_they_are_drafted(engine, clear):
    assert [clear(question) for question in QUESTIONS]
    plain = engine.measure(Task("text", "off", 60, 0, QUESTIONS))
    assert plain.drafted == () and plain.steps == plain.tokens == 60
    for way in (1, 3, "auto"):
        found = engine.measure(Task("text", way, 60, 0, QUESTIONS))
        assert (found.digest, found.tokens) == (plain.digest, plain.tokens)
    found = engine.measure(Task("text", 2, 60, 0, QUESTIONS))
    assert found.drafted[0] >= found.accepted[0] >= found.accepted[1] > 0
    assert found.steps + sum(found.accepted) in (60, 61)  # a last step may give too much
    other = engine.measure(Task("text", "off", 60, 0, QUESTIONS[1:]))
    assert other.digest != plain.digest


def test_an_answer_that_ends_early_is_followed_by_the_next(engine):
    found = engine.measure(Task("text", "off", 100, 0, ("2 + 2", *QUESTIONS)))
    assert len(found.generated) == 2 and found.tokens == sum(found.generated) - 2 == 100


def test_a_question_is_found_whose_prompt_has_the_length(engine):
    for tokens in (40, 300):
        text = engine.measure(Task("question", "off", tokens, 7)).text
        finished = list(engine.generate(ask(text, max_tokens=1)))[-1]
        assert tokens - 25 < finished.stats.prompt_tokens <= tokens


def test_requests_after_it_draft_as_they_were_told_to(engine):
    drafted = []
    for way in ("off", 3):
        engine.measure(Task("drafting", way))
        finished = list(engine.generate(ask("981 * 87", max_tokens=30)))[-1]
        drafted.append(finished.stats.draft)
    assert drafted[0] is None and len(drafted[1].accepted_by_position) == 3


def test_an_answer_on_the_pipe_is_that_of_the_decoder(engine, clear):
    found = engine.measure(Task("text", "off", 1000, 0, QUESTIONS[:1]))
    events = list(engine.generate(ask(clear(QUESTIONS[0]))))
    assert isinstance(events[-1], Finished)
    assert any(isinstance(event, AnswerDelta | ReasoningDelta) for event in events)
    assert events[-1].stats.generated_tokens == sum(found.generated)


def test_the_memory_of_the_engine_has_a_peak_over_what_it_takes_now(engine):
    memory = engine.measure(Task("memory")).memory
    assert memory["peak"] >= memory["own"] + memory["file"] - 2**20 > 2**24


def test_a_cancelled_measurement_says_so_and_leaves_the_engine_ready(engine):
    later = threading.Timer(0.2, engine.cancel)
    later.start()
    assert engine.measure(Task("decode", "off", 10_000)).cancelled
    later.join()
    assert engine.measure(Task("decode", "off", 10)).tokens == 10


def test_a_measurement_ends_with_the_engine(engine):
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(EngineError, match="died of signal 9"):
        engine.measure(Task("decode", "off", 10))
