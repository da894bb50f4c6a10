import asyncio
from time import process_time

import pytest
from scripted import DONE, Die, Hold, Scripted, thinking_script

from localseek.errors import EngineError
from localseek.events import AnswerDelta, AnswerWithdrawn, PromptProgress, ReasoningDelta
from localseek.options import GenerationOptions, LoadOptions, Message, Request, Sampling
from localseek.terminal.first_picture import WELCOME, lines
from tui.widgets.reasoning import Reasoning, ReasoningTitle

READ = PromptProgress(20, 20)


async def test_a_prompt_is_sent_and_its_answer_appears(drive):
    async with drive(Scripted(thinking_script("48+57=105\n", "It is **605**."))) as d:
        await d.ready()
        await d.send("What is 348 + 257?")
        await d.ended()
        shown = d.screen_text()
        assert "What is 348 + 257?" in shown
        assert "It is 605." in shown
        assert "Thought for" in shown and "40 tokens" in shown
        assert "48+57=105" not in shown, "the reasoning folds when the answer starts"
        assert "41.2 tok/s" in shown and "context 80/4,096" in shown
        assert "1.0 drafts, 90% right" in shown
        assert "nano · ready" in shown and "⊘ offline" in shown
        assert d.app.chat.prompt.text == ""


async def test_an_answer_that_was_reasoning_moves_into_the_panel(drive):
    held = Hold()
    text = AnswerDelta("2 and 2\n\n" * 3, 5)
    script = [READ, text, held, AnswerWithdrawn(), AnswerDelta("**4**", 1), DONE]
    async with drive(Scripted(script)) as d:
        await d.ready()
        await d.send("2 + 2, do not think")
        await d.until(lambda: "2 and 2" in d.screen_text(), "the text is shown as an answer")
        held.release()
        await d.ended()
        shown = d.screen_text()
    assert "2 and 2" not in shown and "Thought" in shown
    assert d.app.state.turns[0].reply.reasoning == "2 and 2\n\n2 and 2\n\n2 and 2"
    assert [line.strip() for line in shown.splitlines() if line.strip() == "4"] == ["4"]


async def test_the_second_request_carries_answers_and_options_but_no_reasoning(drive):
    scripted = Scripted(thinking_script("hm\n", "Yes."), thinking_script("hm\n", "No."))
    options = GenerationOptions(
        system="Be brief.",
        load=LoadOptions(ctx=64),
        request=Request((), Sampling(temperature=0.1), max_tokens=9, think=False),
    )
    async with drive(scripted, options=options) as d:
        await d.ready()
        await d.send("one")
        await d.ended()
        await d.send("two")
        await d.ended(2)
    assert scripted.options.ctx == 64
    request = scripted.requests[1]
    assert request.messages == (
        Message("system", "Be brief."),
        Message("user", "one"),
        Message("assistant", "Yes. "),
        Message("user", "two"),
    )
    assert (request.sampling.temperature, request.max_tokens, request.think) == (0.1, 9, False)


async def test_reasoning_is_open_while_thinking_and_folds_once_when_the_answer_starts(drive):
    thinking, answering = Hold(), Hold()
    script = [
        READ, ReasoningDelta("first line\n", 5), thinking,
        AnswerDelta("The ", 1), answering, AnswerDelta("end.", 1), DONE,
    ]  # fmt: skip
    async with drive(Scripted(script)) as d:
        await d.ready()
        await d.send("why?")
        await d.until(lambda: "first line" in d.screen_text(), "the reasoning is shown")
        assert "Thinking…" in d.screen_text()
        thinking.release()
        await d.until(lambda: "The" in d.screen_text(), "the answer is shown")
        assert "first line" not in d.screen_text()
        await d.pilot.click(ReasoningTitle)
        await d.until(lambda: "first line" in d.screen_text(), "the click opened it")
        answering.release()
        await d.ended()
        assert "first line" in d.screen_text(), "the user's click wins over more answer"


async def test_a_panel_that_the_user_folded_while_thinking_stays_folded_and_is_not_fed(drive):
    thinking = Hold()
    script = [
        READ, ReasoningDelta("seen\n", 5), thinking, ReasoningDelta("unseen\n", 5),
        AnswerDelta("Done.", 1), DONE,
    ]  # fmt: skip
    async with drive(Scripted(script)) as d:
        await d.ready()
        await d.send("why?")
        await d.until(lambda: "seen" in d.screen_text())
        await d.pilot.click(ReasoningTitle)
        await d.until(lambda: "seen" not in d.screen_text())
        thinking.release()
        await d.ended()
        assert d.app.query_one(Reasoning)._fed < len("seen\nunseen")
        await d.pilot.press("ctrl+l")
        await d.until(lambda: "unseen" in d.screen_text(), "ctrl+l unfolds and shows it all")


