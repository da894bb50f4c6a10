import os
import stat
from pathlib import Path

import pytest
from scripted import DONE, Scripted
from textual import events

from localseek.errors import UsageError
from tui.preferences import Preferences, read, write_theme
from tui.text.attachments import chip, completions, expanded, tokens_of
from tui.text.editing import edit

WORDS = {"copy": "Copies.", "code": "Code.", "new": "New."}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with some files, where the app is run."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "plan.md").write_text("# Plan\n\n```py\nx\n```\n")
    (tmp_path / "numbers.csv").write_text("1,2\n" * 100)
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff\x00")
    (tmp_path / "文件.txt").write_text("你好")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def texts(before, folder):
    return [one.text for one in completions(before, WORDS, folder)]


def test_slash_words_and_paths_are_completed(folder):
    assert texts("/co", folder) == ["/copy", "/code"] and texts("/copy", folder) == []
    assert texts("say /co", folder) == [] and texts("me@n", folder) == []
    assert texts("see @n", folder) == ["@notes/", "@numbers.csv"]
    assert texts("see @notes/", folder) == ["@notes/plan.md"]
    assert texts("@.h", folder) == ["@.hidden"] and "@.hidden" not in texts("@", folder)
    assert texts("@文", folder) == ["@文件.txt"] and texts("@nothing/x", folder) == []
    (found,) = completions("@nu", WORDS, folder)
    assert (found.typed, found.remark) == (3, "≈ 100 tokens")


def test_files_are_put_in_at_the_end_with_a_fence_that_holds(folder):
    text = expanded("sum up @notes/plan.md, and @numbers.csv and @nobody", {}, folder)
    assert text.startswith(
        "sum up @notes/plan.md, and @numbers.csv and @nobody\n\nnotes/plan.md:\n````"
    )
    assert "```py\nx\n```\n````" in text and text.count("1,2\n") == 100
    assert expanded("mail a@b.c", {}, folder) == "mail a@b.c"


@pytest.mark.parametrize("name", ["picture.png", "long.txt", "locked.txt"])
def test_files_that_cannot_be_attached_say_why(folder, name):
    (folder / "long.txt").write_bytes(b"x" * 4_000_001)
    (folder / "locked.txt").write_text("x")
    (folder / "locked.txt").chmod(0)
    if name == "locked.txt" and os.geteuid() == 0:
        pytest.skip("root reads everything")
    with pytest.raises(UsageError, match=name):
        expanded(f"@{name}", {}, folder)


def test_a_long_paste_is_a_chip_and_stands_for_its_text(folder):
    long = "word " * 1000
    short = chip(1, long)
    assert short == "[pasted text 1: 1 line, ≈ 1,250 tokens]" and tokens_of(3) == "≈ 1 tokens"
    assert expanded(f"look: {short}.", {short: long}, folder) == f"look: {long}."


async def test_tab_completes_and_the_sent_text_holds_the_file(drive, folder):
    async with drive(Scripted([DONE])) as d:
        await d.ready()
        await d.pilot.press(*"see @nu")
        assert "@numbers.csv" in d.screen_text() and "≈ 100 tokens" in d.screen_text()
        await d.pilot.press("tab")
        assert d.app.chat.prompt.text == "see @numbers.csv "
        await d.said("@numbers.csv ≈ 100 tokens")
        await d.pilot.press("enter")
        await d.ended()
        assert d.scripted.requests[0].messages[-1].content.count("1,2\n") == 100


async def test_arrows_choose_among_completions_and_escape_hides_them(drive, folder):
    async with drive(Scripted()) as d:
        await d.ready()
        await d.pilot.press(*"/con", "down", "enter")
        assert d.app.chat.prompt.text == "/continue "
        d.app.chat.prompt.leave()
        await d.pilot.press(*"/con")
        await d.said("Let an answer that was cut off go on.")
        await d.pilot.press("escape")
        assert "Let an answer" not in d.screen_text() and d.app.chat.prompt.text == "/con"


async def test_a_file_that_cannot_be_attached_keeps_the_prompt(drive, folder):
    async with drive(Scripted()) as d:
        await d.ready()
        await d.send("what is @picture.png")
        await d.said("not UTF-8 text")
        assert d.app.chat.prompt.text == "what is @picture.png" and d.app.state.turns == ()


