"""Keywords → the values of options.py, each checked by name and by what the command line allows.

`ctx=4096` belongs to the load, `temperature=0.7` to an answer. Takes mappings, gives `LoadOptions`
and `Request`; raises UsageError that names the nearest option. The names are those of options.py:
none is said again here.
"""

import argparse
import difflib
import json
import os
import reprlib
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from localseek.errors import UsageError
from localseek.options import (
    Fixed,
    GenerationOptions,
    LoadOptions,
    Message,
    Request,
    Sampling,
)
from localseek.placing.shape import CACHE_TYPES
from localseek.terminal import settings
from localseek.text.messages import messages_of

Prompt = str | Sequence[Message | Mapping[str, str]]
FIXED = frozenset(one.name for one in fields(Fixed))
LOAD = FIXED | {one.name for one in fields(LoadOptions)} - {"fixed", "model"}
ANSWER = frozenset(
    one.name for kind in (Sampling, Request) for one in fields(kind)
) - {"messages", "sampling"} | {"system"}  # fmt: skip
BEYOND_ROWS: dict[str, type] = {  # what a batch row cannot set, and so settings.py doesn't check
    "begun_reasoning": str, "begun_answer": str, "raw": bool, "keep": bool,
}  # fmt: skip


def check_names(given: Iterable[str], known: frozenset[str] | set[str], others: str = "") -> None:
    """Raise UsageError for the first name that is unknown; `others` says where the rest belongs."""
    for name in given:
        if name in known:
            continue
        if name in LOAD | ANSWER:
            raise UsageError(f"{name} is no option here.", others)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]}?" if near else f"There is: {', '.join(sorted(known))}."
        raise UsageError(f"There is no option {name!r}.", hint)


def request_base(request: Request | None) -> Request:
    """Give the request that keywords come on top of; raises UsageError for what is none."""
    if request is None:
        return Request()
    if not isinstance(request, Request):
        raise UsageError(f"request is {request!r}, not a Request.", "Options can be keywords.")
    return request


def model_name(model: Any) -> str:
    """Give what names a model, a text or a path, as a text; raises UsageError."""
    try:
        return os.fsdecode(model)
    except TypeError as error:
        raise UsageError(
            f"The model is {model!r}, neither a name nor a path.", 'Write "nano", for one.'
        ) from error


def request_of(prompt: Prompt, base: Request | None, options: Mapping[str, Any]) -> Request:
    """Give what the engine is asked: `base` with the messages of a prompt and with options."""
    made = with_options(request_base(base), options)
    return replace(made, messages=messages_from(prompt, options.get("system") or ""))


def with_options(base: Request, options: Mapping[str, Any]) -> Request:
    """Give a request with options set; None leaves one as it is. Raises UsageError."""
    check_names(options, ANSWER, "It says how a model is loaded: give it to Engine(…).")
    row = {name: value for name, value in options.items() if value is not None}
    beyond = {name: row.pop(name) for name in BEYOND_ROWS if name in row}
    for name, value in beyond.items():
        _check_type(name, value, BEYOND_ROWS[name])
    if isinstance(row.get("stop"), tuple):
        row["stop"] = list(row["stop"])
    if "schema" in row:
        row["schema"] = _schema(row["schema"])
    if isinstance(row.get("logit_bias"), Mapping):
        row["logit_bias"] = {str(token): bias for token, bias in row["logit_bias"].items()}
    return replace(settings.with_row(GenerationOptions(request=base), row).request, **beyond)


def messages_from(prompt: Prompt, system: str = "") -> tuple[Message, ...]:
    """Give the messages of a prompt, a text or a list of messages; raises UsageError."""
    if isinstance(prompt, str):
        return messages_of({"prompt": prompt}, system)
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes | bytearray | memoryview):
        raise UsageError("The prompt is neither a text nor a list of messages.")
    given = [asdict(one) if isinstance(one, Message) else one for one in prompt]
    plain = [dict(one) if isinstance(one, Mapping) else one for one in given]
    return messages_of({"messages": plain}, system)


