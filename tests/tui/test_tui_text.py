
from states import STATS, after, running, streamed

from localseek.events import (
    AnswerDelta,
    Finished,
    ReasoningDelta,
)
from tui.commands import COMMANDS, by_word, parse_slash
from tui.state import actions as act
from tui.state.window import MOUNTED, PAGE, Window, around, earlier, filling, grown, later, tail
from tui.state.wording import seconds
from tui.text.export import recover
from tui.text.prompts import PromptHistory
from tui.text.segments import settled_markdown, settled_plain
from tui.threads.session import merged


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


def test_durations_read_well():
    assert [seconds(s) for s in (0.42, 1, 59.9, 60, 185)] == [
        "0.4 s", "1 s", "59 s", "1 min 00 s", "3 min 05 s",
    ]  # fmt: skip
