"""A saved conversation as Markdown for people, or as JSON with all its variants for machines.

Takes records, gives text. Knows nothing about databases or files.
"""

import json
from dataclasses import asdict
from datetime import UTC, datetime

from localseek.store.history.records import Message, Saved


def as_markdown(conversation: Saved, branch: list[Message]) -> str:
    """Give one branch as Markdown; reasoning is folded."""
    parts = [f"# {conversation.title}", f"*{conversation.model}, {_day(conversation.created)}*"]
    if conversation.system:
        parts.append(f"## System\n\n{conversation.system}")
    for message in branch:
        if message.role == "user":
            parts.append(f"## Prompt\n\n{message.content}")
        else:
            parts += _answer(message)
    return "\n\n".join(parts) + "\n"


def as_text(conversation: Saved, branch: list[Message], reasoning: bool) -> str:
    """Give one branch as it is read in a terminal."""
    parts = [f"{conversation.title}  ({conversation.model}, {_day(conversation.created)})"]
    if conversation.system:
        parts.append(f"[system] {conversation.system}")
    for message in branch:
        if message.role == "user":
            parts.append(f"> {message.content.strip()}")
            continue
        if reasoning and message.reasoning.strip():
            parts.append(f"[reasoning]\n{message.reasoning.strip()}")
        ending = "" if message.finish_reason == "stop" else f"\n[{_ending(message)}]"
        parts.append(f"{message.content.strip()}{ending}".strip())
    return "\n\n".join(parts) + "\n"


def as_json(conversation: Saved, messages: list[Message]) -> str:
    """Give a conversation with all its messages; `parent` says which follows which."""
    return json.dumps(
        {**asdict(conversation), "messages": [asdict(one) for one in messages]},
        ensure_ascii=False, indent=2,
    )  # fmt: skip


def _answer(message: Message) -> list[str]:
    parts = []
    if reasoning := message.reasoning.strip():
        parts.append(f"<details><summary>Reasoning</summary>\n\n{reasoning}\n\n</details>")
    if message.content:
        parts.append(f"## Answer\n\n{message.content.strip()}")
    if message.finish_reason != "stop":
        parts.append(f"*{_ending(message)}*")
    return parts


def _ending(message: Message) -> str:
    """Say how an answer ended that did not end by itself."""
    return message.error or message.finish_reason or "still being written"


def _day(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).astimezone().strftime("%Y-%m-%d")
