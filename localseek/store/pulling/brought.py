"""Which shards a freeing conversion has fetched itself: only these may it remove.

Takes names and files, keeps them in FOLDER/.localseek-pull/brought.json with their size, date and
inode, noted before a shard gets its name. So a killed run's shards are known again, and a file that
somebody else put there under the same name is not taken for one.
"""

import contextlib
import json
import threading
from pathlib import Path

from localseek.store.pulling.plan import STATE, write_state


class Brought:
    """The shards of a folder that may go once they are used up; safe to use from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / STATE / "brought.json"
        self._lock = threading.Lock()
        self._entries = self._read()

    def enter(self, name: str, unnamed: Path) -> None:
        """Note a whole file that is about to get its name; raises LocalseekError.

        Where it takes the place of one that was not brought, it is to stay as that was.
        """
        if (self._folder / name).exists() and not self.holds(name):
            return
        with self._lock:
            self._entries[name] = _marks(unnamed)
            write_state(self._path, self._entries)

    def holds(self, name: str) -> bool:
        """Tell whether the file of that name is one that was noted, unchanged."""
        marks = _marks(self._folder / name)
        return bool(marks) and self._entries.get(name) == marks

    def remove(self, name: str) -> None:
        """Remove a shard if it was brought; raises OSError."""
        if self.holds(name):
            (self._folder / name).unlink(missing_ok=True)

    def forget(self) -> None:
        """Let all shards stay from now on: somebody has asked for them as they are."""
        with self._lock, contextlib.suppress(OSError):
            self._entries = {}
            self._path.unlink()

    def _read(self) -> dict[str, list[int]]:
        try:
            found = json.loads(self._path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


def _marks(path: Path) -> list[int]:
    """Tell a file from any other of its name; of a link, the link itself."""
    try:
        found = path.lstat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns, found.st_ino]
