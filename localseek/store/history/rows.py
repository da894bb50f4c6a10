"""Rows of the database → records, and the columns that these are made of.

Takes tuples, gives the frozen values of records.py. Of a row that a broken disk has damaged, all
that can be read. Knows nothing about connections.
"""

import json
from typing import Any

from localseek.events import DraftStats, Stats
from localseek.store.history.records import Message, Saved

SAVED = """
    SELECT id, title, system, model, created, used, pinned, archived, leaf,
        (SELECT count(*) FROM message WHERE message.conversation = conversation.id), settings
    FROM conversation
"""
# By the newest message and not by time: a clock that was wrong, or is, changes no order.
LAST_USED = (
    "(SELECT max(id) FROM message WHERE message.conversation = conversation.id) DESC, used DESC"
)
MESSAGE = """
    SELECT id, parent, role, content, reasoning, model, finish_reason, error, stats, created
    FROM message
"""


def stored(text: str) -> str:
    """Give text that UTF-8 can hold: halves of characters from broken input are replaced."""
    return text.encode("utf-8", "replace").decode()


def saved_of(row: tuple[Any, ...]) -> Saved:
    """Give the conversation of a row of `SAVED`."""
    number, title, system, model, created, used, pinned, archived, leaf, messages, settings = row
    return Saved(
        number, title, system, model, created, used, bool(pinned), bool(archived), leaf, messages,
        _object(settings),
    )  # fmt: skip


def message_of(row: tuple[Any, ...]) -> Message:
    """Give the message of a row of `MESSAGE`."""
    number, parent, role, content, reasoning, model, finish_reason, error, stats, created = row
    return Message(
        number, parent, role, content, reasoning, model, finish_reason, error, _stats(stats),
        created,
    )  # fmt: skip


def _stats(text: str | None) -> Stats | None:
    fields = _object(text)
    try:
        if fields.get("draft") is not None:
            fields["draft"] = DraftStats(**fields["draft"])
        return Stats(**fields) if fields else None
    except TypeError:  # damaged
        return None


def _object(text: str | None) -> dict[str, Any]:
    """Give what JSON holds, nothing if it is damaged."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
