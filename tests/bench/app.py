"""How quick the app is: first picture, streaming in a long conversation, keys, focus, a flood.

    python tests/bench/app.py [MODEL]

Each figure is the median of several runs, in CPU or wall time as it says. MODEL (default: nano)
is for the last row: decoding speed with the app open against `localseek ask`, in turns.
"""

import argparse
import asyncio
import os
import pty
import re
import select
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tui"))

from scripted import DONE, Scripted, ports_of
from textual import events

from localseek.events import AnswerDelta, PromptProgress
from localseek.options import GenerationOptions
from localseek.text.conversation import Reply
from tui.app import LocalseekApp
from tui.state.actions import Selected
from tui.state.views import TurnView
from tui.widgets.answer import Answer

ANSWER = (
    "Here is **what** you asked for, in `two` paragraphs.\n\n- one\n- two\n\n"
    "```python\nprint('hello')\n```\n\nAnd a last line that says nothing more.\n"
)
READ = PromptProgress(20, 20)


def turns(count: int) -> tuple[TurnView, ...]:
    """Give a conversation of this many messages."""
    return tuple(
        TurnView(n, f"prompt {n}", "done", Reply("because", ANSWER, "stop"),
                 parent=n - 1 if n else None)
        for n in range(count // 2)
    )  # fmt: skip


class Paced(Scripted):
    """A scripted engine that takes its time between events."""

    pause_s = 0.0

    def __call__(self, options):
        engine = super().__call__(options)
        generate = engine.generate

        def paced(request):
            for event in generate(request):
                yield event
                if self.pause_s:
                    time.sleep(self.pause_s)

        engine.generate = paced
        return engine


async def measured(count: int, words: int, pause_s: float) -> dict[str, float]:
    """Stream an answer into a conversation of `count` messages; then keys, and the focus."""
    pieces = [f"word{n}{'. ' if n % 60 else '.{0}{0}'.format(chr(10))}" for n in range(words)]
    scripted = Paced([READ, *(AnswerDelta(piece, 1) for piece in pieces), DONE])
    scripted.pause_s = pause_s
    options = GenerationOptions()
    app = LocalseekApp(options, ports_of(scripted, options), temporary=True)
    try:
        async with app.run_test(size=(100, 40)) as pilot:
            while app.state.model.phase != "ready":
                await asyncio.sleep(0.01)
            old = turns(count)
            app.state = replace(app.state, turns=old, next_id=len(old))
            app.dispatch(Selected(None))
            await settled(app, pilot)
            app.chat.prompt.put("go")
            cpu, wall = time.process_time(), time.perf_counter()
            app.chat.prompt.action_send()
            slowest = 0.0
            while len(app.state.turns) == len(old) or app.state.turns[-1].phase != "done":
                began = time.perf_counter()
                await asyncio.sleep(0.005)
                slowest = max(slowest, time.perf_counter() - began - 0.005)
            while not all(answer.caught_up for answer in app.query(Answer)):
                await asyncio.sleep(0.005)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            whole = "".join(pieces)
            await settled(app, pilot)
            keys = [await key(app) for _ in range(9)]
            focus = [await focused(app, pilot) for _ in range(5)]
            return {
                "stream_cpu_s": cpu, "stream_wall_s": wall, "slowest_turn_s": slowest,
                "lost": float(app.state.turns[-1].reply.answer != whole),
                "key_s": statistics.median(keys), "focus_s": statistics.median(focus),
            }  # fmt: skip
    finally:
        app.close_session()


async def settled(app: LocalseekApp, pilot) -> None:
    """Wait until all that is to be drawn is drawn."""
    while not all(answer.caught_up for answer in app.query(Answer)) or app.busy:
        await asyncio.sleep(0.01)
    await pilot.pause(0.5)


async def key(app: LocalseekApp) -> float:
    """Give how long a key takes until it stands in the prompt."""
    before, began = app.chat.prompt.text, time.perf_counter()
    app.simulate_key("x")
    while app.chat.prompt.text == before:
        await asyncio.sleep(0)
    return time.perf_counter() - began


async def focused(app: LocalseekApp, pilot) -> float:
    """Give the CPU time of the terminal losing the focus and gaining it again."""
    idle = time.process_time()
    await asyncio.sleep(0.3)
    began = time.process_time()
    app.post_message(events.AppBlur())
    app.post_message(events.AppFocus())
    await asyncio.sleep(0.3)
    return max(0.0, (time.process_time() - began) - (began - idle))


def first_picture(model: str) -> tuple[float, float, float]:
    """Give the seconds from the program's start to its first picture, the app's, a ready model."""
    main, child = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"TERM": "xterm-256color"}
        program = subprocess.Popen(
            [sys.executable, "-m", "localseek", "--no-save", "-m", model],
            stdin=child, stdout=child, stderr=child, env=environment, cwd=home, close_fds=True,
        )  # fmt: skip
        os.close(child)
        seen, picture, app = b"", 0.0, 0.0
        try:
            while time.perf_counter() - began < 60:
                ready, _, _ = select.select([main], [], [], 0.5)
                if ready:
                    seen += os.read(main, 65536)
                if not picture and b"Ask something" in seen:
                    picture = time.perf_counter() - began
                if not app and b"loading" in seen:
                    app = time.perf_counter() - began
                if b"ready" in seen:
                    return picture, app, time.perf_counter() - began
            raise RuntimeError("the app never was ready")
        finally:
            program.kill()
            program.wait()
            os.close(main)


