from dataclasses import replace

from scripted import DONE, Hold, Scripted, ports_of, thinking_script
from textual import events

from localseek.events import AnswerDelta, PromptProgress
from localseek.options import GenerationOptions
from localseek.store.history import cipher
from localseek.store.history.vault import Vault
from tui.app import LocalseekApp
from tui.running import run_app
from tui.state.actions import Selected, Submitted
from tui.state.views import TurnView
from tui.state.window import MOUNTED

READ = PromptProgress(20, 20)


async def test_new_conversation_empties_the_screen_and_the_old_one_is_resumed(drive):
    async with drive(Scripted(thinking_script("", "Hello there."))) as d:
        await d.ready()
        await d.send("hi")
        await d.ended()
        await d.pilot.press("ctrl+n")
        assert "Hello there." not in d.screen_text()
        await d.pilot.press("ctrl+r")
        await d.said("esc Close")
        await d.quiet()
        await d.pilot.press("enter")
        await d.ended()
        assert "Hello there." in d.screen_text()


async def test_new_conversation_in_the_middle_of_an_answer_stops_it(drive):
    hold = Hold()
    scripted = Scripted([READ, AnswerDelta("Old", 1), hold, DONE], thinking_script("", "Fresh."))
    async with drive(scripted) as d:
        await d.ready()
        await d.send("old")
        await d.until(hold.reached.is_set)
        await d.send("/new")
        await d.send("new")
        await d.ended()
        assert scripted.cancels >= 1
        assert "Fresh." in d.screen_text() and "Old" not in d.screen_text()
        assert [m.content for m in scripted.requests[1].messages] == ["new"]


async def test_thinking_can_be_switched_by_key_and_by_word(drive):
    scripted = Scripted([DONE], [DONE])
    async with drive(scripted) as d:
        await d.ready()
        await d.pilot.press("ctrl+t")
        assert "thinking off" in d.screen_text()
        await d.send("one")
        await d.ended()
        await d.send("/think on")
        await d.send("two")
        await d.ended(2)
    assert [request.think for request in scripted.requests] == [False, True]


async def test_slash_words_that_are_wrong_stay_in_the_prompt(drive):
    async with drive(Scripted()) as d:
        await d.ready()
        for text in ("/nonsense", "/new now", "/think maybe"):
            await d.send(text)
            assert d.app.chat.prompt.text == text
        assert d.app.state.turns == ()
        await d.send("/usr/bin is what?")
        await d.ended()


async def test_export_writes_markdown_and_never_over_a_file(drive, tmp_path):
    target = tmp_path / "talk.md"
    async with drive(Scripted(thinking_script("because\n", "An answer."))) as d:
        await d.ready()
        await d.send("ask")
        await d.ended()
        await d.send(f"/export {target}")
        written = target.read_text()
        assert "ask" in written and "because" in written and "An answer." in written
        assert target.stat().st_mode & 0o077 == 0
        await d.send(f"/export {target}")
        assert d.app.chat.prompt.text == f"/export {target}"
        assert target.read_text() == written


async def test_copy_from_the_conversation_and_other_letters_go_to_the_prompt(drive):
    async with drive(Scripted(thinking_script("", "Copy me."))) as d:
        await d.ready()
        await d.send("ask")
        await d.ended()
        await d.pilot.press("escape", "y")
        assert d.app.clipboard == "Copy me. "
        await d.pilot.press("h", "e")
        assert d.app.chat.prompt.text == "he" and d.app.chat.prompt.has_focus


async def test_help_and_statistics_open_and_close(drive):
    async with drive(Scripted(thinking_script("", "Hi.")), (100, 60)) as d:
        await d.ready()
        await d.send("ask")
        await d.ended()
        await d.pilot.press("f1")
        assert "/export FILE" in d.screen_text()
        await d.pilot.press("escape")
        await d.send("/stats")
        await d.until(lambda: "41.2 tokens a second" in d.screen_text())
        await d.pilot.press("escape")
        assert d.app.screen is d.app.chat


async def test_footer_shows_only_what_applies_now(drive):
    hold = Hold()
    async with drive(Scripted([READ, hold, DONE])) as d:
        await d.ready()
        assert "Stop" not in d.screen_text().splitlines()[-1]
        await d.send("go")
        await d.until(lambda: "Stop" in d.screen_text().splitlines()[-1])
        hold.release()
        await d.ended()
        await d.until(lambda: "Stop" not in d.screen_text().splitlines()[-1])


async def test_prompt_history_new_lines_paste_and_growth(drive):
    async with drive(Scripted([DONE], [DONE])) as d:
        await d.ready()
        await d.send("first")
        await d.send("second")
        await d.ended(2)
        prompt = d.app.chat.prompt
        await d.pilot.press("d", "up", "up")
        assert prompt.text == "first"
        await d.pilot.press("down", "down")
        assert prompt.text == "d"
        await d.pilot.press("ctrl+j", "e", "shift+enter", "f")
        assert prompt.text == "d\ne\nf"
        await d.until(lambda: prompt.size.height == 3, "it grew to three lines")
        prompt.put("\n".join("abcdefghijkl"))
        await d.until(lambda: prompt.size.height == 8, "it grows to eight lines at most")


