import pytest
from scripted import DONE, Hold, Scripted
from textual import events

from localseek.events import AnswerDelta, PromptProgress
from localseek.store.history.history import History
from localseek.store.history.records import title_of
from localseek.text.conversation import Reply

READ = PromptProgress(20, 20)


def fill(*conversations):
    """Save conversations of (prompt, answer) pairs, the last one used last."""
    with History() as history:
        for pairs in conversations:
            number, leaf = history.new(pairs[0], "nano"), None
            for prompt, answer in zip(pairs[::2], pairs[1::2], strict=True):
                asked = history.add_prompt(number, leaf, prompt)
                leaf = history.begin_answer(number, asked, "nano")
                history.write_answer(leaf, Reply("", answer, "stop"))


async def listed(d):
    await d.pilot.press("ctrl+r")
    await d.said("search titles and texts")
    await d.quiet()


async def test_a_conversation_is_found_by_its_text_and_resumed_where_it_was_found(drive):
    fill(("about cats", "Meow."), ("北京天气", "今天天气很好。"), ("about dogs", "Woof."))
    scripted = Scripted([READ, AnswerDelta("Sunny.", 1), DONE])
    async with drive(scripted) as d:
        await d.ready()
        await listed(d)
        shown = d.screen_text()
        assert shown.index("about dogs") < shown.index("北京天气") < shown.index("about cats")
        await d.pilot.press(*"很好")
        await d.until(lambda: "about dogs" not in d.screen_text())
        assert "今天天气很好。" in d.screen_text()
        await d.pilot.press("enter")
        await d.ended()
        assert "北京天气" in d.screen_text().splitlines()[0], "the title is over it"
        await d.send("and tomorrow?")
        await d.ended(2)
    asked = [message.content for message in scripted.requests[0].messages]
    assert asked == ["北京天气", "今天天气很好。", "and tomorrow?"]


async def test_conversations_are_renamed_pinned_archived_and_deleted(drive):
    fill(("one", "1"), ("two", "2"), ("three", "3"))
    async with drive(Scripted()) as d:
        await d.ready()
        await listed(d)
        await d.pilot.press("f2")
        await d.pilot.press(*"drei", "enter")
        await d.said("drei")
        await d.quiet()
        await d.pilot.press("down", "f3")
        await d.said("★ two")
        await d.quiet()
        await d.pilot.press("end", "down", "down", "f4")
        await d.until(lambda: "one" not in d.screen_text().replace("one of", ""))
        await d.quiet()
        await d.pilot.press("f6")
        await d.said("Archived conversations.")
        await d.quiet()
        assert "one" in d.screen_text() and "drei" not in d.screen_text()
        await d.pilot.press("f8")
        await d.said("F8 again deletes “one” for good.")
        await d.pilot.press("f8")
        await d.said("Nothing is archived.")
        await d.pilot.press("escape")
    with History() as history:
        found = history.conversations(archived=None)
    assert [(one.title, one.pinned) for one in found] == [("two", True), ("drei", False)]


async def test_renaming_can_be_left_and_the_title_on_the_screen_follows(drive):
    fill(("one", "1"))
    async with drive(Scripted()) as d:
        await d.ready()
        await listed(d)
        await d.pilot.press("enter")
        await d.ended()
        await listed(d)
        await d.pilot.press("f2", "x", "escape")
        await d.quiet()
        await d.pilot.press("f2", *"eins", "enter")
        await d.quiet()
        await d.pilot.press("escape")
        assert d.screen_text().splitlines()[0].strip() == "eins"


async def test_deleting_the_conversation_on_the_screen_empties_it(drive):
    async with drive(Scripted([READ, AnswerDelta("Gone soon.", 1), DONE])) as d:
        await d.ready()
        await d.send("ask")
        await d.ended()
        await listed(d)
        await d.pilot.press("f8", "f8")
        await d.said("No conversation is saved yet.")
        await d.pilot.press("escape")
        assert d.app.state.turns == () and "Gone soon." not in d.screen_text()


