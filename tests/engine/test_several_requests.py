import os
import signal
from dataclasses import replace
from pathlib import Path

from localseek import Engine
from localseek.events import Failed
from localseek.nano import prompts
from localseek.options import LoadOptions, Message

from .conftest import ask, text_of

QUESTIONS = ("348 + 257", "Calculate 7 - 9000", "Hello", "12 * 7", "62 * 17")


def test_several_requests_get_each_their_own_events(nano_gguf: Path, home: Path, clear):
    questions = [clear(question) for question in QUESTIONS]
    with Engine.of(LoadOptions(str(nano_gguf), threads=1)) as engine:
        assert engine.load().parallel == 1
        wanted = [text_of(list(engine.generate(ask(q)))) for q in questions]
        answers = [engine.generate(ask(q)) for q in questions]  # one after another, but all come
        assert [text_of(list(answer)) for answer in answers] == wanted
    with Engine.of(LoadOptions(str(nano_gguf), threads=1, parallel=3)) as engine:
        assert engine.load().parallel == 3
        answers = [engine.generate(ask(q)) for q in questions]
        too_long = engine.generate(ask("word " * 20_000)).reply
        assert [text_of(list(answer)) for answer in answers] == wanted
        assert too_long.finish_reason == "failed" and "20,0" in too_long.error
        one_alone = list(engine.generate(ask(QUESTIONS[0])))
        assert text_of(one_alone) == wanted[0]


def test_all_requests_in_flight_are_cancelled_and_the_engine_stays(nano_gguf: Path, home: Path):
    with Engine.of(LoadOptions(str(nano_gguf), threads=1, parallel=2)) as engine:
        engine.load()
        answers = [engine.generate(ask("999 * 99")) for _ in range(3)]
        next(answers[0])
        engine.cancel()
        assert [answer.reply.finish_reason for answer in answers] == ["cancelled"] * 3
        assert text_of(list(engine.generate(ask(QUESTIONS[0]))))[1] == "348 + 257 = 605"


def test_an_engine_that_dies_fails_what_is_in_flight_and_the_next_answers_what_waits(
    nano_gguf: Path, home: Path
):
    with Engine.of(LoadOptions(str(nano_gguf), threads=1, parallel=2)) as engine:
        engine.load()
        answers = [engine.generate(ask("999 * 99")) for _ in range(2)]
        for answer in answers:
            next(answer)
        waits = engine.generate(ask("348 + 257"))
        os.kill(engine.pid, signal.SIGKILL)
        for answer in answers:
            last = list(answer)[-1]
            assert isinstance(last, Failed) and last.fatal and "signal 9" in last.message
        assert waits.reply.answer == "348 + 257 = 605", "by the engine that was started next"


def test_the_engine_chooses_how_many_share_a_context(nano_gguf: Path, home: Path):
    for ctx, parallel in ((0, 4), (2048, 2), (256, 1)):
        with Engine.of(LoadOptions(str(nano_gguf), ctx=ctx, threads=1, parallel=0)) as engine:
            info = engine.load()
            assert info.parallel == parallel
            assert any(f"{parallel} at once" in one for one in info.placement["reasons"])


def test_one_request_is_cancelled_and_the_others_go_on(
    nano_gguf: Path, home: Path, clear
):
    question = clear(QUESTIONS[0])
    with Engine.of(LoadOptions(str(nano_gguf), threads=1, parallel=2)) as engine:
        engine.load()
        wanted = text_of(list(engine.generate(ask(question))))
        gone, stays = engine.generate(ask("999 * 99")), engine.generate(ask(question))
        gone.cancel()
        assert gone.reply.finish_reason == "cancelled"
        assert text_of(list(stays)) == wanted


def test_a_raw_prompt_is_read_without_a_template(nano_gguf: Path, home: Path, clear):
    asked = ask(clear(QUESTIONS[0]))
    text = prompts.prompt(QUESTIONS[0])
    raw = replace(asked, messages=(Message("user", text),), raw=True)
    with Engine.of(LoadOptions(str(nano_gguf), threads=1)) as engine:
        engine.load()
        reasoning, answer = text_of(list(engine.generate(asked)))
        assert text_of(list(engine.generate(raw))) == ("", f"{reasoning}\n</think>\n\n{answer}")