def check_prompts(prompts: Any) -> None:
    """Raise UsageError for what holds no prompts, a single one too."""
    single = isinstance(prompts, str | bytes | bytearray | Mapping | Message)
    if single or not isinstance(prompts, Iterable | AsyncIterable):
        raise UsageError(
            f"prompts is {reprlib.repr(prompts)}, not a list of prompts.",
            "Write [prompt] for a single one, or use reply(…).",
        )


def load_options(options: Mapping[str, Any]) -> LoadOptions:
    """Give load options without a file; None leaves one to the engine. Raises UsageError."""
    check_names(options, LOAD, "It says how to answer: give it to reply(…) or stream(…).")
    found = {name: _loaded(name, value) for name, value in options.items() if value is not None}
    fixed = Fixed(**{name: found.pop(name) for name in FIXED & found.keys()})
    if found.get("prompt_cache") and found.get("parallel", 1) != 1:
        raise UsageError("prompt_cache saves one sequence at a time.", "Leave it or parallel out.")
    return replace(GenerationOptions().load, **found, fixed=fixed)


def _loaded(name: str, value: Any) -> Any:
    """Give the value of a load option, checked."""
    if (number := _NUMBERS.get(name)) is not None:
        try:
            return settings.LOAD_CHECKS[number](value)
        except ValueError as error:
            raise UsageError(f"{name} is {value!r}, not a number {error}.") from error
    if (read := _READERS.get(name)) is not None:
        try:
            return read(value)
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"{name}: {error}.") from error
    _check_type(name, value, bool)
    return value


def _check_type(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise UsageError(f"{name} is {value!r}, not a {kind.__name__}.")


def _texts(value: Any) -> tuple[str, ...]:
    """Give one text or several as several."""
    if isinstance(value, str):
        return tuple(value.split(","))
    if not isinstance(value, Sequence) or not all(isinstance(one, str) for one in value):
        raise argparse.ArgumentTypeError(f"{value!r} is neither a text nor a list of texts")
    return tuple(value)


def _workers(value: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(settings.worker_address(one) for one in _texts(value)))


def _rules(value: Any) -> tuple[tuple[str, str], ...]:
    """Give placement rules, from a mapping or from pairs."""
    pairs = value.items() if isinstance(value, Mapping) else value
    try:
        rules = tuple((rule, device) for rule, device in pairs)
    except (TypeError, ValueError) as error:
        text = f"{value!r} is neither a mapping nor pairs of REGEX and DEVICE"
        raise argparse.ArgumentTypeError(text) from error
    return tuple(settings.place_rule(f"{rule}={device}") for rule, device in rules)


def _cache_type(value: Any) -> str:
    if value not in CACHE_TYPES:
        raise argparse.ArgumentTypeError(f"{value!r} is none of {', '.join(CACHE_TYPES)}")
    return str(value)


def _path(value: Any) -> str:
    try:
        return os.fsdecode(value)
    except TypeError as error:
        raise argparse.ArgumentTypeError(f"{value!r} is not a path") from error


def _template(value: Any) -> str:
    from localseek.text.template import ChatTemplate  # noqa: PLC0415 — jinja2 takes a while

    _check_type("chat_template", value, str)
    return ChatTemplate(value, "", "").source


def _schema(value: Any) -> Any:
    """Give a schema as plain JSON values, from these or from a text."""
    try:
        return json.loads(value if isinstance(value, str) else json.dumps(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"schema is not JSON: {error}.") from error


_NUMBERS = {
    "ctx": "ctx", "threads": "threads", "parallel": "parallel", "gpu_layers": "layers",
    "cpu_experts": "layers", "remote_timeout_s": "timeout",
}  # fmt: skip
_READERS: dict[str, Callable[[Any], Any]] = {
    "mtp": lambda value: settings.mtp_of(str(value)), "draft_model": _path, "place": _rules,
    "devices": _texts, "cache_type": _cache_type, "remote": _workers, "chat_template": _template,
}  # fmt: skip