async def test_a_temporary_conversation_is_marked_unsaved_and_lost_only_when_asked_twice(
    drive, temporary_home
):
    scripted = Scripted([READ, AnswerDelta("Whispered.", 1), DONE])
    async with drive(scripted, temporary=True) as d:
        await d.ready()
        assert "temporary" in d.screen_text()
        await d.send("psst")
        await d.ended()
        await d.pilot.press("ctrl+n")
        await d.said("Once more")
        assert "Whispered." in d.screen_text()
        await d.pilot.press("ctrl+n")
        await d.until(lambda: d.app.state.turns == ())
        assert "temporary" not in d.screen_text().splitlines()[-2]
    assert scripted.kept == 0, "the engine kept nothing of it either"
    for file in temporary_home.rglob("*"):
        assert not file.is_file() or b"psst" not in file.read_bytes(), file


async def test_what_the_engine_read_is_kept_for_the_conversation_that_it_was_read_for(drive):
    scripted = Scripted([READ, AnswerDelta("A.", 1), DONE], [READ, AnswerDelta("B.", 1), DONE])
    async with drive(scripted) as d:
        await d.ready()
        await d.send("a")
        await d.ended()
        assert scripted.kept == 0, "only when another one takes its place"
        await d.send("/new")
        await d.send("b")
        await d.ended()
        assert scripted.kept == 1
    assert scripted.kept == 2, "and at the end"
    assert all(not request.keep for request in scripted.requests)
    with History() as history:
        assert history.delete([1]).sequences == ("1.sequence",)
        assert history.delete([2]).sequences == ("2.sequence",)


async def test_switching_in_the_middle_of_an_answer_keeps_what_was_there(drive):
    fill(("old", "Old answer."))
    hold = Hold()
    async with drive(Scripted([READ, AnswerDelta("Half of it", 1), hold, DONE])) as d:
        await d.ready()
        await d.send("new one")
        await d.said("Half of it")
        await d.pilot.press("ctrl+r")
        await d.said("old")
        await d.pilot.press("down", "enter")
        await d.said("Old answer.")
        assert d.scripted.cancels >= 1
    with History() as history:
        branch = history.branch(history.named("new one").leaf)
    assert [one.content for one in branch] == ["new one", "Half of it"]
    assert branch[-1].finish_reason == "cancelled"


async def test_prompts_of_earlier_runs_come_back_with_the_arrow_keys(drive):
    fill(("from before", "Yes."))
    async with drive(Scripted()) as d:
        await d.ready()
        await d.quiet()
        await d.pilot.press("up")
        assert d.app.chat.prompt.text == "from before"
        await d.pilot.press("down")
        assert d.app.chat.prompt.text == ""


async def test_a_damaged_history_is_said_and_the_app_still_talks(drive, temporary_home):
    folder = temporary_home / "history"
    folder.mkdir(parents=True)
    (folder / "history.sqlite3").write_bytes(b"nonsense" * 1000)
    async with drive(Scripted([READ, AnswerDelta("Still here.", 1), DONE])) as d:
        await d.ready()
        await d.said("is damaged")
        await d.send("hello?")
        await d.ended()
        assert "Still here." in d.screen_text() and "not saved" in d.screen_text()
        await d.pilot.press("ctrl+r")
        await d.said("Move it elsewhere")


async def test_titles_with_markup_wide_letters_and_nothing_are_shown_as_they_are(drive):
    fill(("[bold]x[/] 中文標題 👩‍🔬", "a"), ("   ", "b"))
    async with drive(Scripted(), (40, 20)) as d:
        await d.ready()
        await listed(d)
        shown = d.screen_text()
        assert "[bold]x[/] 中文標題" in shown and "(no title)" in shown
        assert title_of("  ") == ""


