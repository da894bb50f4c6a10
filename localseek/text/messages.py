"""Messages as programs and rows of a batch write them → ours, checked.

Takes a mapping with a prompt or messages, gives `Message`s; raises UsageError. Knows nothing about
templates and files.
"""

from typing import Any, cast, get_args

from localseek.errors import UsageError
from localseek.options import Message, Role


def messages_of(row: dict[str, Any], system: str) -> tuple[Message, ...]:
    """Give what the model is shown for a row; raises UsageError if it says nothing."""
    prompt, given = row.get("prompt"), row.get("messages")
    if (prompt is None) == (given is None):
        raise UsageError("A row needs either prompt or messages.")
    if given is None:
        if not isinstance(prompt, str) or not prompt.strip():
            raise UsageError("prompt is not a string, or is empty.")
        messages = [Message("user", prompt)]
    else:
        if not isinstance(given, list) or not given:
            raise UsageError("messages is not a list, or is empty.")
        messages = [_message(entry) for entry in given]
        if messages[-1].role != "user":
            raise UsageError("The last of messages is not the user's.")
    if system and messages[0].role != "system":
        messages.insert(0, Message("system", system))
    return tuple(messages)


def _message(entry: Any) -> Message:
    if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
        raise UsageError("Each of messages needs role and content, both texts.")
    if entry.get("role") not in get_args(Role):
        raise UsageError(f"The role {entry.get('role')!r} is none of {', '.join(get_args(Role))}.")
    return Message(cast(Role, entry["role"]), entry["content"])
