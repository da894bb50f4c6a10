from dataclasses import replace

import pytest
from scripted import DONE, STATS, Hold, Scripted, thinking_script

from localseek.events import AnswerDelta, Finished, PromptProgress, ReasoningDelta
from localseek.options import GenerationOptions, Request, Sampling
from tui.state.actions import Selected
from tui.state.views import TurnView

READ = PromptProgress(20, 20)
CODE = "Here:\n\n```python\nprint(1)\n```\n\nand\n\n```\nls -l\n```\n"


def answers(*texts):
    return Scripted(*([READ, AnswerDelta(text, 2), DONE] for text in texts))


def stored(d):
    """What another program finds in the history: texts of the branch at which it was left."""
    from localseek.store.history.history import History

    with History() as history:
        return [one.content for one in history.branch(history.named("").leaf)]


async def test_a_retry_keeps_both_answers_and_brackets_switch_between_them(drive):
    async with drive(answers("First.", "Second.")) as d:
        await d.ready()
        await d.send("ask")
        await d.ended()
        await d.pilot.press("escape", "j", "r")
        await d.ended()
        shown = d.screen_text()
        assert "Second." in shown and "First." not in shown and "‹ 2 of 2 ›" in shown
        await d.pilot.press("[")
        await d.said("First.")
        assert "‹ 1 of 2 ›" in d.screen_text()
        await d.quiet()
        assert stored(d) == ["ask", "First."]
        await d.pilot.press("]")
        await d.said("Second.")


async def test_an_edited_prompt_is_sent_anew_and_the_old_branch_can_be_seen(drive):
    async with drive(answers("One.", "Two.", "Edited.")) as d:
        await d.ready()
        await d.send("first")
        await d.ended()
        await d.send("second")
        await d.ended(2)
        await d.pilot.press("escape", "k", "k", "e")
        prompt = d.app.chat.prompt
        assert prompt.text == "first" and "editing an earlier prompt" in d.screen_text()
        await d.pilot.press("escape")
        assert prompt.text == "" and "editing" not in d.screen_text()
        await d.pilot.press("escape", "escape")
        await d.send("/edit")
        assert prompt.text == "second", "the last prompt, where none is chosen"
        await d.pilot.press("escape", "escape", "g", "e", "!", "enter")
        await d.ended(1)
        assert [t.prompt for t in d.app.state.turns] == ["first!"]
        assert [m.content for m in d.scripted.requests[-1].messages] == ["first!"]
        await d.pilot.press("escape", "j", "[")
        await d.said("Two.")
        await d.quiet()
        assert stored(d) == ["first", "One.", "second", "Two."]


async def test_a_fork_goes_on_from_any_message_and_escape_leaves_it(drive):
    async with drive(answers("One.", "Two.", "Other.")) as d:
        await d.ready()
        for count, text in enumerate(("first", "second"), 1):
            await d.send(text)
            await d.ended(count)
        await d.pilot.press("escape", "k", "k", "f")
        assert "begins a new branch here" in d.screen_text() and "Two." not in d.screen_text()
        assert d.app.chat.prompt.has_focus
        await d.pilot.press("escape")
        await d.said("Two.")
        await d.pilot.press("escape", "k", "k", "f")
        await d.send("third")
        await d.ended(2)
        asked = [m.content for m in d.scripted.requests[-1].messages]
        assert asked == ["first", "One.", "third"]
        assert "‹ 2 of 2 ›" in d.screen_text()
        await d.quiet()
        assert stored(d) == ["first", "One.", "third", "Other."]


async def test_a_stopped_answer_goes_on_where_it_was(drive):
    hold = Hold()
    scripted = Scripted(
        [READ, ReasoningDelta("why", 3), AnswerDelta("Half", 1), hold, DONE],
        [READ, AnswerDelta(" and half.", 2), DONE],
    )
    async with drive(scripted) as d:
        await d.ready()
        await d.send("ask")
        await d.until(hold.reached.is_set)
        await d.pilot.press("escape")
        await d.ended()
        assert "Stopped. /continue lets it go on." in d.screen_text()
        await d.pilot.press("escape", "full_stop")
        await d.ended()
        assert "Half and half." in d.screen_text() and "Stopped" not in d.screen_text()
        await d.quiet()
        assert stored(d) == ["ask", "Half and half."]
    request = scripted.requests[-1]
    assert (request.begun_reasoning, request.begun_answer) == ("why", "Half")
    assert [m.content for m in request.messages] == ["ask"]


