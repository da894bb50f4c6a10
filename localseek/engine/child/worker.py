"""The engine child's main loop: messages in, events out.

Started by `client.Child` through `__main__.py`, which has left the network and closed the files.
Talks over the pipes it is given; native code that prints goes to the log on standard error.
"""

import contextlib
import gc
import itertools
import os
import queue
import threading
import time
from dataclasses import asdict, replace
from typing import Any, BinaryIO, NoReturn

from localseek.engine.child.benchmark import Benchmark
from localseek.engine.decoding.decoder import Outcome
from localseek.engine.decoding.sequence import Job
from localseek.engine.decoding.text_stream import TextStream
from localseek.engine.decoding.thinking import Bounds, answer
from localseek.engine.llama import AbortFlag, backend_facts
from localseek.engine.loading.load import find_devices, plan_load, worker_facts
from localseek.engine.loading.loaded import Loaded
from localseek.engine.loading.surroundings import Surroundings
from localseek.engine.process import measurement, protocol
from localseek.errors import ContextError, LocalseekError, ModelError, UsageError
from localseek.events import (
    Event,
    Failed,
    Finished,
    Notice,
    PromptProgress,
    Stats,
)  # fmt: skip
from localseek.options import Request
from localseek.system import hardware


class Worker:
    """Reads messages on one thread, works on the main one."""

    def __init__(
        self, source: BinaryIO, sink: BinaryIO, first: bytes, around: Surroundings
    ) -> None:  # fmt: skip
        self._source, self._sink, self._first = source, sink, first
        self._around, self._remotes = around, around.remotes
        self._messages: queue.Queue[dict[str, Any]] = queue.Queue()
        self._cancelled: set[int] = set()
        self._running, self._abort = 0, AbortFlag()
        self._loaded: Loaded | None = None
        self._benchmark: Benchmark | None = None
        self._saving = threading.RLock()  # held while something is written for a later run

    def run(self) -> NoReturn:
        """Work; the listening thread ends it all. Raises BrokenPipeError: nobody hears it."""
        threading.Thread(target=self._listen, daemon=True).start()
        while True:
            message = self._next()
            number = int(message.get("request", 0))
            try:
                if message["op"] == "load":
                    self._load(message)
                elif message["op"] == "generate":
                    self._start(number)
                    self._generate(number, protocol.decode_request(message))
                elif message["op"] == "bench":
                    self._start(number)
                    self._measure(number, message)
                elif message["op"] == "keep":
                    self._keep()
                elif message["op"] == "plan":
                    planned = plan_load(protocol.decode_load(message), self._remotes, True)
                    facts = {"machine": asdict(planned.machine)}
                    facts["placement"] = asdict(planned.placement)
                    self._write(protocol.encode({"event": "plan", **facts}))
                elif message["op"] == "machine":
                    machine = hardware.read_machine(find_devices(self._remotes).values)
                    self._write(protocol.encode({"event": "machine", "machine": asdict(machine)}))
                elif message["op"] == "doctor":
                    self._write(protocol.encode({"event": "doctor", "facts": self._facts()}))
                elif message["op"] == "prove":
                    self._prove(message)
            except LocalseekError as error:
                failed = Failed(
                    error.message, error.hint, wrong_use=isinstance(error, UsageError),
                    too_long=isinstance(error, ContextError),
                )  # fmt: skip
                self._write(protocol.encode_event(number, failed))

    def _next(self) -> dict[str, Any]:
        """Give the next message; until one comes, work on what several requests have asked for."""
        scheduler = self._loaded.scheduler if self._loaded else None
        while scheduler and scheduler.busy and self._messages.empty():
            scheduler.step()
        return self._messages.get()

    def _listen(self) -> None:
        for line in itertools.chain((self._first,) if self._first else (), self._source):
            message = protocol.decode(line)
            if message["op"] == "cancel":
                self._cancelled.add(message["request"])
                if self._all_cancelled():
                    self._abort.set()
            elif message["op"] == "quit":
                break
            else:
                self._messages.put(message)
        # Without a client there is nothing left to do, however busy the main thread is.
        self.leave()

    def leave(self) -> NoReturn:
        """End the process once nothing is being written for a later run.

        At once: an interpreter that takes itself and a model apart needs a second or more.
        """
        with self._saving:
            os._exit(0)

    def _all_cancelled(self) -> bool:
        """Tell whether nobody wants what is being computed."""
        scheduler = self._loaded.scheduler if self._loaded else None
        running = scheduler.numbers if scheduler else frozenset((self._running,))
        return running <= self._cancelled

    def _facts(self) -> dict[str, str]:
        around = self._around
        return {
            **backend_facts(), **worker_facts(self._remotes),
            **around.layers.facts(around.workers),
        }  # fmt: skip

    def _prove(self, message: dict[str, Any]) -> None:
        """Try to get out in every way, and tell what each attempt met."""
        from localseek.airgap import attempts  # noqa: PLC0415  (only for this)

        layers = self._around.layers
        native = attempts.native(layers, message["listener"], message["secret"])
        by_python = attempts.by_python()
        self._write(protocol.encode({
            "event": "proof", "layers": {one.name: one.words for one in layers.tried},
            "native": [asdict(one) for one in native],
            "by_python": [asdict(one) for one in by_python],
        }))  # fmt: skip

    def _write(self, line: bytes) -> None:
        self._sink.write(line)
        self._sink.flush()

    def _load(self, message: dict[str, Any]) -> None:
        loaded = Loaded(
            protocol.decode_load(message),
            lambda done: self._write(protocol.encode({"event": "loading", "done": done})),
            self._abort,
            self._cancelled.__contains__,
            self._around,
        )
        self._loaded = loaded
        gc.freeze()  # what a model has brought stays: not to be looked through in every answer
        info = replace(loaded.info, network=self._around.network)
        self._write(protocol.encode({"event": "loaded", "info": asdict(info)}))

    def _keep(self) -> None:
        """Save what was read last; say which file holds it, "" if none does."""
        with self._saving:
            keeper = self._loaded.keeper if self._loaded else None
            path = keeper.save() if keeper else None
            self._write(protocol.encode({"event": "kept", "name": path.name if path else ""}))

    def _start(self, number: int) -> None:
        """Let a request run, unless its cancel was faster; a scheduler sees to that itself."""
        if self._loaded and self._loaded.scheduler:
            return
        self._running = number
        self._abort.clear()
        if number in self._cancelled:
            self._abort.set()

    def _measure(self, number: int, message: dict[str, Any]) -> None:
        if self._loaded is None:
            raise ModelError("No model is loaded.")
        if self._benchmark is None:
            self._benchmark = Benchmark(self._loaded)
        task = measurement.decode_task(message)
        found = self._benchmark.run(task, lambda: number in self._cancelled)
        with self._saving:
            self._loaded.keep_learnt()
        self._write(measurement.encode_measured(number, found))

    def _generate(self, number: int, request: Request) -> None:
        loaded = self._loaded
        if loaded is None:
            raise ModelError("No model is loaded.")

        def send(event: Event) -> None:
            if not isinstance(event, Finished | Failed):
                self._write(protocol.encode_event(number, event))
                return
            with self._saving:  # taken first: the client may end the child once it has its answer
                self._write(protocol.encode_event(number, event))
                self._cancelled.discard(number)
                if not loaded.scheduler or len(loaded.scheduler.numbers) <= 1:  # not for each row
                    loaded.keep_learnt()

        started = time.perf_counter()
        prepared = loaded.prompt(request)
        tokens = prepared.tokens
        if loaded.template is None and not request.raw:
            send(Notice("This model has no chat template: it continues the text as it is."))
        while loaded.notices:
            send(Notice(loaded.notices.pop(0)))
        if prepared.notice:
            send(Notice(prepared.notice))
        if loaded.keeper and (notice := loaded.keeper.before(tokens)):
            send(Notice(notice))
        sampler = loaded.sampler(request, prepared.prompt.opened)
        outcome = Outcome()
        prompt = prepared.prompt
        stream = TextStream(
            send,
            prompt.opened,
            request.stop,
            prompt.closed,
            prompt.space,
            request.sampling.shaped,
            request.continues or request.raw,
        )
        limit = loaded.target.n_ctx if request.max_tokens is None else request.max_tokens
        bounds = Bounds(limit, request.think_budget, loaded.closing, loaded.ends(request))
        if loaded.scheduler:
            left_out = prepared.turns_left_out
            loaded.scheduler.add(Job(number, tokens, sampler, stream, bounds, send, left_out))
            return
        try:
            sampler.accept(tokens)
            answer(
                loaded.decoder, tokens, sampler, bounds, stream,
                lambda: number in self._cancelled,
                lambda done, cached: send(PromptProgress(done, len(tokens), cached)), outcome,
            )  # fmt: skip
        finally:
            sampler.close()
        stream.finish()
        seconds = time.perf_counter() - started
        decoding = seconds - outcome.prompt_seconds
        stats = Stats(
            prompt_tokens=len(tokens),
            cached_tokens=outcome.cached,
            prompt_tps=round(outcome.read / max(outcome.prompt_seconds, 1e-9), 2),
            generated_tokens=outcome.generated,
            reasoning_tokens=min(stream.reasoning_tokens, outcome.generated),
            decode_tps=round(outcome.generated / decoding, 2) if decoding > 0 else 0.0,
            seconds=round(seconds, 4),
            context_used=len(loaded.decoder.cached),
            context_size=loaded.target.n_ctx,
            turns_left_out=prepared.turns_left_out,
            draft=outcome.drafts.stats(),
        )
        if loaded.keeper is None or not request.keep:
            send(Finished(outcome.reason, stats))
            return
        with self._saving:  # see `send`
            send(Finished(outcome.reason, stats))
            if notice := loaded.keeper.after():
                send(Notice(notice))  # the client shows it with the next answer, or at the end


def main(source: BinaryIO, sink: BinaryIO, first: bytes, around: Surroundings) -> NoReturn:
    """Work until the client is done; `first` is the message that was read of `source` already."""
    worker = Worker(source, sink, first, around)
    with contextlib.suppress(BrokenPipeError):
        worker.run()
    worker.leave()
