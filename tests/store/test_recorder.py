import pytest

from localseek.store.history.history import History
from localseek.store.history.recorder import Recorder
from localseek.text.conversation import Reply


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def recorder(history, warnings, clock):
    return Recorder(history, "nano", "Be brief.", warnings.append, clock=clock)


def saved_texts(history):
    (one,) = history.conversations()
    return [message.content for message in history.branch(one.leaf)]


def test_a_growing_answer_is_at_most_a_second_behind(recorder, history, clock):
    recorder.asked("q")
    recorder.answered(Reply("", "one"))
    assert saved_texts(history) == ["q", ""]
    clock.now += 1.0
    recorder.answered(Reply("", "one two"))
    assert saved_texts(history) == ["q", "one two"]
    clock.now += 0.5
    recorder.answered(Reply("", "one two three"))
    assert saved_texts(history) == ["q", "one two"]
    recorder.answered(Reply("", "one two three.", "stop"))
    assert saved_texts(history) == ["q", "one two three."]


def test_prompts_follow_the_answer_before_and_a_retry_is_a_variant(recorder, history, variants):
    recorder.asked("q")
    recorder.answered(Reply("", "a", "stop"))
    recorder.asked_again()
    recorder.answered(Reply("", "b", "stop"))
    recorder.asked("more")
    recorder.answered(Reply("", "c", "cancelled"))
    assert saved_texts(history) == ["q", "b", "more", "c"]
    (one,) = history.conversations()
    answer = history.branch(one.leaf)[1]
    contents = {message.id: message.content for message in history.all_messages(one.id)}
    assert [contents[number] for number in variants(one.id, answer.id)] == ["a", "b"]


def test_an_engine_that_never_answered_leaves_the_prompt_and_the_reason(recorder, history):
    recorder.asked("q")
    recorder.failed("No memory.")
    (one,) = history.conversations()
    answer = history.branch(one.leaf)[-1]
    assert (answer.finish_reason, answer.error) == ("failed", "No memory.")
    recorder.failed("too late")
    assert history.branch(one.leaf)[-1].error == "No memory."


def test_a_new_conversation_begins_where_it_is_asked_for(recorder, history):
    recorder.asked("first")
    recorder.answered(Reply("", "a", "stop"))
    recorder.start_over("Be kind.")
    recorder.asked("second")
    recorder.answered(Reply("", "b", "stop"))
    titles = [(one.title, one.system, one.messages) for one in history.conversations()]
    assert sorted(titles) == [("first", "Be brief.", 2), ("second", "Be kind.", 2)]


def test_a_history_that_fails_is_told_of_once_and_the_talk_goes_on(recorder, history, warnings):
    recorder.asked("q")
    history.close()
    recorder.answered(Reply("", "a", "stop"))
    recorder.asked("more")
    recorder.answered(Reply("", "b", "stop"))
    recorder.set_system("x")
    (warning,) = warnings
    assert "cannot be used" in warning and warning.endswith("is not saved from here on.")
    with History(history.path) as again:
        assert saved_texts(again) == ["q", ""]


def test_an_answer_that_should_go_on_and_fails_at_once_keeps_its_text(recorder, history):
    recorder.asked("q")
    begun = Reply("why", "a long answer", "length")
    recorder.answered(begun)
    recorder.goes_on(begun)
    recorder.failed("no engine")
    answer = history.branch(history.named("").leaf)[-1]
    assert (answer.content, answer.reasoning, answer.finish_reason) == (
        "a long answer", "why", "failed"
    )  # fmt: skip


def test_after_a_variant_that_failed_the_next_prompt_follows_the_good_answer(recorder, history):
    recorder.asked("q")
    recorder.answered(Reply("", "good", "stop"))
    place = recorder.place
    recorder.asked_instead("edited")
    recorder.failed("no engine")
    recorder.go_back(place)
    recorder.asked("next")
    recorder.answered(Reply("", "n", "stop"))
    assert saved_texts(history) == ["q", "good", "next", "n"]
