import itertools
from collections.abc import Iterator

import pytest

from localseek import EngineError, Message, Request


def test_replies_come_as_they_are_whole_or_in_order(engine):
    prompts = ["lines 300", "say 1", "say 2", "say 3"]
    found = list(engine.batch(prompts))
    assert [index for index, _ in found] == [1, 2, 3, 0]
    assert [reply.answer for _, reply in found[:3]] == ["1", "2", "3"]
    in_order = list(engine.batch(prompts, in_order=True))
    assert [index for index, _ in in_order] == [0, 1, 2, 3]
    assert in_order[0][1].answer.endswith("line 299\n")


def test_prompts_are_drawn_when_there_is_a_place(engine):
    drawn: list[int] = []

    def endless() -> Iterator[str]:
        for number in itertools.count():
            drawn.append(number)
            yield f"say {number}"

    with engine.batch(endless()) as batch:
        for given, (index, reply) in enumerate(batch, 1):
            assert reply.answer == str(index)
            assert len(drawn) <= given + 3  # the places, and one that is over
            if given >= 50:
                break
    assert engine.reply("say fine").answer == "fine"


def test_a_prompt_that_is_none_fails_alone(engine):
    prompts = ["say 0", "", ["nothing"], [{"role": "user", "content": "say 3"}], 7]
    found = dict(engine.batch(prompts, in_order=True))
    assert [found[n].answer for n in (0, 3)] == ["0", "3"]
    assert [found[n].finish_reason for n in (1, 2, 4)] == ["failed"] * 3
    assert found[1].error == "prompt is not a string, or is empty." and found[1].wrong_use
    assert [index for index, _ in engine.batch([])] == []


def test_every_reply_is_checked_against_the_schema(engine):
    schema = {"type": "array", "uniqueItems": True}
    found = dict(engine.batch(["say [1,2]", "say [1,1]"], schema=schema))
    assert found[0].error == "" and "does not fit the schema" in found[1].error


def test_what_kills_the_engine_twice_fails_and_the_rest_is_answered(engine, tmp_path):
    prompts = ["say 0", "die", "say 2", "say 3"]
    for in_order in (False, True):
        found = list(engine.batch(prompts, in_order=in_order))
        assert [index for index, _ in found] == [0, 1, 2, 3] or not in_order
        replies = dict(found)
        assert [replies[n].answer for n in (0, 2, 3)] == ["0", "2", "3"]
        assert "signal 9" in replies[1].error
    once = dict(engine.batch([f"die-once {tmp_path / 'died'}", "say 1"]))
    assert (once[0].error, once[1].answer) == ("", "1")


def test_an_engine_that_cannot_be_started_again_ends_the_batch(make, monkeypatch, tmp_path):
    monkeypatch.setenv("FAKE_ENGINE", f"load-once {tmp_path / 'loaded'}")
    engine = make()
    with engine.batch(["die", "say 1"]) as batch, pytest.raises(EngineError, match="No memory"):
        list(batch)
    (tmp_path / "loaded").unlink()
    assert engine.reply("say back").answer == "back"


def test_a_batch_that_is_cancelled_gives_what_was_in_flight_and_begins_nothing_more(engine):
    batch = engine.batch(itertools.chain(["say 0"], itertools.repeat("forever")))
    assert next(batch)[1].answer == "0"
    batch.cancel()
    rest = dict(batch)
    assert sorted(rest) == [1, 2], "one more had taken the free place"
    assert {reply.finish_reason for reply in rest.values()} == {"cancelled"}
    assert engine.reply("say fine").answer == "fine"


def test_an_error_of_the_source_is_the_callers(engine):
    def broken() -> Iterator[str]:
        yield "forever"
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"), engine.batch(broken()) as batch:
        list(batch)
    assert engine.reply("say fine").answer == "fine"


def test_a_batch_that_is_dropped_frees_its_places(engine):
    for index, _ in engine.batch(itertools.chain(["say 0"], itertools.repeat("forever"))):
        assert index == 0
        break
    assert [reply.answer for _, reply in engine.batch(["say a", "say b"], in_order=True)] == [
        "a", "b"
    ]  # fmt: skip


def test_a_batch_shares_its_engine_with_other_answers(engine):
    beside = engine.stream("forever")
    next(beside)
    found = dict(engine.batch(f"say {n}" for n in range(20)))
    assert [found[n].answer for n in range(20)] == [str(n) for n in range(20)]
    assert not beside.so_far.finish_reason
    beside.close()


def test_requests_may_belong_to_anything(engine):
    requests = {name: Request((Message("user", f"say {name}"),)) for name in ("ah", "oh")}
    found = {owner: reply.answer for owner, reply in engine.generate_all(requests.items())}
    assert found == {"ah": "ah", "oh": "oh"}
