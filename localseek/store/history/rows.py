"""Rows of the database → records, and the columns that these are made of.

Takes tuples, gives the frozen values of records.py. Knows nothing about connections.
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
        json.loads(settings),
    )  # fmt: skip


def message_of(row: tuple[Any, ...]) -> Message:
    """Give the message of a row of `MESSAGE`."""
    number, parent, role, content, reasoning, model, finish_reason, error, stats, created = row
    return Message(
        number, parent, role, content, reasoning, model, finish_reason, error, _stats(stats),
        created,
    )  # fmt: skip


def _stats(text: str | None) -> Stats | None:
    if text is None:
        return None
    fields = json.loads(text)
    if fields.get("draft") is not None:
        fields["draft"] = DraftStats(**fields["draft"])
    return Stats(**fields)