def decoding(model: str, prompt: str) -> tuple[float, float]:
    """Give tokens a second with the app open, and of `ask`, in one turn each."""
    from localseek.commands.app import prepare
    from localseek.options import Request, Sampling
    from tui.ports import Ports

    options = GenerationOptions(
        model, request=Request(sampling=Sampling(temperature=0.0, seed=1), max_tokens=200)
    )
    prepared = prepare(options, model, lambda text: None)

    async def with_app() -> float:
        ports = Ports(lambda name, say: prepared, lambda: None)  # type: ignore[arg-type,return-value]
        app = LocalseekApp(options, ports, temporary=True)
        try:
            async with app.run_test(size=(100, 40)):
                while app.state.model.phase != "ready":
                    await asyncio.sleep(0.01)
                app.chat.prompt.put(prompt)
                app.chat.prompt.action_send()
                while not app.state.turns or app.state.turns[-1].phase != "done":
                    await asyncio.sleep(0.01)
                return app.state.turns[-1].tokens_per_second(0)
        finally:
            app.close_session()

    shown = asyncio.run(with_app())
    asked = subprocess.run(
        [sys.executable, "-m", "localseek", "ask", "-m", model, "--temperature", "0", "--seed", "1",
         "--max-tokens", "200", "--json", prompt],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return shown, float(re.search(r'"decode_tps": ([0-9.]+)', asked)[1])  # type: ignore[index]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="nano")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", default="What is 348 + 257?")
    arguments = parser.parse_args()
    pictures = [first_picture(arguments.model) for _ in range(arguments.rounds + 2)]
    medians = [statistics.median(of) * 1e3 for of in zip(*pictures, strict=True)]
    names = ("first picture", "the app itself", "model ready")
    for name, value in zip(names, medians, strict=True):
        print(f"{name:18} {value:6.0f} ms wall")
    runs = {
        count: [asyncio.run(measured(count, 300, 0.01)) for _ in range(arguments.rounds)]
        for count in (10, 300)
    }
    median = {
        count: {name: statistics.median(run[name] for run in of) for name in of[0]}
        for count, of in runs.items()
    }
    ratio = median[300]["stream_cpu_s"] / median[10]["stream_cpu_s"]
    for count, found in median.items():
        print(
            f"{count:3} messages: streaming {found['stream_cpu_s']:.2f} s CPU, a key "
            f"{found['key_s'] * 1e3:.1f} ms, focus out and in {found['focus_s'] * 1e3:.0f} ms CPU"
        )
    print(f"streaming with 300 messages: {ratio:.2f} times that with 10")
    flood = [asyncio.run(measured(10, 2500, 0.002)) for _ in range(arguments.rounds)]
    wall = statistics.median(run["stream_wall_s"] for run in flood)
    wall = statistics.median(run["stream_wall_s"] for run in flood)
    slowest = max(run["slowest_turn_s"] for run in flood)
    lost = int(max(run["lost"] for run in flood))
    print(f"2,500 tokens, up to 500 a second: {wall:.1f} s, slowest turn of the loop "
          f"{slowest * 1e3:.0f} ms, lost: {lost}")  # fmt: skip
    pairs = [decoding(arguments.model, arguments.prompt) for _ in range(arguments.rounds)]
    ratios = [shown / asked for shown, asked in pairs]
    print(f"decoding with the app: {statistics.median(ratios):.3f} of ask, {sorted(ratios)}")


if __name__ == "__main__":
    main()
