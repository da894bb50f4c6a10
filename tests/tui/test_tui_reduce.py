import itertools
from dataclasses import replace

from states import INFO, STATS, after, fresh, ready, running, streamed

from localseek.events import (
    AnswerDelta,
    DraftStats,
    Failed,
    Finished,
    Notice,
    PromptProgress,
    ReasoningDelta,
)
from tui.state import actions as act
from tui.state.offers import offered
from tui.state.reduce import next_turn, wants_load
from tui.state.wording import activity, clean, outcome, reasoning_title
from tui.widgets.status import line


def test_a_prompt_waits_until_the_model_is_loaded_and_the_engine_is_free():
    state = after(fresh(), act.Submitted("one"), act.Submitted("two"))
    assert next_turn(state) is None
    state = after(state, act.Loading(0.5))
    assert activity(state, 0) == "loading… 50%"
    state = after(state, act.Loaded(INFO))
    assert next_turn(state).prompt == "one"
    state = after(state, act.Started(1))
    assert next_turn(state) is None
    state = after(state, act.Streamed(1, Finished("stop", STATS)))
    assert next_turn(state).prompt == "two"


def test_phases_follow_the_events():
    state = running()
    phases = [state.last.phase]
    for event in (
        PromptProgress(5, 10), ReasoningDelta("r", 1), AnswerDelta("a", 1), Finished("stop", STATS)
    ):  # fmt: skip
        state = streamed(state, event)
        phases.append(state.last.phase)
    assert phases == ["reading", "reading", "thinking", "answering", "done"]
    assert state.running is None


def test_reasoning_opens_and_folds_once():
    state = streamed(running(), ReasoningDelta("r", 1))
    assert not state.last.folded
    state = streamed(state, AnswerDelta("a", 1))
    assert state.last.folded
    state = after(state, act.Folded(state.last.id, False))
    state = streamed(state, AnswerDelta("b", 1), Finished("stop", STATS))
    assert not state.last.folded


def test_a_panel_that_the_user_keeps_open_is_not_folded_by_the_answer():
    state = streamed(running(), ReasoningDelta("r", 1))
    state = after(state, act.Folded(state.last.id, True), act.Folded(state.last.id, False))
    assert not streamed(state, AnswerDelta("a", 1)).last.folded


def test_folding_all_holds_for_reasoning_to_come():
    state = after(running(), act.AllFolded(True))
    assert streamed(state, ReasoningDelta("r", 1)).last.folded
    state = streamed(running(), ReasoningDelta("r", 1), Finished("stop", STATS))
    state = after(state, act.AllFolded(True), act.Submitted("two"))
    state = after(state, act.Started(state.last.id))
    assert streamed(state, ReasoningDelta("r", 1)).last.folded


def test_the_title_counts_and_then_tells_the_time():
    state = streamed(running(), ReasoningDelta("r", 3), now=10.0)
    assert reasoning_title(state.last, 22.4) == "Thinking… 12 s · 3 tokens"
    state = streamed(state, AnswerDelta("a", 1), now=22.4)
    assert reasoning_title(state.last, 99.0) == "Thought for 12 s · 3 tokens"
    state = streamed(state, Finished("stop", STATS), now=30.0)
    assert reasoning_title(state.last, 99.0) == "Thought for 12 s · 7 tokens"


def test_stopping_keeps_the_text_and_text_that_still_comes():
    state = after(streamed(running(), AnswerDelta("a", 1)), act.StopAsked())
    assert state.last.phase == "stopping"
    state = streamed(state, AnswerDelta("b", 1), Finished("cancelled", STATS))
    assert (state.last.phase, state.last.reply.answer) == ("stopped", "ab")
    assert outcome(state.last) == "Stopped. /continue lets it go on."
    assert outcome(state.last, last=False) == "Stopped."


def test_stopping_while_thinking_leaves_the_reasoning_open():
    state = streamed(running(), ReasoningDelta("r", 1), Finished("cancelled", STATS), now=3.0)
    assert not state.last.folded and state.last.thought_s == 0.0


def test_engine_death_keeps_the_text_and_the_next_prompt_loads_again():
    state = streamed(running(), AnswerDelta("half", 1), Failed("It died.", "See log.", fatal=True))
    assert (state.model.phase, state.last.phase, state.last.reply.answer) == (
        "dead", "failed", "half",
    )  # fmt: skip
    assert offered(state)["restart"] and not state.busy
    assert outcome(state.last, last=False) == "It died. See log."
    again = after(state, act.Submitted("next"))
    assert again.model.phase == "loading" and next_turn(again) is None
    assert next_turn(after(again, act.Loaded(INFO))).prompt == "next"
    assert after(state, act.RestartAsked()).model.phase == "loading"


def test_a_failure_that_is_not_fatal_leaves_the_model_ready():
    state = streamed(running(), Failed("Too long.", "Shorten it."))
    assert state.model.phase == "ready" and next_turn(state) is None
    assert not offered(state)["restart"]


def test_prompts_that_wait_when_the_model_dies_go_on_after_a_restart():
    state = after(running("one"), act.Submitted("two"))
    state = after(state, act.Streamed(1, Failed("It died.", fatal=True)))
    assert next_turn(state) is None
    state = after(state, act.RestartAsked(), act.Loaded(INFO))
    assert next_turn(state).prompt == "two"


def test_a_new_conversation_ignores_late_events_of_the_old_one():
    state = streamed(running(), AnswerDelta("a", 1))
    gone = after(state, act.NewAsked())
    assert gone.turns == () and gone.running == 1 and next_turn(gone) is None
    assert gone.conversation.key != state.conversation.key
    late = after(gone, act.Streamed(1, AnswerDelta("b", 1)))
    assert late == gone
    free = after(gone, act.Streamed(1, Finished("cancelled", STATS)))
    assert free.running is None


