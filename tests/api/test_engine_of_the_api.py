import gc
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from localseek import (
    AnswerDelta,
    Engine,
    EngineError,
    Failed,
    Finished,
    LoadOptions,
    ModelError,
    Notice,
    ReasoningDelta,
    UsageError,
)
from localseek.engine.process import client

from .conftest import GONE_S, gone

CLOSED = "The engine was closed."


def test_an_answer_is_a_stream_of_typed_events_and_a_reply(engine):
    with engine.stream("What is 348 + 257?") as answer:
        assert answer.so_far.finish_reason == ""
        events = list(answer)
    assert "".join(e.text for e in events if isinstance(e, ReasoningDelta)) == "Let me think."
    assert "".join(e.text for e in events if isinstance(e, AnswerDelta)) == "The answer is 605."
    assert isinstance(events[-1], Finished) and list(answer) == []
    reply = answer.reply
    assert (reply.reasoning, reply.answer, reply.error) == (
        "Let me think.", "The answer is 605.", ""
    )  # fmt: skip
    assert reply.finish_reason == "stop" and reply.stats.generated_tokens == 19
    assert engine.reply("What is 348 + 257?") == reply


def test_an_answer_without_the_form_that_was_asked_for_says_so(engine):
    schema = {"type": "array", "uniqueItems": True}
    assert engine.reply("say [1,2]", schema=schema).error == ""
    reply = engine.reply("say [1,1]", schema=schema)
    assert (reply.answer, reply.finish_reason) == ("[1,1]", "stop")
    assert "does not fit the schema" in reply.error
    refused = engine.reply("refuse")
    assert (refused.finish_reason, refused.error) == ("failed", "The grammar is wrong.")
    assert refused.wrong_use


def test_a_notice_is_an_event_of_its_own(engine):
    events = list(engine.stream("notice"))
    assert [e.text for e in events if isinstance(e, Notice)] == ["The context is nearly full."]


def test_cancelling_one_answer_leaves_the_others_alone(engine):
    first, second = engine.stream("forever"), engine.stream("forever")
    for answer in (first, second):
        while not answer.so_far.answer:
            next(answer)
    thread = threading.Thread(target=first.cancel)
    thread.start()
    thread.join()
    assert first.reply.finish_reason == "cancelled" and first.reply.answer.startswith("line 0\n")
    before = len(second.so_far.answer)
    while len(second.so_far.answer) < before + 1000:
        next(second)
    second.close()
    assert second.reply.finish_reason == "cancelled"
    first.cancel()  # long over
    assert engine.reply("say fine").answer == "fine"


def test_an_answer_that_waits_is_cancelled_at_once(single):
    running, waits = single.stream("forever"), single.stream("say late")
    next(running)
    assert waits.waiting and not running.waiting and single.waiting == 1
    waits.cancel()
    assert waits.reply.finish_reason == "cancelled" and waits.reply.answer == ""
    assert single.waiting == 0 and not waits.waiting
    while not running.so_far.answer:  # it goes on
        next(running)
    running.close()


def test_an_answer_that_is_left_early_or_dropped_frees_its_place(single):
    for _ in range(3):
        for event in single.stream("forever"):
            if isinstance(event, AnswerDelta):
                break
    with single.stream("forever") as answer:
        next(answer)
    del answer
    unread, waits = single.stream("forever"), single.stream("forever")
    del waits, unread
    assert single.reply("say fine").answer == "fine"


def test_threads_share_an_engine_and_each_hears_its_own(engine):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: engine.reply(f"say {n}").answer, range(60)))
    assert found == [str(n) for n in range(60)]


def test_cancel_ends_all_that_runs_and_waits_and_the_engine_stays(engine):
    answers = [engine.stream("forever") for _ in range(4)]
    next(answers[0])
    engine.cancel()
    assert [answer.reply.finish_reason for answer in answers] == ["cancelled"] * 4
    assert engine.reply("say fine").answer == "fine"


def test_an_engine_that_dies_fails_what_it_answered_and_the_next_request_starts_it_again(engine):
    beside = engine.stream("forever")
    while not beside.so_far.answer:
        next(beside)
    pid, waits = engine.pid, [engine.stream("die"), engine.stream("say late")]
    last = list(waits[0])[-1]
    assert isinstance(last, Failed) and last.fatal and "signal 9" in last.message
    assert waits[0].reply.answer == "half an ans" and waits[0].reply.finish_reason == "failed"
    assert "signal 9" in beside.reply.error
    assert waits[1].reply.answer == "late"
    assert gone(pid) and engine.pid != pid
    engine.kill()
    assert engine.reply("say again").answer == "again"


def test_an_engine_that_cannot_be_started_again_says_why(make, monkeypatch, tmp_path):
    monkeypatch.setenv("FAKE_ENGINE", f"load-once {tmp_path / 'loaded'}")
    engine = make()
    assert "signal 9" in engine.reply("die").error
    assert not engine.alive
    reply = engine.reply("say x")
    assert (reply.finish_reason, reply.error) == ("failed", "No memory. Buy.")
    with pytest.raises(EngineError, match="No memory"):
        engine.load()
    (tmp_path / "loaded").unlink()
    assert engine.reply("say back").answer == "back"


