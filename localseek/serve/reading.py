"""OpenAI's requests → ours: every field is taken, known to change nothing, or refused by name.

Takes the bytes of a body, gives a `Request` and how it is to be answered; raises ApiError. Knows
nothing about connections or engines.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from localseek.errors import UsageError
from localseek.options import GenerationOptions, Message, Request
from localseek.serve.errors import ApiError
from localseek.serve.messages import read_messages
from localseek.terminal.settings import CHECKS, with_row

MAX_STOPS = 16  # each is looked for in every piece of text; OpenAI takes 4
COMPLETION_TOKENS = 16  # OpenAI's default where a text goes on without a chat
# Nothing of the answer depends on these.
IGNORED = frozenset({
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "parallel_tool_calls", "prediction", "cache_prompt",
})  # fmt: skip
# What we don't do, with the values that ask for nothing.
REFUSED: dict[str, tuple[Any, ...]] = {
    "tools": ([],), "functions": ([],), "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"), "n": (1,), "logprobs": (False,), "top_logprobs": (0,),
    "modalities": (["text"],), "audio": (), "web_search_options": (), "verbosity": ("medium",),
    "moderation": (),
}  # fmt: skip
REFUSED_COMPLETION: dict[str, tuple[Any, ...]] = {
    "n": (1,), "best_of": (1,), "echo": (False,), "suffix": ("",), "logprobs": ()
}  # fmt: skip
NUMBERS = tuple(name for name in CHECKS if name != "max_tokens")  # also ours: top_k, min_p, …
SHARED = frozenset({
    "model", "stream", "stream_options", "max_tokens", "stop", "logit_bias", "grammar", *NUMBERS
})  # fmt: skip
CHAT = SHARED | {
    "messages", "max_completion_tokens", "response_format", "reasoning_effort",
    "chat_template_kwargs",
}  # fmt: skip
COMPLETION = (SHARED - {"think_budget"}) | {"prompt"}
# OpenAI's efforts → ours; those without one leave the reasoning as it is by default.
EFFORTS = {"minimal": "", "low": "", "medium": "", "high": "high", "xhigh": "max", "max": "max"}
SWITCHES = ("enable_thinking", "thinking")  # of chat templates


@dataclass(frozen=True, slots=True)
class Served:
    """The model that is served: its name, what was set on the command line."""

    name: str
    options: GenerationOptions
    thinks: bool  # its chat template knows of reasoning
    takes_effort: bool  # its chat template knows a reasoning effort
    created: int  # seconds since 1970


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and how its answer is wanted."""

    request: Request
    chat: bool
    held: bool  # only at its end is it sure which part of it is reasoning
    stream: bool = False
    usage: bool = False  # a stream ends with the counts of tokens


def parse_object(body: bytes) -> dict[str, Any]:
    """Give the JSON object of a body; raises ApiError."""
    try:
        value = json.loads(
            body.decode("utf-8"), parse_constant=_not_finite, parse_float=_finite
        )  # fmt: skip
    except UnicodeDecodeError as error:
        raise ApiError(400, "The body is not valid UTF-8.", code="invalid_json") from error
    except RecursionError as error:
        raise ApiError(400, "The body is nested too deeply.", code="invalid_json") from error
    except ValueError as error:
        message = f"The body is not valid JSON: {error}."
        raise ApiError(400, message, code="invalid_json") from error
    if not isinstance(value, dict):
        raise ApiError(400, "The body is not a JSON object.", code="invalid_json")
    return value


def _not_finite(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError("a number is too large")
    return number


def read_chat(body: dict[str, Any], served: Served) -> Asked:
    """Read the body of /v1/chat/completions; raises ApiError."""
    _check_fields(body, CHAT, REFUSED)
    _check_model(body, served)
    messages = read_messages(body.get("messages"), served.options.system)
    options = _with_fields(served.options, body)
    if body.get("max_completion_tokens") is not None:
        options = _with(options, "max_completion_tokens", max_tokens=body["max_completion_tokens"])
    options = _with_format(options, body.get("response_format"))
    options = _with_reasoning(options, body, served.takes_effort)
    request = options.request_for(messages)
    held = served.thinks and request.think is False and not request.sampling.shaped
    return Asked(request, True, held, *_streaming(body))


def read_completion(body: dict[str, Any], served: Served) -> Asked:
    """Read the body of /v1/completions, whose prompt no template touches; raises ApiError."""
    _check_fields(body, COMPLETION, REFUSED_COMPLETION)
    _check_model(body, served)
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str) or not prompt:
        raise ApiError(400, "prompt is not one text, or is empty.", "prompt")
    options = _with_fields(served.options, body)
    request = options.request_for((Message("user", prompt),))
    most = COMPLETION_TOKENS if request.max_tokens is None else request.max_tokens
    request = replace(request, max_tokens=most, raw=True, think=None, think_budget=None, effort="")
    return Asked(request, False, False, *_streaming(body))


