import random

import pytest

from localseek import Engine
from localseek.commands.parts.replies import reply_object
from localseek.engine.decoding.trimming import Overhead, Trimmer, reply_room
from localseek.events import Failed, Notice, Stats
from localseek.options import LoadOptions, Message, Request, Sampling
from localseek.text.conversation import Reply, Transcript

N_CTX = 1000
GREEDY = Sampling(temperature=0.0)


def say(role: str, tokens: int) -> Message:
    return Message(role, "x" * tokens)  # a token is a letter here


def talk(turns: list[tuple[int, int]], prompt: int, system: int = 10) -> Request:
    messages = [say("system", system)] if system else []
    for asked, said in turns:
        messages += [say("user", asked), say("assistant", said)]
    return Request((*messages, say("user", prompt)))


def cut(request: Request, fixed: int = 20):
    return Trimmer(len, N_CTX, False).cut(request, lambda: Overhead(fixed, 5))


def size(messages) -> int:
    turns = sum(message.role == "assistant" for message in messages)
    return 20 + 5 * turns + sum(len(m.content) for m in messages if m.role != "system")


def test_a_conversation_that_fits_is_shown_whole():
    request = talk([(100, 200)] * 2, 100)
    assert cut(request).messages == request.messages
    assert (cut(request).left_out, cut(request).moved) == (0, False)


def test_whole_turns_go_the_oldest_first_and_the_system_prompt_stays():
    request = talk([(n, 100 + n) for n in range(50, 60)], 30)
    found = cut(request)
    assert found.left_out == 8
    assert found.messages[0] == request.messages[0]
    assert found.messages[1:] == request.messages[1 + 2 * found.left_out :]
    assert "its 8 oldest turns are left out" in found.notice(N_CTX)


def test_a_cut_stays_put_over_several_turns_and_nothing_is_remembered():
    random_ = random.Random(4)
    turns: list[tuple[int, int]] = []
    shown: list[int] = []
    for _ in range(300):
        request = talk(turns, random_.randrange(10, 60))
        found = cut(request)
        assert size(found.messages) <= N_CTX - reply_room(N_CTX, request, False)
        assert found.moved == (found.left_out > (shown[-1] if shown else 0))
        shown.append(found.left_out)
        turns.append((len(request.messages[-1].content), random_.randrange(5, 60)))
    moves = len(set(shown)) - 1
    assert 250 < shown[-1] < 300
    assert moves < 80  # two turns more would not be enough: 250 tokens are free after each


def test_the_turn_before_stays_where_it_fits():
    assert cut(talk([(50, 200), (50, 450)], 100)).left_out == 1
    assert cut(talk([(50, 200), (50, 700)], 100)).left_out == 2


def test_the_last_prompt_is_shown_however_long_it_is():
    found = cut(talk([(10, 10)], 5000))
    assert [m.role for m in found.messages] == ["system", "user"] and found.left_out == 1
    assert cut(talk([], 5000)).left_out == 0


def test_system_messages_stay_wherever_they_stand_and_turns_may_be_uneven():
    messages = (
        say("assistant", 5), say("user", 400), say("user", 300), say("system", 7),
        say("assistant", 20), say("user", 100),
    )  # fmt: skip
    found = cut(Request(messages))
    assert found.left_out == 2
    assert found.messages == (messages[3], messages[5])


@pytest.mark.parametrize(
    ("limit", "budget", "room"),
    [(None, None, 250), (40, None, 40), (5000, None, 250), (None, 4000, 500), (300, 4000, 300)],
)
def test_room_for_the_reply_is_a_share_of_the_context_or_less(limit, budget, room):
    request = Request((), max_tokens=limit, think_budget=budget)
    assert reply_room(N_CTX, request, False) == room


def test_a_model_that_reasons_has_half_of_the_context_for_it():
    assert reply_room(N_CTX, Request(()), True) == 500
    assert reply_room(N_CTX, Request((), think=False), True) == 250
    assert reply_room(N_CTX, Request((), max_tokens=40), True) == 40


def test_each_message_is_counted_once():
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return len(text)

    trimmer = Trimmer(count, N_CTX, False)
    messages = [say("user", 1), say("assistant", 2), say("user", 3)]
    trimmer.cut(Request(tuple(messages)), lambda: Overhead(1, 1))
    messages += [say("assistant", 4), say("user", 5)]
    trimmer.cut(Request(tuple(messages)), lambda: Overhead(1, 1))
    assert sorted(map(len, counted)) == [1, 2, 3, 4, 5]


