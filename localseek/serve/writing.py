"""Our replies → OpenAI's objects, whole and in pieces.

Takes replies and events, gives JSON values and the lines of a stream. Knows nothing about
connections or engines.
"""

import json
from dataclasses import dataclass
from typing import Any

from localseek.events import Stats
from localseek.text.conversation import Reply

DONE = b"data: [DONE]\n\n"


def to_json(value: Any) -> bytes:
    """Give JSON; half characters from broken text are replaced."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def sse(value: Any) -> bytes:
    """Give one event of a stream."""
    return b"data: " + to_json(value) + b"\n\n"


def model_object(name: str, created: int) -> dict[str, Any]:
    """Give what /v1/models says of a model."""
    return {"id": name, "object": "model", "created": created, "owned_by": "localseek"}


def usage_object(stats: Stats) -> dict[str, Any]:
    """Give the counts of tokens."""
    return {
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": stats.generated_tokens,
        "total_tokens": stats.prompt_tokens + stats.generated_tokens,
        "prompt_tokens_details": {"cached_tokens": stats.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": stats.reasoning_tokens},
    }


def left_out(stats: Stats) -> dict[str, Any]:
    """Give the count of turns that didn't fit the context, nothing if all did; not OpenAI's."""
    return {"turns_left_out": stats.turns_left_out} if stats.turns_left_out else {}


@dataclass(frozen=True, slots=True)
class Answer:
    """What all objects of one answer have in common."""

    id: str
    model: str
    created: int
    chat: bool
    usage: bool = False  # a stream ends with counts, and says null before

    def whole(self, reply: Reply) -> dict[str, Any]:
        """Give a finished reply as one object."""
        choice: dict[str, Any] = {"index": 0}
        if self.chat:
            message = {"role": "assistant", "content": reply.answer, "refusal": None}
            if reply.reasoning:
                message["reasoning_content"] = reply.reasoning
            choice["message"] = message
        else:
            choice["text"] = reply.answer
        choice |= {"logprobs": None, "finish_reason": reply.finish_reason}
        head = self._head("chat.completion" if self.chat else "text_completion", [choice])
        stats = reply.stats or Stats()
        return {**head, "usage": usage_object(stats), **left_out(stats)}

    def begin(self) -> bytes:
        """Give the first piece of a stream, which has no text yet."""
        return self._piece({"role": "assistant", "content": ""}) if self.chat else b""

    def reasoning(self, text: str) -> bytes:
        """Give a piece of the reasoning; a text that goes on without a chat has none."""
        return self._piece({"reasoning_content": text}) if self.chat else self.text(text)

    def text(self, text: str) -> bytes:
        """Give a piece of the answer."""
        return self._piece({"content": text} if self.chat else {"text": text})

    def end(self, reason: str, stats: Stats) -> bytes:
        """Give how the answer ended, the counts if they are wanted, and the end of the stream."""
        last = self._piece({} if self.chat else {"text": ""}, reason, left_out(stats))
        if not self.usage:
            return last + DONE
        return last + sse({**self._head(self._kind, []), "usage": usage_object(stats)}) + DONE

    @property
    def _kind(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    def _piece(
        self, fields: dict[str, Any], reason: str | None = None, more: dict[str, Any] | None = None
    ) -> bytes:
        choice: dict[str, Any] = {"index": 0, **({"delta": fields} if self.chat else fields)}
        choice |= {"logprobs": None, "finish_reason": reason}
        usage = {"usage": None} if self.usage else {}
        return sse({**self._head(self._kind, [choice]), **usage, **(more or {})})

    def _head(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id, "object": kind, "created": self.created, "model": self.model,
            "choices": choices,
        }  # fmt: skip
