import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from localseek.engine.process.client import Engine
from localseek.errors import EngineError
from localseek.events import Event, Failed, Finished
from localseek.nano import prompts
from localseek.options import LoadOptions, Message

from .conftest import ask, text_of

QUESTIONS = ("348 + 257", "Calculate 7 - 9000", "Hello", "12 * 7", "62 * 17")


def drain(engine: Engine, count: int) -> dict[int, list[Event]]:
    found: dict[int, list[Event]] = {}
    while count:
        number, event = engine.next_event()
        found.setdefault(number, []).append(event)
        count -= isinstance(event, Finished | Failed)
    return found


def test_several_requests_get_each_their_own_events(nano_gguf: Path, home: Path, clear):
    questions = [clear(question) for question in QUESTIONS]
    with Engine(LoadOptions(str(nano_gguf), threads=1)) as engine:
        assert engine.load().parallel == 1
        wanted = [text_of(list(engine.generate(ask(q)))) for q in questions]
        numbers = [engine.submit(ask(q)) for q in questions]  # one after another, but all come
        found = drain(engine, len(numbers))
        assert [text_of(found[number]) for number in numbers] == wanted
    with Engine(LoadOptions(str(nano_gguf), threads=1, parallel=3)) as engine:
        assert engine.load().parallel == 3
        numbers = [engine.submit(ask(q)) for q in questions]
        too_long = engine.submit(ask("word " * 20_000))
        found = drain(engine, len(numbers) + 1)
        assert [text_of(found[number]) for number in numbers] == wanted
        assert isinstance(found[too_long][-1], Failed)
        assert "20,0" in found[too_long][-1].message
        one_alone = list(engine.generate(ask(QUESTIONS[0])))
        assert text_of(one_alone) == wanted[0]


def test_all_requests_in_flight_are_cancelled_and_the_engine_stays(nano_gguf: Path, home: Path):
    with Engine(LoadOptions(str(nano_gguf), threads=1, parallel=2)) as engine:
        engine.load()
        numbers = [engine.submit(ask("999 * 99")) for _ in range(3)]
        engine.next_event()
        engine.cancel()
        found = drain(engine, 3)
        assert [found[number][-1].reason for number in numbers] == ["cancelled"] * 3
        assert text_of(list(engine.generate(ask(QUESTIONS[0]))))[1] == "348 + 257 = 605"


def test_an_engine_that_dies_fails_all_that_is_in_flight(nano_gguf: Path, home: Path):
    with Engine(LoadOptions(str(nano_gguf), threads=1, parallel=2)) as engine:
        engine.load()
        numbers = {engine.submit(ask("999 * 99")) for _ in range(3)}
        engine.next_event()
        os.kill(engine.pid, signal.SIGKILL)
        found = drain(engine, 3)
        assert set(found) == numbers
        for events in found.values():
            assert isinstance(events[-1], Failed) and events[-1].fatal
        with pytest.raises(EngineError):
            engine.submit(ask("1 + 1"))


def test_the_engine_chooses_how_many_share_a_context(nano_gguf: Path, home: Path):
    for ctx, parallel in ((0, 4), (2048, 2), (256, 1)):
        with Engine(LoadOptions(str(nano_gguf), ctx=ctx, threads=1, parallel=0)) as engine:
            info = engine.load()
            assert info.parallel == parallel
            assert any(f"{parallel} at once" in one for one in info.placement["reasons"])


def test_one_request_is_cancelled_by_its_number_and_the_others_go_on(
    nano_gguf: Path, home: Path, clear
):
    question = clear(QUESTIONS[0])
    with Engine(LoadOptions(str(nano_gguf), threads=1, parallel=2)) as engine:
        engine.load()
        wanted = text_of(list(engine.generate(ask(question))))
        gone, stays = engine.submit(ask("999 * 99")), engine.submit(ask(question))
        engine.cancel(gone)
        found = drain(engine, 2)
        assert found[gone][-1].reason == "cancelled"
        assert text_of(found[stays]) == wanted
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="signal 9"):
            engine.next_event()


def test_a_raw_prompt_is_read_without_a_template(nano_gguf: Path, home: Path, clear):
    asked = ask(clear(QUESTIONS[0]))
    text = prompts.prompt(QUESTIONS[0])
    raw = replace(asked, messages=(Message("user", text),), raw=True)
    with Engine(LoadOptions(str(nano_gguf), threads=1)) as engine:
        engine.load()
        reasoning, answer = text_of(list(engine.generate(asked)))
        assert text_of(list(engine.generate(raw))) == ("", f"{reasoning}\n</think>\n\n{answer}")
