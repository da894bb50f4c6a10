"""The history: conversations, and their messages as a tree.

A message's children are what followed it: two answers to a prompt are variants, two prompts after
an answer are a fork. A conversation remembers the leaf at which it was left; the way from there to
the root is what is shown. Every method is one transaction; several programs may use one history at
once. Raises HistoryError (database.py). Knows nothing about engines, terminals or Textual.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from localseek.errors import LocalseekError, UsageError
from localseek.store.history.cipher import Key
from localseek.store.history.database import (
    HistoryError,
    explained,
    open_database,
    transaction,
)
from localseek.store.history.records import Deletion, Hit, Message, Saved, title_of
from localseek.store.history.rows import LAST_USED, MESSAGE, SAVED, message_of, saved_of, stored
from localseek.store.history.search import find
from localseek.system import paths, running
from localseek.text.conversation import Reply


class History:
    """One open history; `close` it, or use it as a context manager."""

    def __init__(
        self, path: Path | None = None, clock: Callable[[], float] = time.time,
        key: Key | None = None,
    ) -> None:  # fmt: skip
        """Open the history in LOCALSEEK_HOME, or the file `path`; make it if it is missing.

        Raises LockedError if it is encrypted and `key` is not its own.
        """
        self.path = path or own_path()
        self._clock = clock
        self._db = open_database(self.path, key)
        self._overwritten = True  # what was deleted
        self._settle()

    def close(self) -> None:
        """Close the database; may be called again."""
        if not self._overwritten:
            with contextlib.suppress(HistoryError):
                self._empty_log()
        self._db.close()

    def __enter__(self) -> "History":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Conversations

    def new(self, prompt: str, model: str, system: str = "") -> int:
        """Make a conversation that `prompt` will open; give its number."""
        now = self._clock()
        with transaction(self._db, self.path):
            return self._inserted(
                "INSERT INTO conversation (title, system, model, created, used) "
                "VALUES (?, ?, ?, ?, ?)",
                stored(title_of(prompt)), stored(system), model, now, now,
            )  # fmt: skip

    def conversations(self, archived: bool | None = False) -> list[Saved]:
        """Give the conversations, pinned ones first, then the last used; `archived` None: all."""
        with explained(self.path):
            rows = self._db.execute(
                f"{SAVED} WHERE ?1 IS NULL OR archived = ?1 ORDER BY pinned DESC, {LAST_USED}",
                (archived,),
            )
            return [saved_of(row) for row in rows]

    def conversation(self, number: int) -> Saved:
        """Give one conversation; raises UsageError if there is none with this number."""
        with explained(self.path):
            row = self._db.execute(f"{SAVED} WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise UsageError(f"There is no conversation {number}.", "See localseek history list.")
        return saved_of(row)

    def named(self, name: str) -> Saved:
        """Give the conversation that a number or the beginning of a title names.

        "" names the last used one. Raises UsageError where none or several are meant.
        """
        number = name.removeprefix("#")
        if number.isascii() and number.isdigit() and len(number) < 19:  # SQLite's integers
            return self.conversation(int(number))
        known = self.conversations(archived=None)
        if not name:
            if not known:
                raise UsageError("There is no conversation to continue yet.")
            with explained(self.path):
                row = self._db.execute(f"{SAVED} ORDER BY {LAST_USED} LIMIT 1").fetchone()
            return saved_of(row)
        wanted = " ".join(name.split()).casefold()
        exact = [one for one in known if one.title.casefold() == wanted]
        meant = exact or [one for one in known if one.title.casefold().startswith(wanted)]
        if len(meant) == 1:
            return meant[0]
        if not meant:
            raise UsageError(
                f"No conversation's title begins with {name!r}.", "See localseek history list."
            )
        raise UsageError(
            f"{len(meant)} conversations begin with {name!r}.",
            "Name one by its number: " + ", ".join(f"{one.id} {one.title}" for one in meant[:3]),
        )

    def change(
        self, number: int, *, title: str | None = None, system: str | None = None,
        model: str | None = None, pinned: bool | None = None, archived: bool | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Change what is given of a conversation; its time of last use stays."""
        values: dict[str, Any] = {
            "title": title, "system": system, "model": model, "pinned": pinned,
            "archived": archived, "settings": None if settings is None else json.dumps(settings),
        }  # fmt: skip
        given = {name: value for name, value in values.items() if value is not None}
        with transaction(self._db, self.path):
            for name, value in given.items():
                text = stored(value) if isinstance(value, str) else value
                self._db.execute(f"UPDATE conversation SET {name} = ? WHERE id = ?", (text, number))

    def delete(self, numbers: Iterable[int]) -> Deletion:
        """Delete conversations for good: their text, their part of the index, the log of both.

        The saved sequences that held what was read of them are the caller's to remove.
        """
        names: list[str] = []
        with transaction(self._db, self.path):
            for number in numbers:
                rows = self._db.execute(
                    "SELECT name FROM sequence WHERE conversation = ?", (number,)
                )
                names += [name for (name,) in rows]
                self._db.execute("DELETE FROM conversation WHERE id = ?", (number,))
            self._merge_index()
        return Deletion(tuple(names), self._empty_log())

    def _merge_index(self) -> None:
        """Leave nothing in the index of what is gone."""
        self._db.execute("INSERT INTO message_text (message_text) VALUES ('optimize')")

    def _empty_log(self) -> bool:
        """Leave nothing in the log of what is gone; tell whether no other program reads it."""
        with explained(self.path):
            (busy, *_) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self._overwritten = not busy  # else when this history is closed, or the last one is
        return self._overwritten

    def secret(self, name: str) -> bytes | None:
        """Give a key that is kept here, None if there is none."""
        with explained(self.path):
            row = self._db.execute("SELECT value FROM kept_key WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def keep_sequence(self, number: int, name: str) -> None:
        """Note that a saved sequence holds what was read of a conversation; raises GoneError."""
        with transaction(self._db, self.path):
            self._db.execute(
                "INSERT INTO sequence VALUES (?, ?) ON CONFLICT DO NOTHING", (number, name)
            )

    # Messages

    def add_prompt(self, conversation: int, parent: int | None, text: str) -> int:
        """Add a prompt after `parent` (None: at the beginning); give its number."""
        return self._add(conversation, parent, "user", text, "", None)

    def begin_answer(self, conversation: int, prompt: int, model: str) -> int:
        """Add an empty answer that this process is going to write; give its number."""
        return self._add(conversation, prompt, "assistant", "", model, running.this_process())

    def write_answer(self, answer: int, reply: Reply) -> None:
        """Write what there is of an answer so far, or all of it once the reply is finished.

        Only what this process has begun, and not finished, is written.
        """
        stats = json.dumps(asdict(reply.stats)) if reply.stats is not None else None
        with transaction(self._db, self.path):
            self._db.execute(
                "UPDATE message SET content = ?, reasoning = ?, finish_reason = ?, error = ?, "
                "stats = ?, writer = CASE WHEN ?3 = '' THEN writer END "
                "WHERE id = ?6 AND writer = ?7",
                (
                    stored(reply.answer), stored(reply.reasoning), reply.finish_reason,
                    stored(reply.error), stats, answer, running.this_process(),
                ),
            )  # fmt: skip

    def resume_answer(self, answer: int) -> None:
        """Let this process write on at an answer that was cut off."""
        with transaction(self._db, self.path):
            self._db.execute(
                "UPDATE message SET writer = ?, finish_reason = '' WHERE id = ? AND writer IS NULL",
                (running.this_process(), answer),
            )

    def drop_answer(self, answer: int) -> bool:
        """Take back an answer that nothing follows, and what only led to it.

        That is its prompt if it has no other answer, and the conversation if nothing else is in
        it: then True is given.
        """
        childless = "DELETE FROM message WHERE id = ?1 AND NOT EXISTS "
        childless += "(SELECT 1 FROM message WHERE parent = ?1)"
        with transaction(self._db, self.path):
            place: int | None = answer
            conversation = None
            for role in ("assistant", "user"):
                row = self._db.execute(
                    "SELECT conversation, parent FROM message WHERE id = ? AND role = ?",
                    (place, role),
                ).fetchone()
                if row is None or self._db.execute(childless, (place,)).rowcount == 0:
                    break
                conversation, place = row
            if conversation is None:
                return False
            self._db.execute(
                "UPDATE conversation SET leaf = ? WHERE id = ?",
                (self._end_of(conversation, place), conversation),
            )
            gone = self._db.execute(
                "DELETE FROM conversation WHERE id = ?1 "
                "AND NOT EXISTS (SELECT 1 FROM message WHERE conversation = ?1)",
                (conversation,),
            )
            self._merge_index()
        self._empty_log()
        return gone.rowcount > 0

    def _end_of(self, conversation: int, message: int | None) -> int | None:
        """Give the end of what followed a message last (None: the beginning)."""
        leaf = message
        while True:
            row = self._db.execute(
                "SELECT max(id) FROM message WHERE conversation = ? AND parent IS ?",
                (conversation, leaf),
            ).fetchone()
            if row[0] is None:
                return leaf
            leaf = row[0]

    def last_prompts(self, limit: int) -> list[str]:
        """Give what was asked last, in all conversations, the newest at the end."""
        with explained(self.path):
            rows = self._db.execute(
                "SELECT content FROM message WHERE role = 'user' ORDER BY id DESC LIMIT ?", (limit,)
            )
            return [content for (content,) in rows][::-1]

    def branch(self, leaf: int | None) -> list[Message]:
        """Give the messages from the first to `leaf`."""
        with explained(self.path):
            rows = self._db.execute(
                "WITH RECURSIVE way (id, parent, depth) AS ("
                "  SELECT id, parent, 0 FROM message WHERE id = ?"
                "  UNION ALL SELECT message.id, message.parent, depth + 1"
                "  FROM message JOIN way ON message.id = way.parent"
                f") {MESSAGE.replace('SELECT id, parent', 'SELECT message.id, message.parent')} "
                "JOIN way USING (id) ORDER BY depth DESC",
                (leaf,),
            )
            return [message_of(row) for row in rows]

    def all_messages(self, conversation: int) -> list[Message]:
        """Give every message of a conversation, all variants and forks, in the order written."""
        with explained(self.path):
            rows = self._db.execute(
                f"{MESSAGE} WHERE conversation = ? ORDER BY id", (conversation,)
            )
            return [message_of(row) for row in rows]

    def leave_at(self, conversation: int, message: int) -> list[Message]:
        """Go to the branch of a message, to the end of what followed it last; give the branch."""
        with transaction(self._db, self.path):
            leaf = self._end_of(conversation, message)
            self._db.execute("UPDATE conversation SET leaf = ? WHERE id = ?", (leaf, conversation))
        return self.branch(leaf)

    def search(self, text: str, limit: int = 50) -> list[Hit]:
        """Find titles and messages that hold every word of `text`, the last used first."""
        with explained(self.path):
            found = find(self._db, text, limit)
            known = {one.id: one for one in self.conversations(archived=None)} if found else {}
        return [
            Hit(known[number], message, role, excerpt)
            for number, message, role, excerpt in found
            if number in known
        ]

    def _add(
        self, conversation: int, parent: int | None, role: str, text: str, model: str,
        writer: str | None,
    ) -> int:  # fmt: skip
        now = self._clock()
        with transaction(self._db, self.path):
            number = self._inserted(
                "INSERT INTO message (conversation, parent, role, content, model, writer, created) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                conversation, parent, role, stored(text), model, writer, now,
            )  # fmt: skip
            self._db.execute(
                "UPDATE conversation SET leaf = ?, used = ? WHERE id = ?",
                (number, now, conversation),
            )
        return number

    def _inserted(self, statement: str, *values: Any) -> int:
        return int(self._db.execute(statement, values).lastrowid or 0)

    def _settle(self) -> None:
        """Close answers whose program is gone: what they had reached is what there is of them."""
        with explained(self.path):
            rows = self._db.execute(
                "SELECT DISTINCT writer FROM message WHERE writer IS NOT NULL"
            ).fetchall()
        gone = [writer for (writer,) in rows if not running.is_running(writer)]
        if gone:
            with transaction(self._db, self.path):
                self._db.executemany(
                    "UPDATE message SET writer = NULL, finish_reason = 'interrupted' "
                    "WHERE writer = ?",
                    [(writer,) for writer in gone],
                )


def own_path() -> Path:
    """Give the file of the history in LOCALSEEK_HOME; raises HistoryError."""
    try:
        return paths.folder("history") / "history.sqlite3"
    except LocalseekError as error:
        raise HistoryError(error.message, error.hint) from error
