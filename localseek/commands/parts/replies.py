"""A reply as the JSON object that machines read (design.md, section 4)."""

import json
from dataclasses import asdict
from typing import Any

from localseek.text.conversation import Reply

STATS = (
    "prompt_tokens", "cached_tokens", "prompt_tps", "generated_tokens", "decode_tps", "seconds",
    "draft",
)  # fmt: skip


def reply_object(model: str, reply: Reply) -> dict[str, Any]:
    """Give the object; `stats.draft` is null when nothing was drafted.

    `turns_left_out` is there if the conversation had outgrown the context, `error` if the answer
    lacks the form that was asked for.
    """
    stats = asdict(reply.stats) if reply.stats is not None else {}
    left_out = reply.stats.turns_left_out if reply.stats is not None else 0
    return {
        "model": model,
        "reasoning": reply.reasoning,
        "answer": reply.answer,
        "finish_reason": reply.finish_reason,
        "stats": {name: stats[name] for name in STATS} if stats else None,
        **({"turns_left_out": left_out} if left_out else {}),
        **({"error": reply.error} if reply.error and reply.finish_reason != "failed" else {}),
    }


def to_json(value: Any) -> str:
    """Give one line of JSON; half characters from broken text are replaced."""
    text = json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()
