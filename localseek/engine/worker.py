"""The engine child's main loop: messages in, events out.

Started by `client.Engine` through `__main__.py`, which has left the network. Talks over the
standard input and output it was given; native code that prints goes to the log on standard error.
Renders the chat template, splits reasoning from answer, and groups text so that a fast model
does not drown its reader in messages.
"""

import codecs
import contextlib
import os
import queue
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from localseek import hardware
from localseek.engine import protocol
from localseek.engine.bridge import Remote
from localseek.engine.decoder import Decoder, Outcome
from localseek.engine.depth import DepthController
from localseek.engine.draft_policy import FixedDepth
from localseek.engine.keeper import Keeper, fingerprint
from localseek.engine.llama import AbortFlag, Sampler, backend_facts
from localseek.engine.loading import find_devices, load, plan_load, remote_notices, worker_facts
from localseek.engine.protocol import LoadOptions, ModelInfo, Request
from localseek.engine.thinking import Bounds, answer
from localseek.errors import LocalseekError, ModelError
from localseek.events import (
    AnswerDelta,
    Event,
    Failed,
    Finished,
    Notice,
    PromptProgress,
    ReasoningDelta,
    Stats,
)  # fmt: skip
from localseek.reasoning import Splitter
from localseek.sequences import SequenceStore
from localseek.stopping import StopFilter
from localseek.template import ChatTemplate, Prompt

