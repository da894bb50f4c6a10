from dataclasses import asdict, replace
from pathlib import Path

import pytest
from scripted import DONE, Hold, Scripted, memory_of

from localseek.errors import EngineError
from localseek.events import AnswerDelta, PromptProgress
from localseek.gguf.info import read_info
from localseek.options import LoadOptions
from localseek.placing.fits import place
from localseek.system import paths
from localseek.system.machine import Machine
from localseek.terminal import clipboard
from tui.state.actions import ModelsListed, PlanDrawn, Said
from tui.threads.shelf import Shelf

READ = PromptProgress(20, 20)
ROOMY = Machine((), 8 * 10**9, 16 * 10**9, 4)
TINY = Machine((), 30 * 10**6, 16 * 10**9, 4)


def listed(shelf, loaded=None):
    shelf.look(loaded)
    shelf.finish(60)
    return [one.models for one in shelf.take() if isinstance(one, ModelsListed)]


def put(nano_gguf, name="mine.gguf"):
    (paths.models() / name).symlink_to(nano_gguf)


def test_models_are_listed_at_once_and_judged_when_the_machine_is_known(nano_gguf):
    put(nano_gguf)
    (paths.models() / "broken.gguf").write_bytes(b"GGUF and no more")
    first, second = listed(Shelf(lambda: ROOMY, LoadOptions()))
    assert [(one.name, one.fits) for one in first] == [
        ("nano", True), ("broken", False), ("mine", None)
    ]  # fmt: skip
    nano, broken, mine = second
    assert "embedded" in nano.why and "broken.gguf" in broken.why
    assert (mine.fits, mine.mtp, mine.type) == (True, True, "Q8_0") and "of 8.0 GB" in mine.why


def test_a_model_that_does_not_fit_says_what_stays_on_the_disk(nano_gguf):
    put(nano_gguf)
    mine = listed(Shelf(lambda: TINY, LoadOptions()))[1][1]
    assert mine.fits is False and "stay on the disk" in mine.why
    memory = [memory_of("CPU", 10**9), memory_of("GPU0", 10**10)]
    loaded = replace(Scripted().info, placement={"memory": memory})
    freed = listed(Shelf(lambda: TINY, LoadOptions()), loaded)[1][1]
    assert freed.fits and "of 1.0 GB" in freed.why, "what the loaded model takes becomes free"


def test_a_machine_that_cannot_be_looked_at_is_said(nano_gguf):
    def broken() -> Machine:
        raise EngineError("The engine could not be started.")

    shelf = Shelf(broken, LoadOptions())
    shelf.look(None)
    shelf.finish(60)
    assert Said("The engine could not be started.") in shelf.take()


async def test_a_model_is_chosen_from_the_list_and_loaded_in_place_of_the_other(drive, nano_gguf):
    put(nano_gguf)
    scripted = Scripted([READ, AnswerDelta("By mine.", 1), DONE])
    async with drive(scripted) as d:
        await d.ready()
        await d.pilot.press("ctrl+o")
        await d.said("fits: takes")
        shown = d.screen_text()
        assert "mine" in shown and "Q8_0" in shown and "MTP" in shown
        await d.pilot.press(*"mi")
        await d.until(lambda: "nano  " not in d.screen_text())
        await d.pilot.press("enter")
        await d.ready()
        assert scripted.loaded == ["nano", "mine"] and not scripted.engines[0].alive
        assert "mine · ready" in d.screen_text()
        await d.send("who?")
        await d.ended()
        await d.quiet()
    from localseek.store.history.history import History

    with History() as history:
        assert history.named("").model == "mine"


async def test_with_the_embedded_model_alone_the_list_says_how_to_get_another(drive):
    async with drive(Scripted()) as d:
        await d.ready()
        await d.pilot.press("ctrl+o")
        await d.said("localseek pull REPOSITORY")
        assert "/model FILE" in d.screen_text() and "(in use)" in d.screen_text()


