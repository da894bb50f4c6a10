from dataclasses import replace

from states import after, finished, running, shown

from localseek.store.history.records import Message
from tui.state import actions as act
from tui.state import tree
from tui.state.offers import offered
from tui.state.views import ModelView
from tui.state.wording import outcome


def test_retry_adds_a_variant_and_leaves_a_running_turn_alone():
    state = running("q")
    assert after(state, act.RetryAsked(1)) == state
    state = after(finished(state), act.RetryAsked(1))
    assert [turn.prompt for turn in state.turns] == ["q"]
    assert state.last.phase == "waiting" and (state.last.id, state.last.again) == (2, 1)
    state = finished(state, "b")
    assert shown(after(state, act.VariantAsked(2, -1))) == [("q", "a")]
    assert shown(after(state, act.VariantAsked(2, -1), act.VariantAsked(1, 1))) == [("q", "b")]
    assert after(state, act.VariantAsked(2, 1)) == state, "there is no newer one"
    third = after(state, act.RetryAsked(2))
    assert third.last.again == 1, "its prompt is that of the first"


def test_an_edited_prompt_is_a_variant_and_what_followed_is_kept():
    state = finished(after(finished(running("one")), act.Submitted("two")), "b")
    edited = finished(after(state, act.Submitted("one, edited", edits=1)), "c")
    assert shown(edited) == [("one, edited", "c")]
    assert shown(after(edited, act.VariantAsked(3, -1))) == [("one", "a"), ("two", "b")]
    assert [m.content for m in edited.messages_for(3)] == ["one, edited"]


def test_a_fork_hides_what_followed_until_a_prompt_begins_the_branch():
    state = finished(after(finished(running("one")), act.Submitted("two")), "b")
    forked = after(state, act.BranchAsked(1))
    assert shown(forked) == [("one", "a")] and forked.forked
    assert shown(after(forked, act.BranchLeft())) == shown(state)
    branch = finished(after(forked, act.Submitted("other")), "c")
    assert shown(branch) == [("one", "a"), ("other", "c")] and not branch.forked
    assert shown(after(branch, act.VariantAsked(3, -1))) == shown(state)


def test_a_cut_answer_that_others_follow_does_not_go_on():
    state = finished(running("one"), "half", "cancelled")
    state = finished(after(state, act.Submitted("two")), "b")
    forked = after(state, act.BranchAsked(1))
    assert after(forked, act.ContinueAsked()) == forked
    assert not offered(forked)["continue"]


def test_a_retry_that_is_taken_back_shows_the_answer_before():
    state = finished(running("q"))
    waiting = after(replace(state, model=ModelView("m")), act.RetryAsked(1))
    assert shown(after(waiting, act.Withdrawn())) == [("q", "a")]


def test_a_saved_conversation_unfolds_as_it_was_left():
    messages = [
        Message(1, None, "user", "q"), answer_of(2, 1, "a"), answer_of(3, 1, "b"),
        Message(4, 2, "user", "more"), answer_of(5, 4, "c", "interrupted"),
        Message(6, 3, "user", "unanswered"),
    ]  # fmt: skip

    def left_at(leaf):
        turns, others = tree.from_history(messages, leaf)
        assert len(turns) + len(others) == 3
        return [turn.reply.answer for turn in turns]

    assert left_at(5) == ["a", "c"] and left_at(2) == ["a"]
    assert left_at(3) == left_at(6) == ["b"]
    assert left_at(None) == left_at(77) == ["a", "c"]
    turns, _ = tree.from_history(messages, 5)
    assert turns[1].can_go_on and outcome(turns[1]) == "Cut off. /continue lets it go on."
    assert tree.from_history(messages[:1], 1) == ((), ())


def answer_of(number, parent, text, reason="stop"):
    return Message(number, parent, "assistant", text, finish_reason=reason)
