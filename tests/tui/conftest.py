import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest
from scripted import Scripted, ports_of
from textual.pilot import Pilot

from localseek.options import GenerationOptions
from tui.app import LocalseekApp
from tui.widgets.answer import Answer

PATIENCE_S = 120.0  # of wall clock, on a machine that may be busy; only a failure waits so long


@pytest.fixture(autouse=True)
def temporary_home(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCALSEEK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TEXTUAL_ANIMATIONS", "none")
    return tmp_path / "home"


class Driver:
    """A Pilot with the words that these tests use; it waits on conditions, never on a clock."""

    def __init__(self, app: LocalseekApp, pilot: Pilot[None], scripted: Scripted) -> None:
        self.app, self.pilot, self.scripted = app, pilot, scripted

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        deadline = monotonic() + PATIENCE_S
        while not condition():
            assert monotonic() < deadline, f"never came true: {what or condition}"
            await asyncio.sleep(0.005)
        await self.pilot.pause()

    async def ready(self) -> None:
        await self.until(lambda: self.app.state.model.phase == "ready", "the model is loaded")

    async def send(self, text: str) -> None:
        self.app.chat.prompt.focus()
        self.app.chat.prompt.put(text)
        await self.pilot.press("enter")

    async def said(self, text: str) -> None:
        await self.until(lambda: text in self.screen_text(), f"{text!r} is on the screen")

    async def quiet(self) -> None:
        """Nothing is left for any thread to do, and what it said was taken."""
        await self.until(lambda: not self.app.busy, "all threads are done")

    async def ended(self, count: int = 1) -> None:
        await self.until(lambda: self.phases().count("waiting") == 0, "nothing waits")
        await self.until(
            lambda: (
                self.app.state.running is None
                and len(self.app.state.turns) == count
                and all(answer.caught_up for answer in self.app.query(Answer))
            ),
            "all answers are on the screen",
        )

    def phases(self) -> list[str]:
        return [turn.phase for turn in self.app.state.turns]

    def screen_text(self) -> str:
        """What the terminal shows, row by row."""
        rows = self.app.screen._compositor.render_strips()
        return "\n".join("".join(s.text for s in strip).rstrip() for strip in rows)


@pytest.fixture
def drive():
    @asynccontextmanager
    async def driven(
        scripted: Scripted, size: tuple[int, int] = (100, 30),
        options: GenerationOptions | None = None, temporary: bool = False, **ports: Any,
    ) -> AsyncIterator[Driver]:
        options = options or GenerationOptions()
        app = LocalseekApp(options, ports_of(scripted, options, **ports), temporary)
        try:
            async with app.run_test(size=size, notifications=True) as pilot:
                yield Driver(app, pilot, scripted)
        finally:
            app.close_session()

    return driven
