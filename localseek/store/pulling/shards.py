"""A checkpoint's shards, fetched one ahead of the conversion that reads them, removed behind it.

Takes the order in which shards are needed, and a function that makes one whole; gives each when it
is asked for. No more than two lie on the disk, unless the conversion holds on to more. Knows
nothing about networks or about what a conversion does.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from localseek.errors import LocalseekError

AHEAD = 2  # shards on the disk: the one that is read, and the next


class ShardsAhead:
    """Shards that come and go; its methods are called by the conversion, from any thread."""

    def __init__(
        self, folder: Path, fetch: Callable[[str], None], remove: Callable[[str], None],
        failure: Callable[[str], Exception],
    ) -> None:  # fmt: skip
        """`fetch` makes FOLDER/name whole and verified; `remove` lets it go, or leaves it there.

        `failure` makes the reader's error.
        """
        self._folder, self._fetch, self._remove, self._failure = folder, fetch, remove, failure
        self._changed = threading.Condition()
        self._wanted: list[str] = []  # still to be fetched, in order
        self._here: set[str] = set()
        self._asked: set[str] = set()  # that somebody waits for
        self._error: Exception | None = None
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def order(self, names: Sequence[str]) -> None:
        """Begin to fetch shards in the order in which they will be needed."""
        with self._changed:
            self._wanted = list(dict.fromkeys(names))
        self._thread.start()

    def has(self, name: str) -> bool:
        """Tell whether a shard is there to be taken at once."""
        with self._changed:
            return name in self._here

    def take(self, name: str) -> None:
        """Wait until a shard is there; raises the reader's error if it cannot come."""
        with self._changed:
            if name not in self._here and name not in self._wanted and not self._over:
                self._wanted.insert(0, name)
            self._asked.add(name)
            self._changed.notify_all()
            while name not in self._here:
                if self._error is not None:
                    raise self._failure(as_failure(self._error)) from self._error
                if self._over:
                    raise self._failure("the download was stopped")
                self._changed.wait()
            self._asked.discard(name)

    def give_back(self, name: str) -> None:
        """Let a shard go that is not needed any more, and make room for the next."""
        try:
            self._remove(name)
        except OSError as error:
            raise self._failure(f"{self._folder / name}: {error.strerror}") from error
        with self._changed:
            self._here.discard(name)
            self._changed.notify_all()

    def close(self) -> None:
        """Fetch nothing more, and let nobody wait any longer."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._over and self._next() is None:
                    self._changed.wait()
                name = self._next()
                if self._over or name is None:
                    return
            try:
                self._fetch(name)
            except Exception as error:  # noqa: BLE001 - raised by whoever takes the shard
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._wanted.remove(name)
                self._here.add(name)
                self._changed.notify_all()

    def _next(self) -> str | None:
        """Give the shard to fetch now: one that is waited for, else the next if there is room."""
        for name in self._wanted:
            if name in self._asked:
                return name
        return self._wanted[0] if self._wanted and len(self._here) < AHEAD else None


def as_failure(error: BaseException) -> str:
    """Give an error's words for another kind of error, which ends its lines itself."""
    text = f"{error.message} {error.hint}".strip() if isinstance(error, LocalseekError) else error
    return str(text).rstrip(".")