async def test_100000_pasted_characters_do_not_freeze_and_are_sent_whole(drive):
    text = "line of pasted text\r\n" * 5_000
    async with drive(Scripted([DONE])) as d:
        await d.ready()
        await d.pilot.press(*"look ")
        d.app.chat.prompt.post_message(events.Paste(text))
        await d.said("[pasted text 1:")
        await d.pilot.press("enter")
        await d.ended()
        sent = d.scripted.requests[0].messages[-1].content
        assert sent == "look " + text.replace("\r\n", "\n")
        await d.pilot.press("up")
        assert d.app.chat.prompt.whole == sent, "the history has all of it"


async def test_a_short_paste_is_text_with_its_line_breaks(drive):
    async with drive(Scripted()) as d:
        await d.ready()
        d.app.chat.prompt.post_message(events.Paste("a\nb"))
        await d.until(lambda: d.app.chat.prompt.text == "a\nb")
        await d.pilot.press("escape")
        d.app.chat.transcript.post_message(events.Paste("c"))
        await d.until(lambda: d.app.chat.prompt.text == "a\nbc")


async def test_enter_and_newline_can_be_swapped(drive):
    async with drive(Scripted([DONE]), preferences=Preferences(enter_sends=False)) as d:
        await d.ready()
        await d.pilot.press("a", "enter", "b", "ctrl+j")
        await d.ended()
        assert d.scripted.requests[0].messages[-1].content == "a\nb"


async def test_keys_of_the_users_own(drive):
    preferences = Preferences(keys={"app.conversations": "ctrl+y"})
    async with drive(Scripted(), preferences=preferences) as d:
        await d.ready()
        await d.pilot.press("escape", "ctrl+y")
        await d.said("search titles and texts")


