"""Rows of an OpenAI batch file: `{"custom_id", "method", "url", "body"}`, answered in kind.

Takes a row's object, gives the request that `serve` would make of its body; takes a reply, gives
the object that OpenAI's output file has for it. Knows nothing about files.
"""

import time
from collections.abc import Mapping
from typing import Any

from localseek.errors import UsageError
from localseek.options import GenerationOptions, Request
from localseek.serve.reading import Served, read_chat
from localseek.serve.writing import Answer
from localseek.text.conversation import Reply

URL = "/v1/chat/completions"


def is_one(row: Mapping[str, Any]) -> bool:
    """Tell whether a row is one of an OpenAI batch file."""
    return "custom_id" in row and "body" in row


def fields_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Give `id` and `body`; raises UsageError for another address than that of chats."""
    if row.get("url", URL) != URL or row.get("method", "POST") != "POST":
        raise UsageError(f"Only POST {URL} is answered, not {row.get('method')} {row.get('url')}.")
    if not isinstance(row["body"], dict):
        raise UsageError("body is not an object.")
    return {"id": row["custom_id"], "body": row["body"]}


def request_of(
    body: Mapping[str, Any], options: GenerationOptions, takes_effort: bool
) -> Request:
    """Give what the engine is asked; raises ApiError that names what cannot be done.

    `takes_effort`: the model's chat template knows a reasoning effort. Whatever model the row
    names, the one at hand answers, and none of it is streamed.
    """
    asked = {name: value for name, value in body.items() if name not in ("model", "stream")}
    served = Served(options.model, options, thinks=True, takes_effort=takes_effort, created=0)
    return read_chat({**asked, "model": options.model}, served).request


def answer(head: Mapping[str, Any], model: str, reply: Reply) -> dict[str, Any]:
    """Give OpenAI's object for a reply, with what our own rows begin with."""
    body = Answer(f"chatcmpl-{head['key']}", model, int(time.time()), chat=True).whole(reply)
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