async def test_switching_in_the_middle_of_an_answer_keeps_it_and_shows_progress(drive):
    hold, gate = Hold(), Hold()
    scripted = Scripted([READ, AnswerDelta("Half", 1), hold, DONE], [READ, DONE])
    async with drive(scripted) as d:
        await d.ready()
        await d.send("go")
        await d.until(hold.reached.is_set)
        scripted.load_gate = gate
        await d.send("/model other.gguf")
        await d.said("loading… 40%")
        assert d.phases() == ["stopped"] and "Half" in d.screen_text()
        gate.release()
        await d.ready()
        assert "other · stopped" in d.screen_text()


async def test_a_model_that_is_not_there_is_said_and_the_one_before_stays(drive):
    async with drive(Scripted([READ, AnswerDelta("Still me.", 1), DONE])) as d:
        await d.ready()
        await d.send("/model missing")
        await d.said("There is no model 'missing'.")
        await d.ready()
        assert "nano · ready" in d.screen_text() and d.scripted.engines[0].alive
        await d.send("hi")
        await d.ended()
        assert "Still me." in d.screen_text()


async def test_a_model_that_cannot_be_loaded_says_why_and_another_can_be_chosen(drive):
    scripted = Scripted([READ, AnswerDelta("Back.", 1), DONE])
    async with drive(scripted) as d:
        await d.ready()
        scripted.load_error = EngineError("The file ends too early.", "Download it again.")
        await d.send("/model torn")
        await d.said("The file ends too early. Download it again.")
        await d.send("/model nano")
        await d.ready()
        await d.send("hi")
        await d.ended()
        assert "Back." in d.screen_text()


async def test_the_plan_of_the_loaded_model_is_drawn(drive, nano_gguf):
    _, placement = place(read_info(nano_gguf), ROOMY, LoadOptions())
    scripted = Scripted()
    scripted.info = replace(scripted.info, path=str(nano_gguf), placement=asdict(placement))
    async with drive(scripted) as d:
        await d.ready()
        await d.send("/plan")
        await d.said("Plan of nano")
        shown = d.screen_text()
        assert "█" in shown and "draft cache" in shown and "processor" in shown
        await d.pilot.press("escape")
        assert d.app.screen is d.app.chat


def test_a_plan_of_a_file_that_is_gone_is_said(nano_gguf):
    shelf = Shelf(lambda: ROOMY, LoadOptions())
    _, placement = place(read_info(nano_gguf), ROOMY, LoadOptions())
    info = replace(Scripted().info, path="/gone.gguf", placement=asdict(placement))
    shelf.draw(info, 80)
    shelf.finish(60)
    taken = shelf.take()
    assert not any(isinstance(one, PlanDrawn) for one in taken) and len(taken) == 1


@pytest.mark.parametrize("works", [True, False])
def test_text_goes_to_the_first_clipboard_program_that_works(tmp_path, monkeypatch, works):
    for name, body in (("wl-copy", "exit 1"), ("xclip", f"cat > {tmp_path}/taken")):
        if name == "xclip" and not works:
            continue
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin" if works else str(tmp_path))
    monkeypatch.setattr(clipboard, "PROGRAMS", clipboard.PROGRAMS[1:3])
    assert clipboard.copy("中文") == works
    assert not works or Path(tmp_path, "taken").read_text() == "中文"


async def test_the_model_in_use_is_not_loaded_again_and_its_answer_goes_on(drive):
    hold = Hold()
    async with drive(Scripted([READ, AnswerDelta("Whole", 1), hold, DONE])) as d:
        await d.ready()
        await d.send("go")
        await d.until(hold.reached.is_set)
        await d.pilot.press("ctrl+o")
        await d.said("(in use)")
        await d.pilot.press("enter")
        hold.release()
        await d.ended()
        assert d.phases() == ["done"] and d.scripted.loaded == ["nano"]