@pytest.mark.parametrize(
    ("behaviour", "kind", "words"),
    [
        ("load-fails", EngineError, "No memory. Buy."),
        ("load-refuses", UsageError, "There is no device 'X'."),
        ("load-dies", EngineError, "signal 6"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_one_error_and_nothing_is_left(
    make, monkeypatch, behaviour, kind, words
):
    monkeypatch.setenv("FAKE_ENGINE", behaviour)
    with pytest.raises(kind) as caught:
        make()
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_name_that_means_no_model_is_refused_before_anything_starts(tiny):
    children = psutil.Process().children()
    with pytest.raises(ModelError, match=r"There is no model 'tinny'.*Did you mean tiny"):
        Engine("tinny")
    assert psutil.Process().children() == children


def test_a_program_that_speaks_nonsense_is_no_engine(make, monkeypatch):
    monkeypatch.setattr(client, "program", lambda: [sys.executable, "-c", "print('[1]')"])
    with pytest.raises(EngineError, match="nonsense"):
        make()


def test_progress_is_told_and_what_belongs_to_no_answer_is_said(tiny, home):
    told: list[float] = []
    with Engine(tiny, progress=told.append) as engine:
        assert engine.info.name == "fake" and engine.load() == engine.info
    assert told == [0.5]
    with Engine.of(LoadOptions("tiny")) as engine:
        with pytest.raises(EngineError, match="No model is loaded"):
            engine.info  # noqa: B018
        assert engine.reply("say hi").answer == "hi", "the first request loads it"
        assert engine.info.name == "fake"


def test_closing_ends_what_is_in_flight_and_may_be_done_again(engine):
    answers = [engine.stream("forever") for _ in range(3)]
    next(answers[0])
    pid, said = engine.pid, []
    reader = threading.Thread(target=lambda: said.extend(answers[0]))
    reader.start()
    engine.close()
    reader.join()
    assert isinstance(said[-1], Failed) and said[-1].message == CLOSED
    assert [CLOSED in answer.reply.error for answer in answers] == [True] * 3
    engine.close()
    assert gone(pid) and not engine.alive
    for attempt in (lambda: engine.reply("x"), engine.load, lambda: engine.stream("x")):
        with pytest.raises(EngineError, match=CLOSED):
            attempt()
    with pytest.raises(EngineError, match=CLOSED):
        list(engine.batch(["x"]))


def test_an_engine_that_nobody_holds_leaves_no_process_and_no_thread(tiny):
    engine = Engine(tiny)
    pid, answer = engine.pid, engine.stream("forever")
    del engine
    gc.collect()
    next(answer)  # an answer holds its engine
    assert psutil.pid_exists(pid)
    del answer
    gc.collect()
    assert gone(pid)
    for thread in threading.enumerate():
        if thread.name == "localseek":
            thread.join(GONE_S)
            assert not thread.is_alive()


SCRIPT = """
import os, signal, sys, threading
from localseek import Engine
from localseek.engine.process import client
client.program = lambda: [sys.executable, {fake!r}]
engine = Engine("tiny")
threading.Thread(target=lambda: list(engine.stream("forever")), daemon=True).start()
answer = engine.stream("forever")
print(engine.pid, flush=True)
{end}
"""


@pytest.mark.parametrize(
    "end", ["", "sys.exit(3)", "raise ValueError", "os.kill(os.getpid(), signal.SIGKILL)"]
)
def test_a_program_that_ends_without_closing_leaves_no_process(tiny, environment, end):
    fake = str(Path(__file__).parents[1] / "fakes" / "engine.py")
    script = SCRIPT.format(fake=fake, end=end)
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert gone(int(done.stdout))
    assert ("ValueError" in done.stderr) == (end == "raise ValueError"), done.stderr


def test_a_forked_process_is_told_that_it_needs_an_engine_of_its_own(engine):
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        said = ""
        try:
            engine.reply("say x")
        except EngineError as error:
            said = str(error)
        engine.close()  # not its own to close
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert "forked after it was made. Make one there." in pipe.read()
    os.waitpid(pid, 0)
    assert engine.reply("say fine").answer == "fine"


def test_an_answer_that_was_open_at_a_fork_is_an_error_in_the_child_and_goes_on_here(engine):
    answer, batch = engine.stream("forever"), engine.batch(["forever"])
    next(answer)
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        signal.alarm(int(GONE_S))  # what hangs ends
        said = []
        for ask in (lambda: list(answer), lambda: answer.reply, lambda: next(batch)):
            try:
                ask()
            except EngineError as error:
                said.append(str(error))
        answer.close()
        batch.close()
        engine.cancel()
        os.write(write, "\n".join(said).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read().count("forked after it was made. Make one there.") == 3
    os.waitpid(pid, 0)
    assert any(isinstance(event, AnswerDelta) for event in answer)
    answer.close()
    assert engine.reply("say fine").answer == "fine"


@pytest.mark.parametrize("error", [SystemExit("enough"), KeyboardInterrupt(), ValueError("mine")])
def test_what_progress_raises_ends_the_load_and_is_the_callers(tiny, error):
    def tell(_done: float) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        Engine(tiny, progress=tell)
    assert caught.value is error


def test_progress_that_is_no_function_is_refused(tiny):
    with pytest.raises(UsageError, match="progress is 5, not a function"):
        Engine(tiny, progress=5)


def test_a_closed_engine_is_not_entered(single):
    single.close()
    with pytest.raises(EngineError, match="was closed"), single:
        pass


def test_ctrl_c_in_an_answer_leaves_the_engine_usable(single):
    answer = single.stream("forever")
    next(answer)
    timer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt), answer:
        for _ in answer:
            pass
    timer.join()
    assert answer.reply.finish_reason == "cancelled"
    assert single.reply("say fine").answer == "fine"
