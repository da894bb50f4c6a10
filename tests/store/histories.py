"""Histories with secret words, and what can be found in their files."""

from pathlib import Path

from localseek.store.history import leftovers
from localseek.store.history.conversion import SEQUENCES
from localseek.store.history.database import HistoryError, LockedError
from localseek.store.history.history import History
from localseek.store.sequences import SequenceStore
from localseek.text.conversation import Reply

ROOT = Path(__file__).parents[2]
MAGIC = b"SQLite format 3\0"
SECRET = "SECRET-Wörter 北京"


def fill(home: Path, key=None) -> Path:
    """Save two conversations."""
    (home / "history").mkdir(exist_ok=True)
    path = leftovers.history_file(home)
    with History(path, key=key) as history:
        for text in (SECRET, "other words"):
            number = history.new(text, "nano", SECRET)
            prompt = history.add_prompt(number, None, text)
            answer = history.begin_answer(number, prompt, "nano")
            history.write_answer(answer, Reply("because", f"answer to {text}", "stop"))
    return path


def sequence_of(home: Path, path: Path) -> str:
    (home / "sequences").mkdir(exist_ok=True)
    name = SequenceStore(home / "sequences").write("model", [memoryview(SECRET.encode())]).name
    with History(path) as history:
        history.keep_sequence(1, name)
    return name


def holding(home: Path) -> list[str]:
    """Name the files below a home that hold the secret words."""
    codings = ("utf-8", "utf-16-le", "utf-16-be")
    return [
        path.name for path in home.rglob("*")
        if path.is_file() and any(SECRET[:6].encode(c) in path.read_bytes() for c in codings)
    ]  # fmt: skip


def contents(path: Path, key=None):
    with History(path, key=key) as history:
        found = [hit.excerpt for hit in history.search("answer to")]
        rows = history._db.execute("SELECT conversation, name FROM sequence").fetchall()
        talks = [
            (one.title, one.system, [m.content for m in history.all_messages(one.id)])
            for one in history.conversations()
        ]
        return talks, sorted(found), len(rows), history.secret(SEQUENCES)


def opens(path: Path, key) -> bool:
    try:
        History(path, key=key).close()
    except (LockedError, HistoryError):
        return False
    return True


def texts(history, number):
    return [one.content for one in history.branch(history.conversation(number).leaf)]
