"""Rows of an OpenAI batch file: `{"custom_id", "method", "url", "body"}` → our fields, and back.

Takes a row's object, gives the fields that our own rows have; takes a reply, gives the object that
OpenAI's output file has for it. What would change the answer and is not supported is refused by
name. Knows nothing about files.
"""

from collections.abc import Mapping
from typing import Any

from localseek.errors import UsageError
from localseek.text.conversation import Reply

URL = "/v1/chat/completions"
SAME = (
    "temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty", "logit_bias",
    "max_tokens", "top_k", "min_p",
)  # fmt: skip
IGNORED = frozenset(("model", "user", "metadata", "store", "service_tier", "n", "stream"))
EFFORTS: dict[str, dict[str, Any]] = {
    "none": {"think": False}, "minimal": {"think": False}, "high": {"effort": "high"},
}  # fmt: skip
FINISHED = {"stop": "stop", "length": "length"}


def is_one(row: Mapping[str, Any]) -> bool:
    """Tell whether a row is one of an OpenAI batch file."""
    return "custom_id" in row and "body" in row


def fields_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Give our fields; raises UsageError that names what cannot be done."""
    if row.get("url", URL) != URL or row.get("method", "POST") != "POST":
        raise UsageError(f"only POST {URL} is answered, not {row.get('method')} {row.get('url')}.")
    body = row["body"]
    if not isinstance(body, dict):
        raise UsageError("body is not an object.")
    fields = {name: body[name] for name in SAME if body.get(name) is not None}
    fields |= {"id": row["custom_id"], "messages": _messages(body.get("messages"))}
    if body.get("max_completion_tokens") is not None:
        fields["max_tokens"] = body["max_completion_tokens"]
    if body.get("n") not in (None, 1):
        raise UsageError("n is not 1: a row has one answer.")
    if (effort := body.get("reasoning_effort")) is not None:
        fields |= EFFORTS.get(effort, {}) if isinstance(effort, str) else {}
    fields |= _format(body.get("response_format"))
    known = {*SAME, *IGNORED, "messages", "max_completion_tokens", "reasoning_effort",
             "response_format"}  # fmt: skip
    if others := sorted(name for name in body.keys() - known if body[name] is not None):
        raise UsageError(f"{others[0]} is not supported.")
    return fields


def _messages(given: Any) -> Any:
    """Give messages whose contents are texts where they were lists of parts with text."""
    if not isinstance(given, list):
        return given
    return [
        {**one, "content": _text(one["content"])}
        if isinstance(one, dict) and isinstance(one.get("content"), list)
        else one
        for one in given
    ]


def _text(parts: list[Any]) -> str:
    for part in parts:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            raise UsageError("a part of content is not text.")
    return "".join(part["text"] for part in parts)


def _format(given: Any) -> dict[str, Any]:
    """Give the schema of a response_format."""
    if given is None or given == {"type": "text"}:
        return {}
    kind = given.get("type") if isinstance(given, dict) else None
    if kind == "json_object":
        return {"schema": {"type": "object"}}
    described = given.get("json_schema") if kind == "json_schema" else None
    if not isinstance(described, dict) or "schema" not in described:
        raise UsageError("response_format is none of text, json_object and json_schema.")
    return {"schema": described["schema"]}


def answer(head: Mapping[str, Any], model: str, reply: Reply) -> dict[str, Any]:
    """Give OpenAI's object for a reply, with what our own rows begin with."""
    stats = reply.stats
    prompt, generated = (stats.prompt_tokens, stats.generated_tokens) if stats else (0, 0)
    message = {"role": "assistant", "content": reply.answer}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    body = {
        "object": "chat.completion",
        "model": model,
        "choices": [{
            "index": 0, "message": message,
            "finish_reason": FINISHED.get(reply.finish_reason, "stop"),
        }],
        "usage": {
            "prompt_tokens": prompt, "completion_tokens": generated,
            "total_tokens": prompt + generated,
            "prompt_tokens_details": {"cached_tokens": stats.cached_tokens if stats else 0},
        },
    }  # fmt: skip
    response = {"status_code": 200, "request_id": f"row-{head['index']}", "body": body}
    return {**_head(head), "response": response, "error": None}


def failure(head: Mapping[str, Any], message: str) -> dict[str, Any]:
    """Give OpenAI's object for a row that failed."""
    error = {"code": "failed", "message": message}
    return {**_head(head), "response": None, "error": error}


def _head(head: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "index": head["index"], "key": head["key"], "id": f"row-{head['index']}",
        "custom_id": head.get("id"),
    }  # fmt: skip
