"""Search over the titles and texts of all conversations, as one types.

Words of three characters and more are looked up in the index of trigrams; shorter ones, as most
Chinese words are, by reading the texts that are left: 10,000 messages take tens of milliseconds.
Takes a connection, gives plain rows. Knows nothing about what a row means to a reader.
"""

import sqlite3
from typing import Any

from localseek.store.history.records import Role

INDEXED = 3  # characters; the length of a trigram
BEFORE, AFTER = 30, 90  # characters of an excerpt around the first word
Found = tuple[int, int | None, Role | None, str]  # conversation, message, its role, an excerpt


def find(connection: sqlite3.Connection, text: str, limit: int) -> list[Found]:
    """Give the places that hold every word of `text`: titles first, then the newest messages."""
    words = text.split()
    if not words:
        return []
    titles = _titles(connection, words, limit)
    return [*titles, *_messages(connection, words, limit - len(titles))]


def _titles(connection: sqlite3.Connection, words: list[str], limit: int) -> list[Found]:
    where = " AND ".join(["title LIKE ? ESCAPE '\\'"] * len(words))
    rows = connection.execute(
        f"SELECT id, title FROM conversation WHERE {where} ORDER BY used DESC LIMIT ?",
        (*map(_pattern, words), limit),
    )
    return [(number, None, None, title) for number, title in rows]


def _messages(connection: sqlite3.Connection, words: list[str], limit: int) -> list[Found]:
    indexed = [word for word in words if len(word) >= INDEXED]
    conditions = ["writer IS NULL"]
    values: list[Any] = []
    if indexed:
        conditions.append("id IN (SELECT rowid FROM message_text WHERE message_text MATCH ?)")
        values.append(" AND ".join('"' + word.replace('"', '""') + '"' for word in indexed))
    for word in words:
        if len(word) < INDEXED:
            conditions.append("content LIKE ? ESCAPE '\\'")
            values.append(_pattern(word))
    rows = connection.execute(
        f"SELECT conversation, id, role, content FROM message WHERE {' AND '.join(conditions)} "
        "ORDER BY id DESC LIMIT ?",
        (*values, max(0, limit)),
    )
    return [
        (number, message, role, excerpt(content, words)) for number, message, role, content in rows
    ]


def excerpt(content: str, words: list[str]) -> str:
    """Give the text around the first place of the first word, on one line."""
    place = content.lower().find(words[0].lower())
    begin = max(0, place - BEFORE)
    end = max(place, 0) + AFTER
    middle = " ".join(content[begin:end].split())
    return ("…" if begin else "") + middle + ("…" if end < len(content) else "")


def _pattern(word: str) -> str:
    """Give the LIKE pattern of texts that hold a word, whatever signs are in it."""
    for sign in "\\%_":
        word = word.replace(sign, "\\" + sign)
    return f"%{word}%"
