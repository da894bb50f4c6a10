import json

import pytest

from localseek import AnswerDelta, Conversation, Message, UsageError


def shown(conversation) -> list[str]:
    sent = json.loads(conversation.ask("echo").answer)["request"]["messages"]
    return [message["content"] for message in sent]


def test_each_prompt_is_shown_what_was_said_before(engine):
    chat = Conversation(engine, system="Be brief.", temperature=0, max_tokens=9)
    assert chat.ask("say one").answer == "one"
    assert "".join(e.text for e in chat.stream("say two") if isinstance(e, AnswerDelta)) == "two"
    assert chat.messages == [
        Message("system", "Be brief."), Message("user", "say one"), Message("assistant", "one"),
        Message("user", "say two"), Message("assistant", "two"),
    ]  # fmt: skip
    sent = json.loads(chat.ask("echo", max_tokens=3).answer)["request"]
    assert [m["content"] for m in sent["messages"]] == [
        "Be brief.", "say one", "one", "say two", "two", "echo"
    ]  # fmt: skip
    assert (sent["max_tokens"], sent["sampling"]["temperature"]) == (3, 0)


def test_an_answer_that_was_cancelled_counts_as_far_as_it_came(engine):
    chat = Conversation(engine)
    with chat.stream("forever") as answer:
        while not answer.so_far.answer:
            next(answer)
    assert chat.turns[0].reply.finish_reason == "cancelled"
    first, second, last = shown(chat)
    assert (first, last) == ("forever", "echo") and second.startswith("line 0\n")


def test_a_prompt_ends_an_answer_that_is_still_on_its_way(single):
    chat = Conversation(single)
    for event in chat.stream("forever"):
        if isinstance(event, AnswerDelta):
            break
    assert shown(chat)[1].startswith("line 0\n")


def test_a_turn_that_failed_or_never_came_to_an_answer_is_not_shown_again(engine):
    chat = Conversation(engine)
    assert chat.ask("fail").finish_reason == "failed"
    assert chat.ask("ponder").never_answered
    assert "signal 9" in chat.ask("die").error
    assert shown(chat) == ["die", "half an ans", "echo"]
    assert [turn.prompt for turn in chat.turns] == ["fail", "ponder", "die", "echo"]
    chat.turns.clear()
    assert shown(chat) == ["echo"]


def test_a_prompt_that_cannot_be_asked_changes_nothing(engine):
    chat = Conversation(engine)
    for prompt, options in ((" ", {}), ("x", {"heat": 1}), ("x", {"system": "S"})):
        with pytest.raises(UsageError):
            chat.ask(prompt, **options)
    assert chat.turns == [] and chat.messages == []


def test_an_answer_without_its_form_is_marked_in_the_conversation_too(engine):
    chat = Conversation(engine)
    for _ in chat.stream("say [1,1]", schema={"type": "array", "uniqueItems": True}):
        pass
    assert "does not fit the schema" in chat.turns[0].reply.error


def test_a_conversation_goes_on_after_messages_that_were_said_elsewhere(engine):
    said = [
        {"role": "system", "content": "S"}, {"role": "user", "content": "1"},
        Message("assistant", "2"),
    ]  # fmt: skip
    chat = Conversation(engine, messages=said)
    assert chat.system == "S" and shown(chat) == ["S", "1", "2", "echo"]
    again = Conversation(engine, messages=chat.messages)
    assert again.messages == chat.messages
    other = Conversation(engine, "Mine.", said)
    assert other.system == "Mine." and shown(other)[:2] == ["Mine.", "1"]
    for wrong in ([Message("assistant", "x")], [Message("user", "x")], ["x"]):
        with pytest.raises(UsageError):
            Conversation(engine, messages=wrong)
