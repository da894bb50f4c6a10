"""The messages between the client and the engine child: one JSON object a line.

Client to child: load, generate, cancel, keep, quit. Child to client: loaded, then events, each
with the number of its request. Knows nothing about processes or llama.cpp.
"""

import json
from dataclasses import asdict
from typing import Any

from localseek.events import (
    EVENT_TYPES,
    AnswerDelta,
    DraftStats,
    Event,
    Finished,
    ReasoningDelta,
    Stats,
)
from localseek.options import Fixed, LoadOptions, Message, Request, Sampling

NOT_OPTIONS = ("op", "listener", "secret")  # what `prove` has besides

_to_json = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def encode(message: dict[str, Any]) -> bytes:
    """Give a message as one line; surrogates from broken input are replaced."""
    return _to_json(message).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """Read one line; raises ValueError when it is not a JSON object."""
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("a protocol message is a JSON object")
    return message


def decode_load(message: dict[str, Any]) -> LoadOptions:
    """Read load options from a decoded message."""
    fields = {k: v for k, v in message.items() if k not in NOT_OPTIONS}
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
        effort=message["effort"],
        begun_reasoning=message.get("begun_reasoning", ""),
        begun_answer=message.get("begun_answer", ""),
        raw=message.get("raw", False),
        keep=message.get("keep", True),
    )