async def test_escape_stops_the_answer_and_keeps_what_is_there(drive):
    hold = Hold()
    script = [READ, AnswerDelta("Partial text", 2), hold, AnswerDelta(" never", 1), DONE]
    async with drive(Scripted(script)) as d:
        await d.ready()
        await d.send("go")
        await d.until(lambda: "Partial text" in d.screen_text())
        await d.pilot.press("escape")
        await d.ended()
        assert d.phases() == ["stopped"]
        shown = d.screen_text()
        assert "Partial text" in shown and "never" not in shown and "Stopped." in shown
        assert d.app.chat.prompt.has_focus


async def test_prompts_can_be_typed_and_queued_while_the_model_loads(drive):
    gate = Hold()
    async with drive(Scripted(thinking_script("", "Hello."), load_gate=gate)) as d:
        await d.until(gate.reached.is_set)
        await d.until(lambda: "loading… 40%" in d.screen_text(), "the percentage is shown")
        await d.pilot.press("h", "i", "enter")
        assert d.phases() == ["waiting"]
        assert "Waiting for the model" in d.screen_text()
        gate.release()
        await d.ended()
        assert "Hello." in d.screen_text()


async def test_escape_takes_a_waiting_prompt_back(drive):
    gate = Hold()
    async with drive(Scripted(load_gate=gate)) as d:
        await d.until(gate.reached.is_set)
        await d.send("too early")
        await d.pilot.press("escape")
        assert d.phases() == []
        assert d.app.chat.prompt.text == "too early"
        gate.release()


async def test_engine_death_is_shown_and_the_model_can_be_restarted(drive):
    scripted = Scripted([READ, AnswerDelta("Half an", 2), Die()], thinking_script("", "All of it."))
    async with drive(scripted) as d:
        await d.ready()
        await d.send("go")
        await d.until(lambda: d.app.state.model.phase == "dead")
        shown = d.screen_text()
        assert "Half an" in shown, "the text stays"
        assert "The engine died of signal 9." in shown
        assert "Restart the model" in shown
        await d.pilot.press("enter")
        await d.ready()
        assert len(scripted.engines) == 2
        assert "Half an" in d.screen_text()
        await d.send("/retry")
        await d.ended()
        assert "All of it." in d.screen_text()


async def test_the_next_prompt_restarts_a_dead_engine_and_unsent_text_is_kept(drive):
    hold = Hold()
    scripted = Scripted([READ, hold, Die()], thinking_script("", "Back again."))
    async with drive(scripted) as d:
        await d.ready()
        await d.send("go")
        await d.until(hold.reached.is_set)
        await d.pilot.press("n", "e", "x", "t")
        hold.release()
        await d.until(lambda: d.app.state.model.phase == "dead")
        assert d.app.chat.prompt.text == "next"
        assert d.app.chat.prompt.has_focus, "focus is not taken from someone who types"
        await d.pilot.press("enter")
        await d.ended(2)
        assert "Back again." in d.screen_text()


async def test_an_engine_that_died_unseen_is_started_again_by_the_next_prompt(drive):
    scripted = Scripted(thinking_script("", "One."), thinking_script("", "Two."))
    async with drive(scripted) as d:
        await d.ready()
        await d.send("first")
        await d.ended()
        scripted.engines[0].alive = False
        await d.send("second")
        await d.ended(2)
        assert d.phases() == ["done", "done"] and len(scripted.engines) == 2


async def test_a_model_that_cannot_be_loaded_says_why(drive):
    error = EngineError("The file ends too early.", "Download it again.")
    async with drive(Scripted(thinking_script("", "Hi."), load_error=error)) as d:
        await d.until(lambda: d.app.state.model.phase == "failed")
        assert "The file ends too early. Download it again." in d.screen_text()
        await d.send("hello?")
        await d.ended()
        assert "Hi." in d.screen_text()


HOSTILE = "[bold]B[/bold] [/] [@click=app.quit]X[/] [red]R $text-error"


