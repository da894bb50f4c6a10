import asyncio
import itertools
import threading
from collections.abc import AsyncIterator

import psutil
import pytest

from localseek import (
    AnswerDelta,
    AsyncConversation,
    AsyncEngine,
    EngineError,
    Failed,
    Finished,
    UsageError,
)

from .conftest import GONE_S, gone


async def test_an_answer_is_awaited_whole_or_streamed(tiny):
    async with AsyncEngine(tiny) as engine:
        reply = await engine.reply("What is 348 + 257?")
        assert (reply.reasoning, reply.answer) == ("Let me think.", "The answer is 605.")
        events = [event async for event in engine.stream("What is 348 + 257?")]
        assert isinstance(events[-1], Finished)
        assert "".join(e.text for e in events if isinstance(e, AnswerDelta)) == reply.answer
        async with engine.stream("say hi") as answer:
            assert (await answer.reply).answer == "hi"
            assert (await answer.reply).answer == "hi", "as often as one likes"
        pid = engine.engine.pid
    assert gone(pid)
    with pytest.raises(EngineError, match="was closed"):
        engine.stream("x")


async def test_several_tasks_may_wait_for_one_answer(tiny):
    async with AsyncEngine(tiny) as engine:
        answer = engine.stream("say hi")
        async with asyncio.timeout(GONE_S):
            replies = await asyncio.gather(answer.reply, answer.reply, answer.reply)
        assert [reply.answer for reply in replies] == ["hi"] * 3
        assert engine.info.parallel == 1 and engine.waiting == 0


async def test_a_task_that_waits_for_the_answer_of_a_cancelled_one_hears_of_it(tiny):
    async with AsyncEngine(tiny) as engine:
        answer = engine.stream("ponder")
        tasks = [asyncio.create_task(answer.reply) for _ in range(2)]
        await asyncio.sleep(0)  # both wait now
        tasks[0].cancel()
        async with asyncio.timeout(GONE_S):
            assert (await tasks[1]).finish_reason == "cancelled"


async def test_several_tasks_may_read_one_batch(tiny):
    async with AsyncEngine(tiny, parallel=2) as engine:
        batch = engine.batch([f"say {n}" for n in range(9)])

        async def read() -> list[int]:
            return [index async for index, _ in batch]

        async with asyncio.timeout(GONE_S):
            found = await asyncio.gather(read(), read(), read())
        assert sorted(itertools.chain(*found)) == [*range(9)]


async def test_several_tasks_are_answered_at_once_and_others_wait(tiny):
    async with AsyncEngine(tiny, parallel=2) as engine:
        found = await asyncio.gather(*(engine.reply(f"say {n}") for n in range(40)))
        assert [reply.answer for reply in found] == [str(n) for n in range(40)]


async def begun(engine: AsyncEngine, prompt: str) -> tuple[asyncio.Task, asyncio.Event]:
    """Read an answer in a task; give the task once the answer has begun."""
    first = asyncio.Event()

    async def read() -> None:
        async for event in engine.stream(prompt):
            if isinstance(event, AnswerDelta):
                first.set()

    task = asyncio.create_task(read())
    await first.wait()
    return task, first


async def test_a_task_that_is_cancelled_cancels_its_answer_and_no_other(tiny):
    async with AsyncEngine(tiny, parallel=2) as engine:
        task, _ = await begun(engine, "forever")
        other = engine.stream("forever")
        await anext(other)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await engine.reply("say fine")).answer == "fine", "its place is free"
        before = len(other.so_far.answer)
        while len(other.so_far.answer) < before + 500:
            await anext(other)
        await other.aclose()
        assert other.so_far.finish_reason == "cancelled"


async def test_an_answer_that_takes_too_long_is_cancelled(tiny):
    async with AsyncEngine(tiny) as engine:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await engine.reply("forever")
        answer = engine.stream("forever")
        waits = engine.stream("say late")
        await anext(answer)
        assert waits.waiting and engine.engine.waiting == 1
        waits.cancel()
        assert (await waits.reply).finish_reason == "cancelled"
        answer.cancel()
        assert (await answer.reply).finish_reason == "cancelled"


async def test_an_answer_that_is_left_early_frees_its_place(tiny):
    async with AsyncEngine(tiny) as engine:
        async for event in engine.stream("forever"):
            if isinstance(event, AnswerDelta):
                break
        assert (await engine.reply("say fine")).answer == "fine"