def test_a_cut_answer_goes_on_where_it_was():
    state = streamed(running("q"), ReasoningDelta("why", 3), AnswerDelta("half", 1), now=1.0)
    state = streamed(state, Finished("cancelled", STATS), now=2.0)
    waiting = after(state, act.ContinueAsked())
    assert waiting.last.phase == "waiting" and waiting.last.reply.answer == "half"
    assert after(waiting, act.Withdrawn()).last.phase == "stopped"
    going = after(waiting, act.Started(1), now=5.0)
    going = streamed(going, AnswerDelta(" and half", 2), Finished("stop", STATS), now=6.0)
    assert (going.last.phase, going.last.reply.answer) == ("done", "half and half")
    assert reasoning_title(going.last, 9.0) == "Thought for 0.1 s · 3 tokens"
    assert after(going, act.ContinueAsked()) == going, "it is whole"


def test_reasoning_that_goes_on_adds_to_its_time():
    state = streamed(running("q"), ReasoningDelta("one", 1), now=10.0)
    state = streamed(state, Finished("cancelled", STATS), now=14.0)
    state = after(state, act.ContinueAsked(), act.Started(1), now=20.0)
    state = streamed(state, ReasoningDelta(" two", 1), now=21.0)
    assert state.last.thinking_s(23.0) == 6.0
    assert streamed(state, AnswerDelta("a", 1), now=24.0).last.thought_s == 7.0


def test_reasoning_can_be_kept_open_by_a_setting():
    state = replace(running(), reasoning="open")
    state = streamed(state, ReasoningDelta("r", 1), AnswerDelta("a", 1))
    assert not state.last.folded
    assert streamed(replace(running(), reasoning="folded"), ReasoningDelta("r", 1)).last.folded


def test_another_model_is_loaded_and_the_same_one_only_if_it_is_down():
    state = ready()
    assert after(state, act.ModelAsked("m")) == state
    other = after(state, act.ModelAsked("other"))
    assert (other.model.name, other.model.phase) == ("other", "loading")
    assert wants_load(state, other, act.ModelAsked("other"))
    assert not wants_load(state, state, act.ModelAsked("m"))
    dead = after(running(), act.Streamed(1, Failed("It died.", fatal=True)))
    assert after(dead, act.ModelAsked("m")).model.phase == "loading"


def test_only_waiting_prompts_can_be_withdrawn():
    state = after(running("one"), act.Submitted("two"), act.Withdrawn(), act.Withdrawn())
    assert [turn.prompt for turn in state.turns] == ["one"]


def test_speed_is_live_first_and_the_engines_own_in_the_end():
    state = streamed(running(), AnswerDelta("a", 1), now=1.0)
    state = streamed(state, AnswerDelta("b", 10), now=2.0)
    assert state.last.tokens_per_second(3.0) == 5.0
    state = streamed(state, Finished("stop", STATS), now=4.0)
    assert state.last.tokens_per_second(9.0) == 40.0


def test_text_is_cleaned_of_what_a_terminal_obeys():
    assert clean("a\x1b[31mb\r\n\tc\x07\x9b\u202ed\ud800") == "a[31mb\n\tcd\ufffd"
    state = streamed(running(), ReasoningDelta("\x1b]52;c;x\x07"), AnswerDelta("\x1b[2J"))
    state = streamed(state, Notice("\x07note"))
    assert (state.last.reply.reasoning, state.last.reply.answer) == ("]52;c;x", "[2J")
    assert state.last.notices == ("note",)


def test_an_answer_cut_at_the_limit_and_an_empty_one_say_so():
    cut = streamed(running(), AnswerDelta("a", 1), Finished("length", STATS))
    assert outcome(cut.last) == "Cut off at the length limit. /continue lets it go on."
    empty = streamed(running(), Finished("stop", STATS))
    assert outcome(empty.last) == "The model ended without an answer."


def test_the_status_line_fits_every_width_and_drops_the_least_wanted_first():
    stats = replace(STATS, draft=DraftStats(steps=5, drafted=5, accepted=4, mean_depth=1.0))
    state = streamed(running(), AnswerDelta("a", 9), Finished("stop", stats))
    for width in range(1, 120):
        shown = line(state, 0.0, width)
        assert shown.cell_length <= max(width, len("ready"))
    assert "40.0 tok/s" in line(state, 0.0, 40).plain
    assert "drafts" not in line(state, 0.0, 40).plain
    assert "1.0 drafts, 80% right" in line(state, 0.0, 110).plain


def test_no_action_breaks_an_empty_app():
    actions = [
        act.Withdrawn(), act.StopAsked(), act.RetryAsked(1), act.NewAsked(), act.RestartAsked(),
        act.Folded(9, True), act.AllFolded(True), act.Started(9), act.ContinueAsked(),
        act.BranchAsked(9),
        act.BranchLeft(), act.VariantAsked(9, 1), act.Selected(9), act.Submitted("x", edits=9),
        act.SettingsChanged({"think": True}, "s"), act.Deleted(1), act.ModelAsked("n"),
        act.Streamed(9, AnswerDelta("x")), act.Streamed(9, Failed("f", fatal=True)),
    ]  # fmt: skip
    for first, second in itertools.product(actions, repeat=2):
        state = after(fresh(), first, second)
        activity(state, 0.0), offered(state), line(state, 0.0, 30)
