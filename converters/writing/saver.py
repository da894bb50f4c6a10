"""Finished tiles made safe while the work goes on: data to the disk first, then the journal.

Takes the numbers of finished tiles; now and then, on a thread of its own, syncs the output and
only then records the tiles that were finished before that sync began. So whatever the machine
does, also when its power fails, no tile in the journal lacks its data.
Does not know what a tile holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from converters.writing.journal import Journal
from converters.writing.output import Output

# Saved when either is reached: a stop by force loses about this much work.
# Syncing competes with reading and writing, so a short conversion is synced only at its end.
SAVE_BYTES = 1_000_000_000  # of the checkpoint
SAVE_SECONDS = 15.0


class Saver:
    """The one that saves; `with` joins its thread."""

    def __init__(
        self, output: Output, journal: Journal, check: Callable[[], None] | None = None
    ) -> None:
        """Take what to sync and where to record; `check` raises if the tiles are not to be kept."""
        self._output, self._journal, self._check = output, journal, check
        self._fresh: list[int] = []
        self._fresh_bytes = 0
        self._last = time.monotonic()
        self._pool = ThreadPoolExecutor(1, "convert-save")
        self._running: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def add(self, tile: int, source_bytes: int) -> None:
        """Note a tile whose bytes have been written; start saving if it is time.

        Raises UnfinishedError if an earlier saving failed.
        """
        self._fresh.append(tile)
        self._fresh_bytes += source_bytes
        if self._running is not None:
            if not self._running.done():
                return
            self._collect()
        late = time.monotonic() - self._last >= SAVE_SECONDS
        if late or self._fresh_bytes >= SAVE_BYTES:
            self._running = self._pool.submit(self._save, self._fresh)
            self._fresh, self._fresh_bytes, self._last = [], 0, time.monotonic()

    def finish(self) -> None:
        """Save all that is left; raise UnfinishedError if that or an earlier saving fails."""
        self._collect()
        if self._fresh:
            self._save(self._fresh)
            self._fresh = []

    def _collect(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def _save(self, tiles: list[int]) -> None:
        self._output.sync()
        if self._check is not None:
            self._check()
        self._journal.add(tiles)
