"""The pictures in the README and in docs/app.md: the real app with nano, driven by keys, as SVG.

`python -m tui.picture .assets` draws all of them in a home of their own, at temperature 0, so that
they can be drawn again.
"""

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from textual.pilot import Pilot

from localseek.commands.app import look_around, prepare
from localseek.options import GenerationOptions, Request, Sampling
from tui.app import LocalseekApp
from tui.ports import Ports
from tui.widgets.answer import Answer

SIZE = (96, 32)  # cells
ASKED = ("What is 62 x 17?", "And how much is that divided by 4?", "What is 348 + 257?")


class Artist:
    """An app at work, and what a person would do with it."""

    def __init__(self, app: LocalseekApp, pilot: Pilot[None]) -> None:
        self.app, self.pilot = app, pilot

    async def ask(self, prompt: str) -> None:
        """Send a prompt and wait for its answer."""
        self.app.chat.prompt.put(prompt)
        await self.press("enter")

    async def press(self, *keys: str) -> None:
        """Press keys, and wait until nothing changes any more."""
        await self.pilot.press(*keys)
        while not self.at_rest:
            await asyncio.sleep(0.05)
        await self.pilot.pause(0.3)

    @property
    def at_rest(self) -> bool:
        """Tell whether all is answered and drawn."""
        answers = self.app.query(Answer)
        ready = self.app.state.model.phase == "ready"
        return ready and not self.app.busy and all(answer.caught_up for answer in answers)

    def draw(self) -> str:
        """Give the screen as SVG, without fonts that lie on somebody's server."""
        svg = self.app.export_screenshot(title="localseek")
        return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.S)


async def answer(artist: Artist) -> None:
    """Show an answer with its reasoning unfolded."""
    await artist.ask(ASKED[-1])
    await artist.press("escape", "j", "space", "escape")


async def variants(artist: Artist) -> None:
    """Show a second answer, with the keys for a message."""
    await artist.ask(ASKED[0])
    await artist.press("escape", "j", "r")


async def conversations(artist: Artist) -> None:
    """Show a search in the list of conversations."""
    await artist.press("ctrl+n")
    await artist.ask("How many minutes are 3 hours?")
    await artist.press("ctrl+r", *"62")


async def models(artist: Artist) -> None:
    """Show the models."""
    await artist.press("ctrl+o")


async def settings(artist: Artist) -> None:
    """Show the settings of a conversation."""
    await artist.press("f2", *"Answer in one line.", "tab", *"200")


async def plan(artist: Artist) -> None:
    """Show where the model's layers are."""
    await artist.ask("/plan")


TOUR: dict[str, Callable[[Artist], Awaitable[None]]] = {
    "tui": answer,
    "app-variants": variants,
    "app-conversations": conversations,
    "app-models": models,
    "app-settings": settings,
    "app-plan": plan,
}


async def drawn(scene: Callable[[Artist], Awaitable[None]]) -> str:
    """Play a scene in the real app, and give its last picture."""
    sampling = Sampling(temperature=0.0)
    options = GenerationOptions(request=Request(sampling=sampling))
    app = LocalseekApp(options, Ports(partial(prepare, options), partial(look_around, options)))
    try:
        async with app.run_test(size=SIZE) as pilot:
            artist = Artist(app, pilot)
            await artist.press()
            await scene(artist)
            return artist.draw()
    finally:
        app.close_session()


def main(folder: Path) -> None:
    """Draw the tour into a folder."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["HOME"] = home  # shown as ~
        os.environ.pop("LOCALSEEK_HOME", None)
        for name, scene in TOUR.items():
            (folder / f"{name}.svg").write_text(asyncio.run(drawn(scene)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
