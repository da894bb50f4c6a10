"""An engine for a verb: loaded when first needed, again after it died; Ctrl-C cancels.

Takes generation options, gives replies, and shows on the terminal what is waited for. `ask`,
`chat`, `batch` and `serve` share it.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from localseek import Engine
from localseek.api.models import completed, find_runnable_model
from localseek.commands.parts.unlocking import with_key
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
from localseek.text.answers import cut_off
from localseek.text.conversation import Reply


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
        self._engine = Engine.of(self.options.load_options(self.path), say=note)

    @property
    def alive(self) -> bool:
        """Tell whether an engine runs."""
        return self._engine.alive

    @property
    def takes_effort(self) -> bool:
        """Tell whether the model's chat template knows a reasoning effort."""
        template = self.options.load.chat_template or read_info(self.path).chat_template or ""
        return "reasoning_effort" in template

    def start(self) -> Engine:
        """Give the engine, started and loaded if it is not; raises EngineError."""
        if self._engine.alive:
            return self._engine
        title = f"loading {self.name}"

        def progress(done: float) -> None:
            status.text = f"{title} {done:.0%}"

        with Status(title, shown=not self.quiet) as status:
            self._engine.load(progress)
        return self._engine

    def reply(
        self, request: Request, show: Callable[[Event], None],
        observe: Callable[[Reply], None] = lambda _: None,
    ) -> Reply:  # fmt: skip
        """Run a request, show each event, give the whole reply; Ctrl-C cancels it.

        `observe` is given the reply so far, after each event.
        """
        engine = self.start()
        with (
            engine.generate(request) as answer,
            cancelled_by_interrupt(answer.cancel, engine.kill) as interrupted,
        ):
            for event in answer:
                show(event)
                observe(answer.so_far)
        self.interrupted |= interrupted()
        return answer.reply

    def close(self) -> None:
        """End the engine."""
        self._engine.close()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def cancelled_by_interrupt(
    cancel: Callable[[], None], kill: Callable[[], None]
) -> Iterator[Callable[[], bool]]:  # fmt: skip
    """Turn the first Ctrl-C into a cancel; the second ends the engine and interrupts.

    Gives a function that tells whether the first one has come.
    """
    interrupts = 0

    def on_interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 1:
            kill()
            raise KeyboardInterrupt
        # On a thread of its own: the code that was interrupted may hold the engine's lock.
        threading.Thread(target=cancel, daemon=True).start()

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
    may_reason = request.think is False and info.thinks
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
    if reply.finish_reason != "failed" and reply.error:
        note(reply.error)
    elif reply.finish_reason == "length":
        note(cut_off(reply))
    if reply.never_answered:
        note("The model stopped within its reasoning: there is no answer. Ask again.")
    if stats and reply.stats is not None:
        note(stats_line(reply.stats))
    return reply
