"""The tables of the history, as steps from each version to the next, each a list of statements.

A step that has been released is never edited: a change of the tables is a new step at the end.
The version of a database is how many steps it has been through (PRAGMA user_version).
"""

# Conversations, their messages as a tree, and an index of trigrams over finished text: trigrams
# find words inside Chinese text, which has no spaces. A row with a `writer` still grows, and is
# indexed when it is done. Messages go with their conversation only: were each deleted with its
# parent, SQLite's limit of 1,000 nested deletions would end a long conversation's.
FIRST = (
    """
    CREATE TABLE conversation (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        title TEXT NOT NULL,
        system TEXT NOT NULL,
        model TEXT NOT NULL,
        created REAL NOT NULL,
        used REAL NOT NULL,
        pinned INTEGER NOT NULL DEFAULT 0,
        archived INTEGER NOT NULL DEFAULT 0,
        leaf INTEGER
    )
    """,
    "CREATE INDEX conversation_used ON conversation (used)",
    """
    CREATE TABLE message (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        conversation INTEGER NOT NULL REFERENCES conversation (id) ON DELETE CASCADE,
        parent INTEGER,
        role TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
        content TEXT NOT NULL,
        reasoning TEXT NOT NULL DEFAULT '',
        model TEXT NOT NULL DEFAULT '',
        finish_reason TEXT NOT NULL DEFAULT '',
        error TEXT NOT NULL DEFAULT '',
        stats TEXT,
        writer TEXT,
        created REAL NOT NULL
    )
    """,
    "CREATE INDEX message_parent ON message (conversation, parent)",
    "CREATE INDEX message_writer ON message (writer) WHERE writer IS NOT NULL",
    """
    CREATE VIRTUAL TABLE message_text USING fts5 (
        content, content='message', content_rowid='id', tokenize='trigram'
    )
    """,
    """
    CREATE TRIGGER message_added AFTER INSERT ON message WHEN new.writer IS NULL BEGIN
        INSERT INTO message_text (rowid, content) VALUES (new.id, new.content);
    END
    """,
    """
    CREATE TRIGGER message_done AFTER UPDATE OF writer ON message
    WHEN old.writer IS NOT NULL AND new.writer IS NULL BEGIN
        INSERT INTO message_text (rowid, content) VALUES (new.id, new.content);
    END
    """,
    """
    CREATE TRIGGER message_gone AFTER DELETE ON message WHEN old.writer IS NULL BEGIN
        INSERT INTO message_text (message_text, rowid, content)
        VALUES ('delete', old.id, old.content);
    END
    """,
)

# Settings of a conversation, the saved sequences that hold what was read of it (store/sequences.py
# knows the files), and answers that go on: the index forgets one while it grows again.
SECOND = (
    "ALTER TABLE conversation ADD COLUMN settings TEXT NOT NULL DEFAULT '{}'",
    """
    CREATE TABLE sequence (
        conversation INTEGER NOT NULL REFERENCES conversation (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        PRIMARY KEY (conversation, name)
    )
    """,
    """
    CREATE TRIGGER message_again AFTER UPDATE OF writer ON message
    WHEN old.writer IS NULL AND new.writer IS NOT NULL BEGIN
        INSERT INTO message_text (message_text, rowid, content)
        VALUES ('delete', old.id, old.content);
    END
    """,
)

# Keys of what is kept elsewhere; only an encrypted history has any (conversion.py).
THIRD = ("CREATE TABLE kept_key (name TEXT PRIMARY KEY, value BLOB NOT NULL)",)
MIGRATIONS: tuple[tuple[str, ...], ...] = (FIRST, SECOND, THIRD)
