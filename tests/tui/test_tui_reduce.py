import itertools
from dataclasses import replace

from localseek.events import (
    AnswerDelta,
    DraftStats,
    Failed,
    Finished,
    Notice,
    PromptProgress,
    ReasoningDelta,
    Stats,
)
from localseek.options import ModelInfo
from localseek.store.history.records import Message
from tui import actions as act
from tui import tree
from tui.commands import COMMANDS, by_word, parse_slash
from tui.export import recover
from tui.offers import offered
from tui.prompts import PromptHistory
from tui.reduce import next_turn, reduce, wants_load
from tui.segments import settled_markdown, settled_plain
from tui.session import merged
from tui.state import AppState, ModelView
from tui.widgets.status import line
from tui.window import MOUNTED, PAGE, Window, around, earlier, filling, grown, later, tail
from tui.wording import activity, clean, outcome, reasoning_title, seconds

INFO = ModelInfo("/m", "M", "deepseek2", "d", 1, 1, 4096, 4096, drafting=True, thinks=True)
STATS = Stats(generated_tokens=9, reasoning_tokens=7, decode_tps=40.0, context_used=50)


def after(state, *actions, now=0.0):
    for action in actions:
        state = reduce(state, action, now)
    return state


def fresh():
    return AppState(ModelView("m"))


def ready():
    return after(fresh(), act.Loaded(INFO))


def running(prompt="hi"):
    state = after(ready(), act.Submitted(prompt))
    return after(state, act.Started(state.last.id))


def streamed(state, *events, now=0.0):
    return after(state, *(act.Streamed(state.last.id, event) for event in events), now=now)


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


def finished(state, answer="a", reason="stop"):
    if state.last.phase == "waiting":
        state = after(state, act.Started(state.last.id))
    return streamed(state, AnswerDelta(answer, 1), Finished(reason, STATS))


def shown(state):
    return [(turn.prompt, turn.reply.answer) for turn in state.turns]


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


def test_durations_read_well():
    assert [seconds(s) for s in (0.42, 1, 59.9, 60, 185)] == [
        "0.4 s", "1 s", "59 s", "1 min 00 s", "3 min 05 s",
    ]  # fmt: skip


def test_text_that_came_between_two_frames_is_merged_in_order():
    def r(text):
        return act.Streamed(1, ReasoningDelta(text, 1))

    def a(text, turn=1):
        return act.Streamed(turn, AnswerDelta(text, 1))

    actions = [
        act.Loading(0.1),
        act.Loading(0.2),
        r("a"),
        r("b"),
        a("c"),
        a("d"),
        a("e", 2),
        r("f"),
    ]
    assert merged(actions) == [
        act.Loading(0.2),
        act.Streamed(1, ReasoningDelta("ab", 2)),
        act.Streamed(1, AnswerDelta("cd", 2)),
        a("e", 2),
        r("f"),
    ]


def test_the_window_follows_the_end_pages_back_and_stays_small():
    window, most = Window(), MOUNTED + PAGE
    for count in range(1, 101):
        window = grown(window, count, following=True)
        assert window.end == count and window.size <= most
    window, seen = tail(100), set()
    assert window == Window(100 - MOUNTED, 100)
    while window.first > 0:
        window = earlier(window)
        assert window.size <= most
        seen.update(range(window.first, window.end))
    assert seen >= set(range(100 - MOUNTED))
    while window.end < 100:
        window = later(window, 100)
        assert window.size <= most
    assert window.end == 100


def test_a_reader_who_is_elsewhere_is_left_there_and_an_emptied_list_resets():
    assert grown(Window(10, 20), 101, following=False) == Window(10, 20)
    assert grown(Window(10, 40), 20, following=False) == Window(10, 20)
    assert grown(Window(40, 50), 3, following=True) == Window(0, 3)
    assert grown(Window(0, 5), 0, following=True) == Window(0, 0)
    assert tail(MOUNTED + 1) == Window(1, MOUNTED + 1)


def test_a_turn_that_is_jumped_to_has_others_around_it_and_high_screens_are_filled():
    half = MOUNTED // 2
    assert around(50, 100) == Window(50 - half, 50 + half)
    assert around(0, 100) == Window(0, MOUNTED)
    assert around(99, 100) == Window(100 - MOUNTED, 100)
    assert around(1, 3) == Window(0, 3)
    assert filling(24) == MOUNTED and filling(200) == 52
    assert tail(100, filling(200)).size == 52


def cut_all(text, size):
    pieces = []
    while cut := settled_markdown(text, size):
        pieces.append(text[:cut])
        text = text[cut:]
    return [*pieces, text]


def test_markdown_is_never_cut_inside_a_fence_a_list_or_a_paragraph():
    text = (
        "intro line\n\n```python\na = 1\n\nb = 2\n```\n\n- one\n\n- two\n\n  more of two\n\n"
        "1. x\n\n2. y\n\nparagraph one\ngoes on\n\nparagraph two\n\n> quote\n\nthe end\n"
    )
    pieces = cut_all(text, 1)
    assert "".join(pieces) == text
    assert all(piece.count("```") in (0, 2) for piece in pieces)
    assert any("- one\n\n- two\n\n  more of two" in piece for piece in pieces)
    assert any("1. x\n\n2. y" in piece for piece in pieces)
    assert any("paragraph one\ngoes on\n" in piece for piece in pieces)


def test_an_open_fence_is_not_cut_and_plain_text_always_is():
    assert settled_markdown("```\n" + "x\n\n" * 5000) == 0
    assert settled_markdown("short\n\nshort") == 0
    assert settled_plain("x" * 3000) == 2000
    assert settled_plain("x" * 1500 + "\n" + "y" * 3000) == 1501


def test_prompt_history_keeps_the_draft_and_stops_at_its_ends():
    history = PromptHistory().added("a").added("b").added("b")
    assert history.sent == ("a", "b")
    older = history.moved(-1, "draft")
    assert older.text == "b" and older.moved(-1, "b").text == "a"
    assert older.moved(-1, "b").moved(-1, "a") is None
    assert older.moved(1, "b").text == "draft" and history.moved(1, "x") is None


def test_slash_words_are_read_and_paths_are_not():
    assert parse_slash("/export my file.md ") == ("export", "my file.md")
    assert parse_slash("/new") == ("new", "")
    assert parse_slash("/usr/bin?") is None and parse_slash(" /new") is None
    words = [command.word for command in COMMANDS if command.word]
    assert len(words) == len(set(words)) and by_word("nonsense") is None


def test_an_export_holds_the_whole_conversation_and_what_was_not_sent(tmp_path, monkeypatch):
    state = streamed(running("q"), ReasoningDelta("why", 1), AnswerDelta("half", 1))
    state = streamed(state, Finished("cancelled", STATS))
    state = after(state, act.SettingsChanged({}, "Be brief."))
    monkeypatch.setenv("LOCALSEEK_HOME", str(tmp_path))
    text = recover(state, "a draft").read_text()
    parts = ("Be brief.", "## Prompt\n\nq", "why", "half", "cancelled", "a draft")
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


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
