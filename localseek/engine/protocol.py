"""The messages between the client and the engine child: one JSON object a line.

Client to child: load, generate, cancel, quit. Child to client: loaded, then events, each with
the number of its request. Knows nothing about processes or llama.cpp.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from localseek.events import (
    EVENT_TYPES,
    AnswerDelta,
    DraftStats,
    Event,
    Finished,
    ReasoningDelta,
    Stats,
)

Role = Literal["system", "user", "assistant"]
Mtp = Literal["auto", "off"] | int  # tokens drafted a step: chosen by measurement, none, or these


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; an assistant's `content` is its answer without reasoning."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Fixed:
    """What the user has fixed of a placement; None and empty leave it to the engine."""

    gpu_layers: int | None = None
    cpu_experts: int | None = None
    place: tuple[tuple[str, str], ...] = ()  # (regular expression over tensor names, device)
    devices: tuple[str, ...] = ()
    cache_type: str = ""
    mmap: bool | None = None
    remote: tuple[str, ...] = ()  # HOST:PORT of workers
    remote_timeout_s: float = 120.0  # a worker that lets the engine wait for longer is lost


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load a model. `ctx` 0 means: as long as trained, at most 32,768 tokens."""

    model: str  # path of a GGUF file
    ctx: int = 0
    threads: int = 0  # 0: as many as physical cores
    mtp: Mtp = "auto"
    draft_model: str = ""  # path of a file with the multi-token prediction layer; "": look for it
    fixed: Fixed = field(default_factory=Fixed)
    prompt_cache: bool = False  # save what was read, and put it back in a later run
    parallel: int = 1  # requests that are answered at once at most; 0: chosen
    draft_memory: bool = False  # begin with what an earlier run learnt of drafts, and keep it


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens; None takes what the model's file recommends, then our default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    top_n_sigma: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    repeat_last_n: int | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    seed: int | None = None  # None: a new one each time
    # What follows is for the answer only, after the reasoning.
    logit_bias: tuple[tuple[int | str, float | None], ...] = ()  # token, bias; None: never
    grammar: str = ""  # GBNF that `localseek.grammar` has made or checked


@dataclass(frozen=True, slots=True)
class Request:
    """One generation. `think` None leaves the template's own default.

    `think_budget`: tokens of reasoning after which it is closed and the answer follows.
    """

    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    think: bool | None = None
    think_budget: int | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the child says of a model it has loaded."""

    path: str
    name: str
    architecture: str
    description: str  # llama.cpp's own: architecture, size, type
    size_bytes: int
    parameters: int
    context_size: int
    context_trained: int
    drafting: bool  # the multi-token prediction layer is loaded and in use
    thinks: bool  # the chat template opens or knows <think>
    load_seconds: float = 0.0
    parallel: int = 1  # requests that are answered at once
    placement: dict[str, Any] = field(default_factory=dict)  # a `Placement`'s fields
    allotted: tuple[dict[str, Any], ...] = ()  # what llama.cpp says of it, by device


_to_json = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def encode(message: dict[str, Any]) -> bytes:
    """Give a message as one line; surrogates from broken input are replaced."""
    return _to_json(message).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """Read one line; raises ValueError when it is no JSON object."""
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("a protocol message is a JSON object")
    return message


def decode_load(message: dict[str, Any]) -> LoadOptions:
    """Read load options from a decoded message."""
    fields = {k: v for k, v in message.items() if k != "op"}
    fixed = dict(fields.pop("fixed", {}))
    fixed["place"] = tuple((rule, device) for rule, device in fixed.get("place", ()))
    for name in ("devices", "remote"):
        fixed[name] = tuple(fixed.get(name, ()))
    return LoadOptions(**fields, fixed=Fixed(**fixed))


def encode_event(number: int, event: Event) -> bytes:
    """Give an event of request `number` as one line."""
    if isinstance(event, ReasoningDelta | AnswerDelta):  # many: `asdict` copies in depth
        fields = {"text": event.text, "tokens": event.tokens}
        return encode({"event": type(event).__name__, "request": number, **fields})
    return encode({"event": type(event).__name__, "request": number, **asdict(event)})


def decode_event(message: dict[str, Any]) -> Event:
    """Read an event from a decoded message; raises KeyError for an unknown kind."""
    fields = {k: v for k, v in message.items() if k not in ("event", "request")}
    kind = EVENT_TYPES[message["event"]]
    if kind is Finished:
        stats = dict(fields["stats"])
        if stats.get("draft") is not None:
            stats["draft"] = DraftStats(**stats["draft"])
        return Finished(fields["reason"], Stats(**stats))
    return kind(**fields)


def encode_request(number: int, request: Request) -> bytes:
    """Give a generation request as one line."""
    return encode({"op": "generate", "request": number, **asdict(request)})


def decode_request(message: dict[str, Any]) -> Request:
    """Read a generation request from a decoded message."""
    sampling = dict(message["sampling"])
    sampling["logit_bias"] = tuple((token, bias) for token, bias in sampling["logit_bias"])
    return Request(
        messages=tuple(Message(**m) for m in message["messages"]),
        sampling=Sampling(**sampling),
        max_tokens=message["max_tokens"],
        stop=tuple(message["stop"]),
        think=message["think"],
        think_budget=message["think_budget"],
    )
