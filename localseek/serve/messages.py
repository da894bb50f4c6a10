"""OpenAI's messages → ours: texts and roles; pictures, sounds and tools are refused by name.

Takes a parsed `messages` field, gives `Message`s; raises ApiError that names the entry. Knows
nothing about templates.
"""

from typing import Any

from localseek.options import Message, Role
from localseek.serve.errors import ApiError

ROLES: dict[str, Role] = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant"
}  # fmt: skip
TOOLS = ("tool_calls", "function_call", "audio")


def read_messages(given: Any, system: str) -> tuple[Message, ...]:
    """Give what the model is shown; `system` comes first unless the client has one of its own."""
    if not isinstance(given, list) or not given:
        raise ApiError(400, "messages is not a list, or is empty.", "messages")
    messages = [_message(entry, f"messages[{index}]") for index, entry in enumerate(given)]
    if messages[-1].role != "user":
        message = "The last of messages is not the user's."
        raise ApiError(400, message, f"messages[{len(messages) - 1}].role")
    if system and messages[0].role != "system":
        messages.insert(0, Message("system", system))
    return tuple(messages)


def _message(entry: Any, place: str) -> Message:
    if not isinstance(entry, dict):
        raise ApiError(400, f"{place} is not an object.", place)
    role = entry.get("role")
    if role in ("tool", "function"):
        message = "Tools are not supported here."
        raise ApiError(400, message, f"{place}.role", "unsupported_parameter")
    if not isinstance(role, str) or role not in ROLES:
        raise ApiError(400, f"{place}.role is none of {', '.join(ROLES)}.", f"{place}.role")
    for name in TOOLS:
        if entry.get(name):
            param = f"{place}.{name}"
            raise ApiError(400, f"{param} is not supported here.", param, "unsupported_parameter")
    return Message(ROLES[role], _text(entry.get("content"), f"{place}.content"))


def _text(content: Any, place: str) -> str:
    """Give a content as one text: a string, or parts that are texts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ApiError(400, f"{place} is neither a text nor a list of parts.", place)
    return "".join(_part(part, f"{place}[{index}]") for index, part in enumerate(content))


def _part(part: Any, place: str) -> str:
    if not isinstance(part, dict):
        raise ApiError(400, f"{place} is not an object.", place)
    if part.get("type") != "text":
        message = f"{place} is not a text; other parts are not supported here."
        raise ApiError(400, message, f"{place}.type", "unsupported_parameter")
    if not isinstance(part.get("text"), str):
        raise ApiError(400, f"{place}.text is not a text.", f"{place}.text")
    return str(part["text"])
