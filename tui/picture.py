"""The README's picture: the real app with a real model, driven by keys, exported as SVG.

`python -m tui.picture MODEL.gguf .assets/tui.svg "What is 348 + 257?" ...` asks each prompt,
unfolds the last reasoning and writes what the terminal shows. Temperature 0, so that it can be
drawn again.
"""

import asyncio
import re
import sys
from pathlib import Path

from localseek.engine.process.client import Engine
from localseek.options import GenerationOptions, Request, Sampling
from localseek.system.hardware import read_machine
from tui import actions as act
from tui.app import LocalseekApp
from tui.ports import Ports
from tui.session import EngineFactory
from tui.widgets.answer import Answer

SIZE = (96, 32)  # cells


async def picture(
    app: LocalseekApp, prompts: list[str], unfold: bool = True, size: tuple[int, int] = SIZE
) -> str:
    """Ask the prompts one after the other and give the screen as SVG."""
    async with app.run_test(size=size) as pilot:
        for prompt in prompts:
            app.chat.prompt.put(prompt)
            await pilot.press("enter")
            while app.state.waiting or app.state.running is not None:
                await asyncio.sleep(0.05)
        while not all(answer.caught_up for answer in app.query(Answer)):
            await asyncio.sleep(0.05)
        if unfold and app.state.last:
            app.dispatch(act.Folded(app.state.last.id, False))
        await pilot.pause(0.5)
        svg = app.export_screenshot(title="localseek")
        # The fonts that it names lie on somebody's server; the reader's own will do.
        return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.S)


def draw(model: Path, prompts: list[str], engine: EngineFactory = Engine) -> str:
    """Give the picture of a conversation with a model; it is saved nowhere."""
    sampling = Sampling(temperature=0.0)
    options = GenerationOptions(model.stem, request=Request(sampling=sampling))
    here = read_machine(())
    ports = Ports(lambda name, say: options.load_options(model), lambda: here, engine)
    app = LocalseekApp(options, ports, temporary=True)
    try:
        return asyncio.run(picture(app, prompts))
    finally:
        app.close_session()


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(draw(Path(sys.argv[1]), sys.argv[3:]), encoding="utf-8")