async def test_markup_and_control_characters_in_engine_text_are_inert(drive):
    script = [
        READ, ReasoningDelta(HOSTILE + "\x1b[31m\x07\n", 5),
        AnswerDelta(HOSTILE + "\x1b[2J\ud800\u202e <b>T</b>", 5), DONE,
    ]  # fmt: skip
    options = GenerationOptions("[red]M\x1b")
    async with drive(Scripted(script), options=options) as d:
        await d.ready()
        await d.send(HOSTILE + " prompt")
        await d.ended()
        await d.pilot.press("ctrl+l")
        shown = d.screen_text()
        assert shown.count(HOSTILE) == 4, "the title is one of them"
        assert "[31m" in shown and "[2J\ufffd <b>T</b>" in shown
        assert "[red]M" in shown
        assert not any(ord(c) < 32 and c != "\n" for c in shown)


async def test_links_are_copied_and_never_opened(drive, monkeypatch):
    opened = []
    script = [READ, AnswerDelta("[look](https://example.org/x)", 5), DONE]
    async with drive(Scripted(script)) as d:
        monkeypatch.setattr(d.app, "open_url", lambda *a, **k: opened.append(a))
        await d.ready()
        await d.send("link?")
        await d.ended()
        await d.pilot.click("MarkdownParagraph", offset=(1, 0))
        await d.until(lambda: d.app.clipboard == "https://example.org/x")
        assert opened == []


@pytest.mark.parametrize("width", [40, 20])
async def test_narrow_terminals_work(drive, width):
    async with drive(Scripted(thinking_script("hm\n", "Short **answer**.")), (width, 14)) as d:
        await d.ready()
        await d.send("A prompt that is longer than a narrow line of text")
        await d.ended()
        shown = d.screen_text()
        assert "answer" in shown and "Thought" in shown
        assert all(len(row) <= width for row in shown.splitlines())


async def test_cjk_and_emoji_are_kept_whole(drive):
    text = "量化模型在本地运行。👩‍🔬 " * 12
    async with drive(Scripted([READ, AnswerDelta(text, 9), DONE]), (40, 40)) as d:
        await d.ready()
        await d.send("中文提示")
        await d.ended()
        shown = d.screen_text()
        assert "中文提示" in shown
        assert "".join(shown.split()).count("量化模型在本地运行") == 12


async def test_an_answer_of_100000_characters_leaves_the_prompt_quick(drive):
    paragraph = "Some **bold** words and `code` that fill a line or two of text. " * 24 + "\n\n"
    piece = [AnswerDelta(paragraph, 130) for _ in range(100_000 // len(paragraph) + 1)]
    async with drive(Scripted([READ, *piece, DONE])) as d:
        await d.ready()
        await d.send("a long one")
        slowest = 0.0  # in CPU time, which does not count what else the machine does
        for key in "hello":
            pressed = process_time()
            before = d.app.chat.prompt.text
            d.app.simulate_key(key)
            while d.app.chat.prompt.text == before:
                await asyncio.sleep(0.001)
            slowest = max(slowest, process_time() - pressed)
        await d.ended()
        assert len(d.app.state.last_answer) >= 100_000
        assert d.app.chat.prompt.text == "hello"
        assert slowest < 1.0, f"a key took {slowest:.2f} s"


@pytest.mark.parametrize("size", [(100, 30), (40, 14), (140, 40)])
async def test_the_first_picture_stands_where_the_app_has_its_parts(drive, size):
    gate = Hold()
    async with drive(Scripted(load_gate=gate), size) as d:
        await d.until(gate.reached.is_set)
        shown = d.screen_text().splitlines()
        drawn = lines("nano", WELCOME, *size)
        box = next(row for row, line in enumerate(drawn) if "╭" in line)
        assert [line.rstrip() for line in shown[box : box + 3]] == drawn[box : box + 3]
        assert shown[box - 1].strip() == drawn[box - 1].strip()
        assert shown[box + 3].startswith(drawn[box + 3].partition(" ·")[0])
        gate.release()


async def test_escape_takes_a_queued_prompt_back_before_it_stops_the_answer(drive):
    hold = Hold()
    async with drive(Scripted([READ, AnswerDelta("On", 1), hold, DONE])) as d:
        await d.ready()
        await d.send("first")
        await d.until(hold.reached.is_set)
        await d.send("queued")
        await d.pilot.press("escape")
        assert d.phases() == ["answering"] and d.app.chat.prompt.text == "queued"
        await d.pilot.press("escape")
        await d.ended()
        assert d.phases() == ["stopped"]