async def test_the_palette_finds_conversations_and_models(drive):
    fill(("about zebras", "Striped."))
    async with drive(Scripted()) as d:
        await d.ready()
        await d.quiet()
        await d.pilot.press("ctrl+p", *"zebras")
        await d.said("Open this conversation.")
        await d.pilot.press("down", "enter")
        await d.said("Striped.")


async def test_two_windows_see_each_others_conversations(drive):
    async with drive(Scripted([READ, AnswerDelta("One.", 1), DONE])) as first:
        await first.ready()
        await first.send("from the first window")
        await first.ended()
        await first.quiet()
        async with drive(Scripted()) as second:
            await second.ready()
            await listed(second)
            assert "from the first window" in second.screen_text()


async def test_deleting_the_conversation_that_is_being_answered_stops_the_engine(drive):
    hold = Hold()
    scripted = Scripted(
        [READ, AnswerDelta("Gone", 1), hold, DONE], [READ, AnswerDelta("Next.", 1), DONE]
    )
    async with drive(scripted) as d:
        await d.ready()
        await d.send("ask")
        await d.until(hold.reached.is_set)
        await d.pilot.press("ctrl+r")
        await d.said("f8 Delete")
        await d.until(lambda: d.app.screen.marked)
        await d.pilot.press("f8", "f8")
        await d.until(lambda: d.app.state.running is None)
        await d.pilot.press("escape")
        await d.send("next")
        await d.ended()
        assert "Next." in d.screen_text()


async def test_what_another_window_asked_is_there_when_it_is_opened_again(drive):
    fill(("one", "1"))
    async with drive(Scripted()) as d:
        await d.ready()
        await listed(d)
        await d.pilot.press("enter")
        await d.ended()
        with History() as history:
            leaf = history.conversation(1).leaf
            asked = history.add_prompt(1, leaf, "from elsewhere")
            history.write_answer(history.begin_answer(1, asked, "nano"), Reply("", "2", "stop"))
        await listed(d)
        await d.pilot.press("enter")
        await d.said("from elsewhere")


async def test_a_home_that_cannot_be_made_is_said_in_the_list_too(drive, temporary_home):
    temporary_home.write_text("a file")
    async with drive(Scripted()) as d:
        await d.ready()
        await d.until(lambda: "cannot be made" in d.app.state.unsaved)
        await d.pilot.press("ctrl+r")
        await d.until(lambda: "cannot be made" in str(d.app.screen.hint.content))


@pytest.mark.parametrize("size", [(120, 35), (100, 24), (40, 20)])
async def test_with_many_conversations_the_hint_and_the_keys_stay_on_the_screen(drive, size):
    fill(*((f"question {n}", "a") for n in range(45)))
    async with drive(Scripted(), size) as d:
        await d.ready()
        await listed(d)
        assert "esc Close" in d.screen_text()
        await d.pilot.press("f8")
        await d.said("F8 again")


async def test_only_two_f8_in_a_row_delete(drive):
    fill(("one", "1"), ("two", "2"))
    async with drive(Scripted()) as d:
        await d.ready()
        await listed(d)
        for keys in (("f8", "f3"), ("f8", "down"), ("f8", "up"), ("f8", "f6", "f6"), ("f8", "x")):
            await d.pilot.press(*keys)
            await d.quiet()
        await d.pilot.press("backspace")
        await d.quiet()
        await d.pilot.press("f8")
        await d.said("F8 again")
    with History() as history:
        assert len(history.conversations()) == 2


async def test_what_is_typed_before_the_list_has_the_cursor_is_searched_for(drive):
    fill(("about cats", "a"), ("about dogs", "b"))
    async with drive(Scripted()) as d:
        await d.ready()
        await d.quiet()
        d.app.action_conversations()
        screen = d.app.screen
        for key in "cats":
            screen.post_message(events.Key(key, key))
        await d.until(lambda: screen.line.value == "cats")
        await d.until(lambda: "about dogs" not in d.screen_text())