async def test_an_engine_that_dies_fails_its_answers_and_is_started_again(tiny):
    async with AsyncEngine(tiny, parallel=2) as engine:
        beside, dead = engine.stream("forever"), engine.stream("die")
        last = [event async for event in dead][-1]
        assert isinstance(last, Failed) and "signal 9" in last.message
        assert "signal 9" in (await beside.reply).error
        assert (await engine.reply("say back")).answer == "back"


async def test_a_batch_is_iterated_over_and_its_prompts_may_come_slowly(tiny):
    async def slowly() -> AsyncIterator[str]:
        for number in range(10):
            await asyncio.sleep(0)
            yield f"say {number}"

    async with AsyncEngine(tiny, parallel=2) as engine:
        found = {index: reply.answer async for index, reply in engine.batch(slowly())}
        assert found == {n: str(n) for n in range(10)}
        prompts = ["lines 300", "", "say 2", "die", "say 4"]
        found = [(i, r) async for i, r in engine.batch(prompts, in_order=True)]
        assert [index for index, _ in found] == [0, 1, 2, 3, 4]
        assert (found[2][1].answer, found[4][1].answer) == ("2", "4")
        assert found[1][1].wrong_use and "signal 9" in found[3][1].error
        unique = {"type": "array", "uniqueItems": True}
        async for _, reply in engine.batch(["say [1,1]"], schema=unique):
            assert "does not fit the schema" in reply.error


async def test_a_task_that_is_cancelled_cancels_its_batch(tiny):
    async with AsyncEngine(tiny, parallel=2) as engine:
        first = asyncio.Event()

        async def read() -> None:
            endless = itertools.chain(["say 0"], itertools.repeat("forever"))
            async with engine.batch(endless) as batch:
                async for _ in batch:
                    first.set()

        task = asyncio.create_task(read())
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await engine.reply("say fine")).answer == "fine"


async def test_a_conversation_stays_usable_when_its_task_is_cancelled(tiny):
    async with AsyncEngine(tiny) as engine:
        chat = AsyncConversation(engine, "Be brief.")
        assert (await chat.ask("say one")).answer == "one"
        first = asyncio.Event()

        async def read() -> None:
            async for event in chat.stream("forever"):
                if isinstance(event, AnswerDelta):
                    first.set()

        task = asyncio.create_task(read())
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert chat.turns[1].reply.finish_reason == "cancelled"
        assert chat.turns[1].reply.answer.startswith("line 0\n")
        async for event in chat.stream("forever"):
            if isinstance(event, AnswerDelta):
                break
        assert (await chat.ask("say two")).answer == "two"
        assert [turn.prompt for turn in chat.turns] == ["say one", "forever", "forever", "say two"]
        assert [m.content for m in chat.messages][-2:] == ["say two", "two"]


async def test_a_load_that_is_cancelled_leaves_no_process(tiny, monkeypatch, home):
    monkeypatch.setenv("FAKE_ENGINE", "load-hangs")
    engine = AsyncEngine(tiny)
    task = asyncio.create_task(engine.load())
    log = home / "logs" / "engine.log"
    while not (log.exists() and b"loading" in log.read_bytes()):
        await asyncio.sleep(0.01)
    pid = engine.engine.pid
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(gone, pid)
    await engine.aclose()
    assert not [t for t in threading.enumerate() if t.name == "localseek"]


async def test_what_cannot_be_is_said_before_anything_starts(tiny):
    children = psutil.Process().children()
    with pytest.raises(UsageError, match="Did you mean parallel"):
        AsyncEngine(tiny, paralel=2)
    engine = AsyncEngine(tiny)
    with pytest.raises(EngineError, match="not loaded"):
        engine.stream("x")
    await engine.aclose()
    assert psutil.Process().children() == children


async def test_tasks_and_threads_may_share_one_engine(engine):
    shared = AsyncEngine.of(engine)
    answers = asyncio.gather(*(shared.reply(f"say {n}") for n in range(10)))
    beside = await asyncio.to_thread(lambda: engine.reply("say beside").answer)
    assert beside == "beside"
    assert [reply.answer for reply in await answers] == [str(n) for n in range(10)]