def test_the_editor_is_given_a_private_file_and_its_text_comes_back(tmp_path, monkeypatch):
    script = tmp_path / "editor"
    script.write_text(
        f'#!/bin/sh\nstat -c %a "$(dirname "$2")" > {tmp_path}/mode\n'
        f'cp "$2" {tmp_path}/seen\nprintf "new text\\n" > "$2"\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("VISUAL", f"{script} --wait")
    assert edit("old 中文") == "new text"
    assert (tmp_path / "seen").read_text() == "old 中文"
    assert (tmp_path / "mode").read_text().strip() == "700"


@pytest.mark.parametrize(
    ("command", "words"),
    [("", "No editor"), ("/no/such/editor", "cannot be started"), ("false", "status 1")],
)
def test_an_editor_that_fails_says_so(monkeypatch, command, words):
    monkeypatch.delenv("EDITOR", raising=False)
    monkeypatch.setenv("VISUAL", command)
    with pytest.raises(UsageError, match=words):
        edit("text")


async def test_without_an_editor_the_prompt_stays(drive, monkeypatch):
    monkeypatch.delenv("EDITOR", raising=False)
    monkeypatch.delenv("VISUAL", raising=False)
    async with drive(Scripted()) as d:
        await d.ready()
        await d.pilot.press(*"keep", "ctrl+g")
        assert d.app.chat.prompt.text == "keep"


@pytest.mark.parametrize(
    ("text", "wanted", "complaint"),
    [
        ("", Preferences(), ""),
        ('theme = "nord"\n[presets]\na = "b"', Preferences("nord", presets={"a": "b"}), ""),
        ("enter_sends = 3", Preferences(), "enter_sends has a value"),
        ('colour = "red"\nreasoning = "open"', Preferences(reasoning="open"), "colour is not"),
        ("not toml at all", Preferences(), "cannot be read"),
    ],
)
def test_settings_are_read_and_what_is_wrong_is_named(tmp_path, text, wanted, complaint):
    file = tmp_path / "settings.toml"
    file.write_text(text)
    found = read(file)
    assert complaint in found.complaint and bool(found.complaint) == bool(complaint)
    assert (found.theme, found.enter_sends, found.reasoning, found.presets) == (
        wanted.theme, wanted.enter_sends, wanted.reasoning, wanted.presets
    )  # fmt: skip
    assert read(tmp_path / "none.toml") == Preferences()


def test_a_theme_is_written_beside_what_the_user_wrote(tmp_path):
    file = tmp_path / "home" / "settings.toml"
    write_theme(file, "nord")
    assert read(file).theme == "nord" and "# enter_sends" in file.read_text()
    file.write_text('# mine\nreasoning = "open" # yes\n')
    write_theme(file, "gruvbox")
    assert file.read_text().startswith('# mine\nreasoning = "open" # yes\n')
    assert read(file).theme == "gruvbox"
    file.write_text("broken =")
    write_theme(file, "nord")
    assert file.read_text() == "broken ="


async def test_a_chosen_theme_is_remembered(drive):
    chosen = []
    async with drive(Scripted(), save_theme=chosen.append) as d:
        await d.ready()
        d.app.theme = "localseek-light"
        await d.until(lambda: chosen == ["localseek-light"])


def test_the_prompts_folder_is_the_one_the_user_stands_in(folder):
    assert Path.cwd() == folder


async def test_paths_that_cannot_be_are_text(drive, folder):
    async with drive(Scripted([DONE])) as d:
        await d.ready()
        await d.pilot.press(*"@~nobody/x")
        (folder / "gone").mkdir()
        os.chdir(folder / "gone")
        (folder / "gone").rmdir()
        await d.pilot.press(*" @b")
        os.chdir(folder)
        await d.pilot.press("enter")
        await d.ended()
        assert d.scripted.requests[0].messages[-1].content == "@~nobody/x @b"
        await d.send("/export ~nobody/x.md")
        await d.said("cannot be written")


def test_an_editor_command_that_is_none_and_a_file_that_is_gone_are_said(monkeypatch):
    for command, words in (('vi "', "not a command"), ("rm", "left no file")):
        monkeypatch.setenv("VISUAL", command)
        with pytest.raises(UsageError, match=words):
            edit("text")


def test_only_what_was_typed_names_files_and_each_is_put_in_once(folder):
    (folder / "a.txt").write_text("see @numbers.csv inside")
    long = "mail me @numbers.csv please " * 200
    short = chip(1, long)
    assert expanded(f"look {short}", {short: long}, folder) == f"look {long}"
    once = expanded("look @a.txt", {}, folder)
    assert "numbers.csv:" not in once and once.count("see @numbers.csv inside") == 1
    assert expanded(once, {}, folder) == once, "it came back to be edited"
    more = expanded(once.replace("look @a.txt", "look @a.txt @notes/plan.md"), {}, folder)
    assert more.count("see @numbers") == 1 and "# Plan" in more


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system has no /proc")
def test_files_that_the_system_makes_up_are_not_read(folder):
    with pytest.raises(UsageError, match="is empty"):
        expanded("@/proc/self/status", {}, folder)


async def test_a_theme_that_cannot_be_remembered_is_said(drive):
    def refuse(theme: str) -> None:
        raise PermissionError(13, "Permission denied")

    async with drive(Scripted(), save_theme=refuse) as d:
        await d.ready()
        d.app.theme = "nord"
        await d.said("not remembered")


async def test_keys_that_are_wrong_are_named_and_the_others_hold(drive, tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text(
        '[keys]\n"app.help" = "nonsense+key"\n"app.models" = 5\n"app.bogus" = "f9"\n'
        '"app.think" = "ctrl+y"\n"turn.older" = "left_curly_bracket"\n'
    )
    preferences = read(file)
    assert dict(preferences.keys) == {
        "app.bogus": "f9", "app.think": "ctrl+y", "turn.older": "left_curly_bracket"
    }  # fmt: skip
    assert "app.help" in preferences.complaint
    async with drive(Scripted(), preferences=preferences) as d:
        await d.ready()
        await d.said("no binding app.bogus")
        await d.pilot.press("escape", "f1")
        await d.said("localseek")
        assert d.app.binding_keys["app.think"] == "ctrl+y"


async def test_a_clash_of_keys_is_said_once(drive):
    preferences = Preferences(keys={"app.think": "ctrl+y", "app.fold": "ctrl+y"})
    async with drive(Scripted(), preferences=preferences) as d:
        await d.ready()
        await d.pilot.press("escape", "j", "j")
        await d.until(lambda: d.app._clashes)
        assert len(d.app._clashes) == 1


async def test_presets_with_markup_in_their_names_are_shown_as_they_are(drive):
    preferences = Preferences(presets={"[/]": "x", "[bold]b[/]": "y"})
    async with drive(Scripted(), preferences=preferences) as d:
        await d.ready()
        await d.pilot.press("f2", "shift+tab", "enter")
        await d.said("[bold]b[/]")