async def test_an_answer_cut_at_its_limit_goes_on_by_a_word_and_a_whole_one_does_not(drive):
    cut = [READ, AnswerDelta("One", 1), Finished("length", STATS)]
    scripted = Scripted(cut, [READ, AnswerDelta(" two.", 1), DONE])
    async with drive(scripted) as d:
        await d.ready()
        await d.send("count")
        await d.ended()
        await d.send("/continue")
        await d.ended()
        assert "One two." in d.screen_text()
        await d.send("/continue")
        await d.said("has nothing to do now")
        assert d.app.chat.prompt.text == "/continue"


async def test_code_blocks_are_copied_by_number(drive):
    async with drive(answers(CODE)) as d:
        await d.ready()
        await d.send("code?")
        await d.ended()
        await d.pilot.press("escape", "c")
        assert d.app.clipboard == "print(1)"
        await d.said("block 1 of 2 copied")
        await d.send("/code 2")
        assert d.app.clipboard == "ls -l"
        await d.send("/code 3")
        await d.said("There are 2 code blocks")


async def test_copied_text_goes_to_the_systems_clipboard_too(drive):
    taken = []
    async with drive(answers("Copy me."), copy=lambda text: bool(taken.append(text))) as d:
        await d.ready()
        await d.send("ask")
        await d.ended()
        await d.pilot.press("escape", "y")
        await d.until(lambda: taken == ["Copy me."])
        await d.said("Answer copied.")


async def test_a_chosen_answer_is_the_one_that_is_copied(drive):
    async with drive(answers("One.", "Two.")) as d:
        await d.ready()
        await d.send("a")
        await d.ended()
        await d.send("b")
        await d.ended(2)
        await d.pilot.press("escape", "k", "k", "y")
        assert d.app.clipboard == "One."
        await d.pilot.click("#prompt")
        await d.pilot.click("PromptText")
        assert d.app.state.selected == d.app.state.turns[0].id, "a click chooses too"


async def test_space_folds_the_reasoning_of_the_chosen_turn_only(drive):
    script = thinking_script("because\n", "So.")
    async with drive(Scripted(script, script)) as d:
        await d.ready()
        await d.send("a")
        await d.ended()
        await d.send("b")
        await d.ended(2)
        await d.pilot.press("escape", "k", "k", "space")
        assert [turn.folded for turn in d.app.state.turns] == [False, True]
        await d.said("because")


async def test_text_is_found_in_the_conversation(drive):
    async with drive(answers("A zebra.", "Nothing.", "Another ZEBRA.")) as d:
        await d.ready()
        for count, text in enumerate(("a", "b", "c"), 1):
            await d.send(text)
            await d.ended(count)
        await d.pilot.press("ctrl+f", *"zebra")
        await d.said("2 of 2")
        assert d.app.state.selected == d.app.state.turns[2].id
        await d.pilot.press("enter")
        await d.said("1 of 2")
        assert d.app.state.selected == d.app.state.turns[0].id
        await d.pilot.press("x")
        await d.said("nowhere")
        await d.pilot.press("escape")
        assert d.app.chat.transcript.has_focus and "nowhere" not in d.screen_text()
        await d.send("/find Nothing")
        await d.said("1 of 1")


async def test_a_long_prompt_is_cut_until_it_is_clicked(drive):
    async with drive(answers("Fine."), (100, 60)) as d:
        await d.ready()
        await d.send("\n".join(f"line {n}" for n in range(40)))
        await d.ended()
        assert "more characters" in d.screen_text() and "line 30" not in d.screen_text()
        await d.pilot.click("PromptText")
        await d.said("line 30")


@pytest.mark.parametrize("word", ["/retry", "/fork", "/copy", "/code", "/find x", "/stats"])
async def test_words_for_answers_say_so_when_there_is_none(drive, word):
    async with drive(Scripted()) as d:
        await d.ready()
        await d.send(word)
        await d.said("has nothing to do now")


async def test_settings_of_the_conversation_go_into_its_requests_and_stay_with_it(drive):
    options = GenerationOptions(request=Request((), Sampling(temperature=0.1)))
    async with drive(answers("A.", "B.", "C."), options=options) as d:
        await d.ready()
        await d.pilot.press("f2")
        await d.said("Settings of this conversation")
        await d.pilot.press(*"Be brief.")
        await d.pilot.press("tab", *"7", "tab", "tab", *"9x")
        assert "temperature is a number" in d.screen_text()
        await d.pilot.press("f2")
        assert "Settings of this conversation" in d.screen_text(), "it stays open"
        await d.pilot.press("backspace", "f2")
        await d.send("one")
        await d.ended()
        await d.pilot.press("ctrl+n")
        await d.send("two")
        await d.ended()
    first, second = d.scripted.requests
    assert (first.max_tokens, first.sampling.temperature) == (7, 9)
    assert first.messages[0].content == second.messages[0].content == "Be brief."
    assert (second.max_tokens, second.sampling.temperature) == (None, 0.1)


