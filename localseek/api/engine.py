"""A model that answers: load it, ask it, stream from it, give it many prompts at once.

Takes a model's name and options as keywords, gives replies, typed events and batches. One engine
may be used from several threads. The model runs in a child process, which ends with the engine.
"""

import logging
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Self

from localseek.api.answer import Answer
from localseek.api.batch import Asked, Batch
from localseek.api.keywords import (
    Prompt,
    check_prompts,
    load_options,
    messages_from,
    model_name,
    request_base,
    request_of,
    with_options,
)
from localseek.api.models import completed, find_runnable_model
from localseek.api.rows import Owner
from localseek.api.switchboard import Switchboard
from localseek.engine.process import measurement, protocol
from localseek.engine.process.measurement import Measured, Task
from localseek.errors import EngineError, UsageError
from localseek.options import DEFAULT_MODEL, GenerationOptions, LoadOptions, ModelInfo, Request
from localseek.text.conversation import Reply

Say = Callable[[str], None]
Progress = Callable[[float], None]


def to_log(text: str) -> None:
    """Say what belongs to no answer to the logger `localseek`."""
    logging.getLogger("localseek").info("%s", text)


def prepared(model: str | os.PathLike[str], options: LoadOptions, say: Say) -> LoadOptions:
    """Give how a model is loaded, its file found and checked; raises ModelError."""
    name = model_name(model)
    path = find_runnable_model(name, say)
    found, notice = completed(GenerationOptions(name, load=options), path)
    if notice:
        say(notice)
    return found.load_options(path)


class Engine:
    """A loaded model; use it as a context manager, or call `close`.

    An engine whose process dies fails what it was answering, with the cause; the next request
    starts it again. It cannot be used in a process that was forked after it was made.
    """

    def __init__(
        self, model: str | os.PathLike[str] = DEFAULT_MODEL, *, progress: Progress | None = None,
        say: Say = to_log, **options: Any,
    ) -> None:  # fmt: skip
        """Load `model`: a path, a name in the library, or nano; options are LoadOptions' names.

        `progress` is called with 0..1 from another thread, `say` with what belongs to no answer.
        Raises ModelError, UsageError for options that cannot be, EngineError.
        """
        self._begin(prepared(model, load_options(options), say), say)
        try:
            self.load(progress)
        except BaseException:
            self.close()
            raise

    @classmethod
    def of(cls, options: LoadOptions, say: Say = to_log) -> Self:
        """Make an engine of values, its file checked by the caller; `load` or a request loads it.

        This and what takes a `Request` in place of keywords is the layer below, which the command
        line and the app use.
        """
        engine = cls.__new__(cls)
        engine._begin(options, say)
        return engine

    def _begin(self, options: LoadOptions, say: Say) -> None:
        self.switchboard = Switchboard(options, say)  # this room's own, no part of the API
        # Of an engine that is dropped, or that is there when the interpreter ends, nothing stays.
        weakref.finalize(self, self.switchboard.abandon)

    # What it is.

    @property
    def info(self) -> ModelInfo:
        """Give what is known of the model; raises EngineError if none was ever loaded."""
        if self.switchboard.info is None:
            raise EngineError("No model is loaded.", "Call load().")
        return self.switchboard.info

    @property
    def options(self) -> LoadOptions:
        """Give how the model is loaded."""
        return self.switchboard.options

    @property
    def alive(self) -> bool:
        """Tell whether the process runs, its model loaded."""
        return self.switchboard.alive

    @property
    def pid(self) -> int:
        """Give the number of the process; raises EngineError if none runs."""
        if (child := self.switchboard.child) is None:
            raise EngineError("The engine is not running.")
        return child.pid

    @property
    def waiting(self) -> int:
        """Give how many requests wait for a place; `info.parallel` are answered at once."""
        return self.switchboard.waiting

    # Asking it.

    def reply(self, prompt: Prompt, *, request: Request | None = None, **options: Any) -> Reply:
        """Answer a text or a list of messages; what goes wrong on the way is the reply's `error`.

        Options are those of `Request` and `Sampling`, and `system`; `request` holds what they leave
        out. Raises UsageError for options that cannot be.
        """
        with self.stream(prompt, request=request, **options) as answer:
            return answer.reply

    def stream(self, prompt: Prompt, *, request: Request | None = None, **options: Any) -> Answer:
        """Begin an answer and give it: an iterator over its events; see `reply`."""
        return self.generate(request_of(prompt, request, options))

    def batch(
        self, prompts: Iterable[Prompt], *, in_order: bool = False, request: Request | None = None,
        **options: Any,
    ) -> Batch[int]:  # fmt: skip
        """Answer many prompts, `parallel` at once; gives each one's index with its reply.

        Prompts are drawn when there is a place; one that is none gets a failed reply. The replies
        come as they are whole, or `in_order`.
        """
        check_prompts(prompts)
        base = with_options(request_base(request), options)
        asked = requests_for(prompts, base, options.get("system") or "")
        return Batch(self.switchboard, asked, in_order=in_order, owner=self)

    def generate(self, request: Request, ended: Callable[[Reply], None] = lambda _: None) -> Answer:
        """Begin to answer a request; `ended` is given the reply once its last event was read."""
        return Answer(self.switchboard, request, self, ended)

    def generate_all(
        self, requests: Iterable[Asked[Owner]], died: Callable[[int], None] = lambda _: None
    ) -> Batch[Owner]:
        """Answer requests that each belong to something; `died`: see `Batch`."""
        return Batch(self.switchboard, requests, died, owner=self)

    # Its life.

    def load(self, progress: Progress | None = None) -> ModelInfo:
        """Start the process if none runs, and wait for its model; requests do so by themselves.

        Raises EngineError, UsageError for options that cannot be meant. Ctrl-C ends the process.
        """
        return self.switchboard.load(progress)

    def cancel(self) -> None:
        """End all answers, those that wait too, and a measurement."""
        self.switchboard.cancel_all()

    def kill(self) -> None:
        """End the process at once; what it was answering fails. For signal handlers."""
        self.switchboard.kill()

    def close(self) -> None:
        """End answers, process and thread; nothing can be asked any more. May be called again."""
        self.switchboard.close()

    def __enter__(self) -> Self:
        self.switchboard.check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What few need.

    def keep(self) -> str:
        """Save what was read last, as `prompt_cache` does; give the file's name, "" if none.

        For an engine with a prompt cache that answers nothing. Raises EngineError.
        """
        found = self.switchboard.run_errand(
            lambda number: protocol.encode({"op": "keep", "request": number})
        )
        return str(found["name"])

    def facts(self) -> dict[str, str]:
        """Give what the process says of its build, devices, workers and network."""
        found = self.switchboard.run_errand(
            lambda number: protocol.encode({"op": "doctor", "request": number})
        )
        return dict(found["facts"])

    def measure(self, task: Task) -> Measured:
        """Let the process measure something, until `cancel`; raises EngineError with its reason."""
        found = self.switchboard.run_errand(
            lambda number: measurement.encode_task(number, task)
        )
        return measurement.decode_measured(found)


def requests_for(
    prompts: Iterable[Prompt], base: Request, system: str
) -> Iterator[tuple[int, Request | UsageError]]:  # fmt: skip
    """Give a request for each prompt, or why it is none."""
    for index, prompt in enumerate(prompts):
        try:
            yield index, replace(base, messages=messages_from(prompt, system))
        except UsageError as error:
            yield index, error