async def test_ctrl_c_twice_quits(drive):
    async with drive(Scripted()) as d:
        await d.ready()
        await d.pilot.press("ctrl+c")
        assert d.app.is_running and not d.app._exit
        await d.pilot.press("ctrl+c")
        assert d.app._exit


class Crashing(LocalseekApp):
    def on_chat_screen_drawn(self) -> None:
        super().on_chat_screen_drawn()
        self.chat.prompt.put("not sent yet")
        self.dispatch(Submitted("keep me"))

    def _frame(self) -> None:
        super()._frame()
        if self.state.last_answer and self.unsent:
            raise RuntimeError("a defect in the app")


def test_a_crash_saves_the_conversation_and_says_where(temporary_home, capsys):
    hold = Hold()
    scripted = Scripted([READ, AnswerDelta("Kept.", 1), hold])
    options = GenerationOptions()
    app = Crashing(options, ports_of(scripted, options))
    assert run_app(app, headless=True) == 1
    (saved,) = (temporary_home / "recovered").iterdir()
    text = saved.read_text()
    assert "keep me" in text and "Kept." in text and "not sent yet" in text
    assert str(saved) in capsys.readouterr().err


def test_beside_an_encrypted_history_a_crash_saves_what_was_not_sent_in_it(
    temporary_home, capsys, monkeypatch
):
    monkeypatch.setattr(cipher, "ITERATIONS", 10)
    vault = Vault()
    vault.encrypt("one")
    options = GenerationOptions()
    scripted = Scripted([READ, AnswerDelta("Kept.", 1), Hold()])
    ports = ports_of(scripted, options, history=vault.open, vault=vault)
    assert run_app(Crashing(options, ports), headless=True) == 1
    assert not (temporary_home / "recovered").exists()
    assert "What was not sent is conversation 2 of the history." in capsys.readouterr().err
    with vault.open() as history:
        texts = [[m.content for m in history.all_messages(one)] for one in (1, 2)]
    assert texts == [["keep me", "Kept."], ["not sent yet", ""]]


def test_a_crash_saves_nothing_of_a_temporary_conversation(temporary_home, capsys):
    options = GenerationOptions()
    scripted = Scripted([READ, AnswerDelta("Secret.", 1), Hold()])
    app = Crashing(options, ports_of(scripted, options), temporary=True)
    assert run_app(app, headless=True) == 1
    assert not (temporary_home / "recovered").exists()
    assert "saved in" not in capsys.readouterr().err


async def test_leaving_in_the_middle_of_an_answer_is_no_crash(drive):
    hold = Hold()
    async with drive(Scripted([READ, AnswerDelta("On and on", 1), hold])) as d:
        await d.ready()
        await d.send("go")
        await d.until(hold.reached.is_set)
        await d.pilot.press("ctrl+q")
    assert d.app.return_code == 0 and not d.scripted.engines[0].alive


async def test_only_a_window_of_a_long_conversation_is_mounted(drive):
    async with drive(Scripted()) as d:
        await d.ready()
        turns = tuple(TurnView(n, f"prompt {n}.", "stopped") for n in range(60))
        d.app.state = replace(d.app.state, turns=turns, next_id=60)
        d.app.dispatch(Selected(None))
        await d.ended(60)
        mounted = d.app.chat.transcript._mounted
        assert len(mounted) == MOUNTED and "prompt 59." in d.screen_text()
        await d.pilot.press("escape", "g")
        await d.until(lambda: min(mounted) == 0, "the first turn is mounted")
        await d.said("prompt 0.")
        await d.pilot.press("G")
        await d.until(lambda: "prompt 59." in d.screen_text(), "and the end comes back")
        assert len(mounted) == MOUNTED


async def test_letters_that_come_quickly_go_to_the_prompt_from_the_first_on(drive):
    async with drive(Scripted(thinking_script("", "Hi."))) as d:
        await d.ready()
        await d.send("ask")
        await d.ended()
        await d.pilot.press("escape")
        for key in "Why,grey[fox]?":
            d.app.post_message(events.Key(key, key))
        await d.until(lambda: d.app.chat.prompt.text == "Why,grey[fox]?")
        assert d.phases() == ["done"]


async def test_pages_turn_from_the_prompt_and_the_end_is_followed_again(drive):
    long = thinking_script("", "\n\n".join(f"paragraph {n}" for n in range(60)))
    async with drive(Scripted(long)) as d:
        await d.ready()
        await d.send("ask")
        await d.ended()
        await d.said("paragraph 59")
        await d.pilot.press("d", "pageup")
        await d.until(lambda: "paragraph 59" not in d.screen_text())
        assert d.app.chat.prompt.text == "d" and d.app.chat.prompt.has_focus
        await d.pilot.press("pagedown", "pagedown")
        await d.said("paragraph 59")