FLUSH_SECONDS = 0.02  # deltas are grouped over this time
DEFAULTS = {"temperature": 0.6, "top_p": 0.95, "top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}
RECOMMENDED = {  # where a GGUF carries what its publisher recommends
    "temperature": "general.sampling.temp", "top_p": "general.sampling.top_p",
    "top_k": "general.sampling.top_k", "min_p": "general.sampling.min_p",
    "repeat_penalty": "general.sampling.penalty_repeat",
}  # fmt: skip


class Loaded:
    """A loaded model with everything that a request needs."""

    def __init__(
        self, options: LoadOptions, progress: Callable[[float], None], abort: AbortFlag,
        remotes: Sequence[Remote] = (),
    ) -> None:  # fmt: skip
        started = time.perf_counter()
        parts = load(options, progress, abort, remotes)
        info, placement = parts.planned.info, parts.planned.placement
        self.model, self.target = parts.model, parts.target
        fixed = 0 if options.mtp in ("auto", "off") else int(options.mtp)
        policy = DepthController() if options.mtp == "auto" else FixedDepth(fixed)
        self.decoder = Decoder(self.model, self.target, parts.drafter, policy)
        self.keeper: Keeper | None = None
        if options.prompt_cache:
            caches = f"{placement.cache_type}, drafts {parts.drafter is not None}"
            belongs = fingerprint(Path(options.model), caches)
            self.keeper = Keeper(self.decoder, SequenceStore(), belongs)
        bos, eos = self.model.text(self.model.bos), self.model.text(self.model.eos)
        source = info.chat_template
        self.template = ChatTemplate(source, bos, eos) if source else None
        self.info = ModelInfo(
            path=options.model,
            name=info.name,
            architecture=info.architecture,
            description=self.model.description,
            size_bytes=info.size_bytes,
            parameters=self.model.n_params,
            context_size=self.target.n_ctx,
            context_trained=self.model.n_ctx_train,
            drafting=placement.draft,
            thinks=bool(self.template and self.template.thinks),
            load_seconds=round(time.perf_counter() - started, 3),
            placement=asdict(placement),
            allotted=tuple(asdict(one) for one in parts.memory()),
        )
        self.notices = [*placement.warnings, *remote_notices(placement, remotes)]

    def prompt(self, request: Request) -> tuple[Prompt, list[int]]:
        """Render and tokenize a request's messages."""
        if self.template:
            prompt = self.template.render(request.messages, request.think)
        else:
            prompt = Prompt("\n\n".join(m.content for m in request.messages), opened=False)
        tokens = self.model.tokenize(prompt.text)
        if self.model.add_bos and tokens[:1] != [self.model.bos]:
            tokens.insert(0, self.model.bos)
        if not tokens:
            raise ModelError("The prompt is empty.", "Write something.")
        if len(tokens) >= self.target.n_ctx:
            raise ModelError(
                f"The prompt has {len(tokens):,} tokens and the context holds "
                f"{self.target.n_ctx:,}.",
                "Shorten it, start a new conversation, or raise --ctx.",
            )
        return prompt, tokens

    def sampler(self, request: Request) -> Sampler:
        """Make the sampler: the request's values, else the file's, else our defaults."""
        chosen: dict[str, float] = {}
        for name, default in DEFAULTS.items():
            value = getattr(request.sampling, name)
            if value is None:
                value = self.model.metadata(RECOMMENDED[name])
            try:
                chosen[name] = float(default if value is None else value)
            except ValueError:
                chosen[name] = default
        seed = request.sampling.seed
        return Sampler(
            self.model.n_vocab, chosen["temperature"], int(chosen["top_k"]), chosen["top_p"],
            chosen["min_p"], chosen["repeat_penalty"],
            secrets.randbits(32) if seed is None else seed & 0xFFFFFFFF,
        )  # fmt: skip


class TextStream:
    """Tokens to deltas: bytes to text, reasoning apart, stop strings, grouped over time."""

    def __init__(self, send: Callable[[Event], None], opened: bool, stops: tuple[str, ...]) -> None:
        self._send = send
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._stop = StopFilter(stops)
        self._splitter = Splitter(opened)
        self._waiting: list[tuple[str, str]] = []
        self._tokens, self._flushed = 0, time.monotonic()
        self.reasoning_tokens = 0

    @property
    def stopped(self) -> bool:
        """Tell whether a stop string has ended the text."""
        return self._stop.stopped

    @property
    def reasoning(self) -> bool:
        """Tell whether the next text is taken for reasoning."""
        return self._splitter.kind == "reasoning"

    def feed(self, pieces: list[bytes]) -> None:
        """Take the bytes of new tokens."""
        if self.reasoning:
            self.reasoning_tokens += len(pieces)
        self._tokens += len(pieces)
        text = self._decode(b"".join(pieces))
        if text:
            self._take(self._splitter.feed(text))
        now = time.monotonic()
        if now - self._flushed >= FLUSH_SECONDS:
            self._flush()
            self._flushed = now

    def finish(self) -> None:
        """Give everything that was held back."""
        if not self.stopped:
            self._take(self._splitter.feed(self._decode(b"", True)))
            self._take(self._splitter.finish())
            self._waiting.append(("answer", self._stop.finish()))
        self._flush()

    def _take(self, parts: Iterable[tuple[str, str]]) -> None:
        """Queue new text; stop strings end the answer, never the reasoning."""
        for kind, text in parts:
            self._waiting.append((kind, self._stop.feed(text) if kind == "answer" else text))

    def _flush(self) -> None:
        for kind in ("reasoning", "answer"):
            text = "".join(text for of, text in self._waiting if of == kind)
            if text:
                make = ReasoningDelta if kind == "reasoning" else AnswerDelta
                self._send(make(text, self._tokens))
                self._tokens = 0
        self._waiting = []


class Worker:
    """Reads messages on one thread, works on the main one."""

    def __init__(
        self, source: BinaryIO, sink: BinaryIO, reachable: str, remotes: Sequence[Remote]
    ) -> None:
        self._source, self._sink = source, sink
        self._reachable, self._remotes = reachable, remotes
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._cancelled: set[int] = set()
        self._running, self._abort = 0, AbortFlag()
        self._loaded: Loaded | None = None
        self._saving = threading.Lock()  # held while a sequence is written

    def run(self) -> None:
        """Work until told to quit or the client is gone."""
        threading.Thread(target=self._listen, daemon=True).start()
        while (message := self._messages.get()) is not None:
            number = int(message.get("request", 0))
            try:
                if message["op"] == "load":
                    self._load(message)
                elif message["op"] == "generate":
                    self._start(number)
                    self._generate(number, protocol.decode_request(message))
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
            except LocalseekError as error:
                failed = Failed(error.message, error.hint)
                self._write(protocol.encode_event(number, failed))

    def _listen(self) -> None:
        for line in self._source:
            message = protocol.decode(line)
            if message["op"] == "cancel":
                self._cancelled.add(message["request"])
                if message["request"] == self._running:
                    self._abort.set()
            elif message["op"] == "quit":
                break
            else:
                self._messages.put(message)
        # Without a client there is nothing left to do, however busy the main thread is.
        self._messages.put(None)
        with self._saving:
            os._exit(0)

    def _facts(self) -> dict[str, str]:
        return {**backend_facts(), **worker_facts(self._remotes), "network": self._network()}

    def _network(self) -> str:
        """Say what this process can reach."""
        if self._reachable:
            return f"reachable: {self._reachable}"
        named = ", ".join(remote.facts.address for remote in self._remotes)
        return "cut off by the kernel" + (f", save for the bridge to {named}" if named else "")

    def _write(self, line: bytes) -> None:
        self._sink.write(line)
        self._sink.flush()

    def _load(self, message: dict[str, Any]) -> None:
        loaded = Loaded(
            protocol.decode_load(message),
            lambda done: self._write(protocol.encode({"event": "loading", "done": done})),
            self._abort,
            self._remotes,
        )
        self._loaded = loaded
        self._write(protocol.encode({"event": "loaded", "info": asdict(loaded.info)}))

    def _start(self, number: int) -> None:
        """Let a request run, unless its cancel was faster."""
        self._running = number
        self._abort.clear()
        if number in self._cancelled:
            self._abort.set()

    def _generate(self, number: int, request: Request) -> None:
        def send(event: Event) -> None:
            self._write(protocol.encode_event(number, event))

        loaded = self._loaded
        if loaded is None:
            raise ModelError("No model is loaded.")
        started = time.perf_counter()
        prompt, tokens = loaded.prompt(request)
        if loaded.template is None:
            send(Notice("This model has no chat template: it continues the text as it is."))
        while loaded.notices:
            send(Notice(loaded.notices.pop(0)))
        if loaded.keeper and (notice := loaded.keeper.before(tokens)):
            send(Notice(notice))
        sampler = loaded.sampler(request)
        outcome = Outcome()
        stream = TextStream(send, prompt.opened, request.stop)
        limit = loaded.target.n_ctx if request.max_tokens is None else request.max_tokens
        try:
            sampler.accept(tokens[-64:])
            answer(
                loaded.decoder, tokens, sampler, Bounds(limit, request.think_budget), stream,
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
            draft=outcome.drafts.stats(),
        )
        self._cancelled.discard(number)
        if loaded.keeper is None:
            send(Finished(outcome.reason, stats))
            return
        with self._saving:  # taken first: the client may end the child once it has its answer
            send(Finished(outcome.reason, stats))
            if notice := loaded.keeper.after():
                print(notice, file=sys.stderr, flush=True)  # into the log: the request is over


def private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Take the standard streams for the protocol, so that nothing else can write into it."""
    source, sink = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    return os.fdopen(source, "rb"), os.fdopen(sink, "wb")


def main(reachable: str, remotes: Sequence[Remote] = ()) -> int:
    """Run the child; `reachable` says why it is not cut off from networks, "" when it is.

    `remotes` are the workers that a bridge leads to.

    Ctrl-C in the terminal is the client's to handle.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    source, sink = private_pipes()
    with contextlib.suppress(BrokenPipeError):
        Worker(source, sink, reachable, remotes).run()
    return 0