def _check_fields(
    body: dict[str, Any], known: Iterable[str], refused: dict[str, tuple[Any, ...]]
) -> None:
    """Refuse what is not done here by its name; null asks for nothing."""
    for name, value in body.items():
        if value is None or name in known or name in IGNORED:
            continue
        if name not in refused:
            message = f"The field {name!r} is not known here."
            raise ApiError(400, message, name[:100], "unknown_parameter")
        if not any(type(value) is type(nothing) and value == nothing for nothing in refused[name]):
            message = f"{name} is not supported here; leave it out."
            raise ApiError(400, message, name, "unsupported_parameter")


def _check_model(body: dict[str, Any], served: Served) -> None:
    name = body.get("model")
    if name is not None and not isinstance(name, str):
        raise ApiError(400, "model is not a text.", "model")
    if name not in (None, "default", served.name):
        message = f"The model {name!r} is not served here; {served.name!r} is."
        raise ApiError(404, message, "model", "model_not_found")


def _with(options: GenerationOptions, param: str, **row: Any) -> GenerationOptions:
    """Set what a batch row would; a mistake is `param`'s."""
    try:
        return with_row(options, row)
    except UsageError as error:
        raise ApiError(400, str(error), param) from error


def _with_fields(options: GenerationOptions, body: dict[str, Any]) -> GenerationOptions:
    """Set the numbers, stop texts, biases and grammar."""
    for name in (*NUMBERS, "max_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ApiError(400, f"{name} is not a number.", name)
        options = _with(options, name, **{name: value})
    stop = body.get("stop")
    if isinstance(stop, list) and len(stop) > MAX_STOPS:
        raise ApiError(400, f"stop has more than {MAX_STOPS} texts.", "stop")
    if stop is not None:
        options = _with(options, "stop", stop=stop)
    biases = body.get("logit_bias")
    if isinstance(biases, dict) and not all(_is_token(token) for token in biases):
        raise ApiError(400, "A key of logit_bias is not the number of a token.", "logit_bias")
    if biases is not None:
        options = _with(options, "logit_bias", logit_bias=biases)
    if body.get("grammar") is not None:
        options = _with(options, "grammar", grammar=body["grammar"])
    return options


def _is_token(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _with_format(options: GenerationOptions, wanted: Any) -> GenerationOptions:
    """Hold the answer to the form that `response_format` names."""
    if wanted is None:
        return options
    param = "response_format"
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "text":
        return options
    if kind == "json_object":
        return _with(options, param, schema={"type": "object"})
    if kind != "json_schema":
        message = "response_format.type is none of text, json_object, json_schema."
        raise ApiError(400, message, param)
    inner = wanted.get("json_schema")
    if not isinstance(inner, dict) or inner.get("schema") is None:
        raise ApiError(400, "response_format.json_schema has no schema.", param)
    return _with(options, param, schema=inner["schema"])


def _with_reasoning(
    options: GenerationOptions, body: dict[str, Any], takes_effort: bool
) -> GenerationOptions:
    """Switch the reasoning, and say how hard it is where the template knows that."""
    effort = body.get("reasoning_effort")
    if effort == "none":
        options = _with(options, "reasoning_effort", think=False)
    elif effort is not None:
        if not isinstance(effort, str) or effort not in EFFORTS:
            known = ", ".join(("none", *EFFORTS))
            raise ApiError(400, f"reasoning_effort is none of {known}.", "reasoning_effort")
        if takes_effort and EFFORTS[effort]:
            options = _with(options, "reasoning_effort", effort=EFFORTS[effort])
    switches = body.get("chat_template_kwargs")
    if switches is None:
        return options
    if not isinstance(switches, dict):
        raise ApiError(400, "chat_template_kwargs is not an object.", "chat_template_kwargs")
    for name, value in switches.items():
        param = f"chat_template_kwargs.{name[:100]}"
        if name not in SWITCHES:
            raise ApiError(400, f"{param} is not known here.", param, "unknown_parameter")
        if not isinstance(value, bool):
            raise ApiError(400, f"{param} is not a boolean.", param)
        options = _with(options, param, think=value)
    return options


def _streaming(body: dict[str, Any]) -> tuple[bool, bool]:
    """Tell whether the answer is streamed, and whether with counts at its end."""
    stream, options = body.get("stream"), body.get("stream_options")
    if stream is not None and not isinstance(stream, bool):
        raise ApiError(400, "stream is not a boolean.", "stream")
    if options is None:
        return bool(stream), False
    if not isinstance(options, dict) or not stream:
        message = "stream_options is an object for answers that stream."
        raise ApiError(400, message, "stream_options")
    for name, value in options.items():
        param = f"stream_options.{name[:100]}"
        if name not in ("include_usage", "include_obfuscation"):  # the second is padding only
            raise ApiError(400, f"{param} is not known here.", param, "unknown_parameter")
        if not isinstance(value, bool):
            raise ApiError(400, f"{param} is not a boolean.", param)
    return True, bool(options.get("include_usage"))