async def test_presets_are_system_prompts_by_name(drive):
    from tui.preferences import Preferences

    preferences = Preferences(presets={"translator": "Translate into Chinese."})
    async with drive(answers("A."), preferences=preferences) as d:
        await d.ready()
        await d.send("/system translator")
        await d.send("one")
        await d.ended()
        assert d.scripted.requests[0].messages[0].content == "Translate into Chinese."
        await d.send("/system")
        assert d.app.state.conversation.system == ""


async def test_an_edited_prompt_waits_for_the_answer_that_runs(drive):
    hold = Hold()
    scripted = Scripted(
        [READ, AnswerDelta("One.", 1), DONE], [READ, AnswerDelta("Tw", 1), hold, DONE]
    )
    async with drive(scripted) as d:
        await d.ready()
        await d.send("first")
        await d.ended()
        await d.pilot.press("escape", "j", "e", "!")
        prompt = d.app.chat.prompt
        d.app.action_retry()
        await d.until(hold.reached.is_set)
        await d.pilot.press("enter")
        await d.said("An answer is running")
        assert prompt.text == "first!" and prompt.editing is not None
        hold.release()
        await d.ended()
        assert d.phases() == ["done"] and len(d.app.state.others) == 1


async def test_what_was_being_written_comes_back_after_an_edit(drive):
    async with drive(answers("One.", "Edited.")) as d:
        await d.ready()
        await d.send("first")
        await d.ended()
        await d.pilot.press(*"draft", "escape", "j", "e")
        assert d.app.chat.prompt.text == "first"
        await d.pilot.press("escape")
        assert d.app.chat.prompt.text == "draft"
        await d.pilot.press("escape", "e", "!", "enter")
        await d.ended()
        assert d.app.chat.prompt.text == "draft"
        assert [t.prompt for t in d.app.state.turns] == ["first!"]


async def test_two_quick_enters_send_one_prompt(drive):
    async with drive(answers("One.")) as d:
        await d.ready()
        d.app.chat.prompt.put("hello")
        d.app.simulate_key("enter")
        d.app.simulate_key("enter")
        d.app.simulate_key("x")
        await d.ended()
        assert [t.prompt for t in d.app.state.turns] == ["hello"]
        assert d.app.chat.prompt.text == "x"


async def test_a_defect_in_the_engines_thread_ends_the_answer_and_can_be_left(drive):
    scripted = answers("Back.")

    class Broken(type(scripted)):
        def __call__(self, options):
            engine = super().__call__(options)
            if len(self.engines) == 1:
                engine.generate = lambda request: 1 / 0
            return engine

    scripted.__class__ = Broken
    async with drive(scripted) as d:
        await d.ready()
        await d.send("go")
        await d.until(lambda: d.app.state.model.phase == "dead")
        assert d.phases() == ["failed"] and "ZeroDivisionError" in d.screen_text()
        await d.send("/retry")
        await d.ended()
        assert "Back." in d.screen_text()


async def test_a_variant_of_an_early_message_stays_on_the_screen(drive):
    async with drive(Scripted()) as d:
        await d.ready()
        turns = tuple(
            TurnView(n, f"prompt {n}.", "stopped", parent=n - 1 if n > 1 else None)
            for n in range(1, 61)
        )
        other = TurnView(99, "another first prompt", "stopped")
        d.app.state = replace(d.app.state, turns=(other,), others=turns, next_id=100)
        d.app.dispatch(Selected(99))
        await d.pilot.press("escape")
        await d.said("another first prompt")
        await d.pilot.press("[")
        await d.said("prompt 1.")
        assert d.app.state.selected == 1 and "‹ 1 of 2 ›" in d.screen_text()
        await d.pilot.press("]")
        await d.said("another first prompt")


async def test_no_step_is_lost_when_keys_come_faster_than_they_are_drawn(drive):
    async with drive(Scripted()) as d:
        await d.ready()
        turns = tuple(TurnView(n, f"prompt {n}.", "stopped") for n in range(40))
        d.app.state = replace(d.app.state, turns=turns, next_id=40)
        d.app.dispatch(Selected(39))
        d.app.chat.transcript.reveal(39)
        for _ in range(30):
            d.app.chat.transcript.action_select(-1)
        await d.until(lambda: d.app.state.selected == 9)
        await d.said("prompt 9.")


async def test_an_answer_without_the_form_that_was_asked_for_says_so(drive):
    schema = '{"type": "array", "uniqueItems": true}'
    options = GenerationOptions(request=Request((), Sampling(schema=schema)))
    async with drive(answers("[1, 1]", "[1, 2]"), options=options) as d:
        await d.ready()
        await d.send("two numbers")
        await d.said("does not fit the schema")
        await d.ended()
        await d.send("two others")
        await d.ended(2)
        assert [len(turn.notices) for turn in d.app.state.turns] == [1, 0]