def converse(engine: Engine, conversation: Transcript, prompt: str, **fields):
    reply, notices = Reply(), []
    for event in engine.generate(Request(conversation.messages(prompt), GREEDY, **fields)):
        reply = reply.after(event)
        if isinstance(event, Notice):
            notices.append(event.text)
    conversation.add(prompt, reply)
    return reply, notices


@pytest.mark.parametrize(("mtp", "cached"), [("off", False), (2, True)])
def test_a_long_conversation_goes_on_and_reads_little_again(
    nano_gguf, home, mtp, cached, clear
):
    options = LoadOptions(str(nano_gguf), ctx=512, threads=1, mtp=mtp, prompt_cache=cached)
    conversation = Transcript("Be exact.")
    told, reread = [], 0
    with Engine.of(options) as engine, Engine.of(LoadOptions(str(nano_gguf), threads=1)) as larger:
        engine.load()
        larger.load()
        for number in range(16):
            prompt = f"Calculate {1300 + number} + 2345"
            messages = conversation.messages(prompt)
            reply, notices = converse(engine, conversation, prompt)
            stats = reply.stats
            assert reply.finish_reason == "stop" and stats.context_used <= 512
            assert bool(notices) == (stats.turns_left_out > (told[-1] if told else 0))
            told.append(stats.turns_left_out)
            # The last answer was read inside its reasoning and is new as history.
            reread += bool(number) and stats.prompt_tokens - stats.cached_tokens > 80
            if notices or number == 15:  # what is shown is answered as if it were all there is
                shown = Transcript(
                    conversation.system, conversation.turns[stats.turns_left_out : -1]
                )
                past = tuple((turn.prompt, turn.reply.answer) for turn in shown.turns)
                clear(prompt, past=past, system=shown.system)
                same, _ = converse(larger, shown, prompt)
                assert len(messages) > len(shown.messages(prompt)) and same.answer == reply.answer
    assert told[-1] > 6
    assert reread == len(set(told)) - 1 <= 3


def test_a_row_of_a_batch_says_how_many_turns_were_left_out():
    reply = Reply(answer="a", stats=Stats(turns_left_out=3))
    assert reply_object("m", reply)["turns_left_out"] == 3
    assert "turns_left_out" not in reply_object("m", Reply(answer="a", stats=Stats()))


def test_what_a_larger_context_once_held_is_told_of_once(nano_gguf, home):
    turn = (Message("user", "What is 7 + 8?"), Message("assistant", "7 + 8 = 15"))
    messages = (*turn * 20, turn[0])
    with Engine.of(LoadOptions(str(nano_gguf), ctx=256, threads=1)) as engine:
        engine.load()
        for told in (True, False):
            events = list(engine.generate(Request(messages, GREEDY)))
            assert any(isinstance(event, Notice) for event in events) == told
            assert events[-1].stats.turns_left_out > 10


def test_a_reply_cut_off_at_the_end_of_the_context_does_not_end_the_conversation(nano_gguf, home):
    with Engine.of(LoadOptions(str(nano_gguf), ctx=128, threads=1)) as engine:
        engine.load()
        conversation = Transcript()
        for _ in range(3):
            reply, _ = converse(engine, conversation, "Calculate 981 * 87")
            assert reply.finish_reason == "length" and reply.stats.filled_context
        reply, _ = converse(engine, conversation, "What is 7 + 8?")
        assert reply.answer == "7 + 8 = 15" and not reply.stats.filled_context


def test_a_prompt_too_long_by_itself_is_refused_and_the_conversation_goes_on(nano_gguf, home):
    with Engine.of(LoadOptions(str(nano_gguf), ctx=256, threads=1)) as engine:
        engine.load()
        conversation = Transcript()
        converse(engine, conversation, "What is 7 + 8?")
        events = list(engine.generate(Request(conversation.messages("5 " * 300), GREEDY)))
        assert isinstance(events[-1], Failed) and "the context holds 256" in events[-1].message
        assert converse(engine, conversation, "What is 7 + 9?")[0].answer == "7 + 9 = 16"
