"""An engine for a verb: started when first needed, again after it died, cancelled by Ctrl-C.

Takes generation options, gives replies. `ask`, `chat` and `batch` share it.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from localseek.commands.parts.preparing import completed, find_runnable_model
from localseek.commands.parts.unlocking import with_key
from localseek.engine.process.client import Engine
from localseek.events import (
    AnswerDelta,
    AnswerWithdrawn,
    Event,
    Notice,
    PromptProgress,
    ReasoningDelta,
)
from localseek.gguf.info import read_info
from localseek.options import GenerationOptions, Request
from localseek.terminal.messages import ReplyPrinter, Status, is_terminal, note, stats_line
from localseek.text.answers import checked, cut_off
from localseek.text.conversation import Reply


def engine_command() -> list[str] | None:
    """Give the program that is the engine; None is the real one. Tests put a fake here."""
    return None


class Session:
    """At most one running engine with the model that the options name."""

    def __init__(self, options: GenerationOptions, quiet: bool = False) -> None:
        self.path = find_runnable_model(options.model)
        self.options, notice = completed(with_key(options), self.path)
        self.quiet = quiet
        if notice and not quiet:
            note(notice)
        self.name = Path(options.model).name.removesuffix(".gguf")
        self.interrupted = False  # Ctrl-C came during a reply, in time to cut it off or not
        self._engine: Engine | None = None

    @property
    def alive(self) -> bool:
        """Tell whether an engine runs."""
        return self._engine is not None and self._engine.alive

    @property
    def takes_effort(self) -> bool:
        """Tell whether the model's chat template knows a reasoning effort."""
        template = self.options.load.chat_template or read_info(self.path).chat_template or ""
        return "reasoning_effort" in template

    def start(self) -> Engine:
        """Give the engine, started and loaded if it is not; raises EngineError."""
        if self._engine is not None and self._engine.alive:
            return self._engine
        self.close()
        engine = Engine(self.options.load_options(self.path), command=engine_command())
        title = f"loading {self.name}"

        def progress(done: float) -> None:
            status.text = f"{title} {done:.0%}"

        try:
            with Status(title, shown=not self.quiet) as status:
                engine.load(progress)
        except BaseException:  # Ctrl-C too: a child that loads doesn't listen
            end_now(engine)
            raise
        self._engine = engine
        return engine

    def reply(
        self, request: Request, show: Callable[[Event], None],
        observe: Callable[[Reply], None] = lambda _: None,
    ) -> Reply:  # fmt: skip
        """Run a request, show each event, give the whole reply; Ctrl-C cancels it.

        `observe` is given the reply so far, after each event.
        """
        engine = self.start()
        reply = Reply()
        with cancelled_by_interrupt(engine) as interrupted:
            for event in engine.generate(request):
                if isinstance(event, PromptProgress) and interrupted():
                    engine.cancel()  # Ctrl-C came before the engine knew of the request
                show(event)
                reply = reply.after(event)
                observe(reply)
        self.interrupted |= interrupted()
        if not engine.alive:
            self.close()
        return reply

    def close(self) -> None:
        """End the engine if there is one."""
        if self._engine is not None:
            self._engine.close()
            for text in self._engine.last_notices:
                note(text)
            self._engine = None

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def end_now(engine: Engine) -> None:
    """End an engine that may not be listening."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(engine.pid, signal.SIGKILL)
    engine.close()


@contextlib.contextmanager
def cancelled_by_interrupt(engine: Engine) -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a cancel; the second ends the engine and interrupts.

    Gives a function that tells whether the first one has come.
    """
    interrupts = 0

    def on_interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 1:
            with contextlib.suppress(ProcessLookupError):
                os.kill(engine.pid, signal.SIGKILL)
            raise KeyboardInterrupt
        # On a thread of its own: the code that was interrupted may hold the client's lock.
        threading.Thread(target=engine.cancel, daemon=True).start()

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield lambda: interrupts > 0
    finally:
        signal.signal(signal.SIGINT, before)


def stream(
    session: Session, request: Request, *, stats: bool, silent: bool = False,
    observe: Callable[[Reply], None] = lambda _: None,
) -> Reply:  # fmt: skip
    """Run a request and write its reply as it comes; `silent` writes notices only.

    `stats` asks for a last line with the statistics. Errors of the engine are left to the caller;
    an answer without the form that was asked for is said to be so, and comes with its `error`.
    """
    info = session.start().info
    # What is on a pipe cannot be taken back, as an answer must that turns out to be reasoning.
    may_reason = request.think is False and info is not None and info.thinks
    held = may_reason and not silent and not is_terminal(sys.stdout)
    printer = ReplyPrinter(quiet=session.quiet)
    status = Status("reading the prompt", shown=not session.quiet)

    def show(event: Event) -> None:
        if isinstance(event, PromptProgress):
            if event.total:
                status.text = f"reading the prompt {event.done / event.total:.0%}"
            return
        if isinstance(event, ReasoningDelta | AnswerDelta | AnswerWithdrawn) and (silent or held):
            status.text = "answering"
            return
        status.stop()
        if isinstance(event, ReasoningDelta):
            printer.reasoning(event.text)
        elif isinstance(event, AnswerDelta):
            printer.answer(event.text)
        elif isinstance(event, AnswerWithdrawn):
            printer.withdrawn()
        elif isinstance(event, Notice):
            printer.finish()
            note(event.text)

    try:
        with status:
            reply = session.reply(request, show, observe)
        if held:
            printer.reasoning(reply.reasoning)
            printer.answer(reply.answer)
    finally:
        printer.finish()
    reply = checked(reply, request.sampling)
    if reply.finish_reason != "failed" and reply.error:
        note(reply.error)
    elif reply.finish_reason == "length":
        note(cut_off(reply))
    if reply.never_answered:
        note("The model stopped within its reasoning: there is no answer. Ask again.")
    if stats and reply.stats is not None:
        note(stats_line(reply.stats))
    return reply
