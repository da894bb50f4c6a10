"""The tiles of a plan worked off and saved, in file order or one shard after the other.

Takes a plan, open files and a journal; works off what the journal does not have yet, on threads,
and saves what is finished, come what may. By shard, a shard is taken when it is needed and given
back when nothing more is read of it: first the output is synced and the journal written, then the
shard is closed and may go. Tiles are saved only while the shards they came from are as they were.
Does not know how files begin or get their names.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from converters.errors import ConvertError, MismatchError, UnfinishedError
from converters.kernels.workers import work_off
from converters.planning.plan import Plan
from converters.source.shards import Shards, Standing
from converters.source.source import Source
from converters.writing.journal import Journal
from converters.writing.output import Output
from converters.writing.saver import Saver
from converters.writing.schedule import Batch, order_by_shard, shards_used
from converters.writing.spans import is_in
from converters.writing.tiles import Run, Tile, TileWriter, plan_runs

# Called on the caller's thread with the bytes read so far, those of them that earlier runs have
# read, and the tensor in work; first before any work, without a tensor.
Report = Callable[[int, int, str], None]
Numbered = tuple[int, Tile]


@dataclass(frozen=True)
class Work:
    """What to make of what, where, and on how many threads."""

    plan: Plan
    source: Source
    output: Output
    journal: Journal
    threads: int
    report: Report

    def run(self, shards: Shards | None) -> None:
        """Work off the tiles that are left; with `shards`, or where some are away, by shard."""
        runs = list(plan_runs(self.plan, self.source))
        done = self.journal.done
        safe = (tile for run in runs for number, tile in run.tiles() if is_in(number, done))
        resumed = sum(tile.source_bytes for tile in safe) if done else 0
        self.report(resumed, resumed, "")
        self._write_values()
        progress = _Progress(resumed, resumed, self.report)
        if shards is None and not self.source.away:
            self._in_file_order(runs, progress)
        else:
            self._by_shard(runs, shards or Standing(), progress)

    def batches_left(self) -> list[Batch]:
        """Return what is left to do, a shard at a time; first what shows if the plan is right."""
        names = {name for pair in self.source.assumed for name in pair}
        unseen = {self.source.tensors[name].shard for name in names - self.journal.digests.keys()}
        runs = plan_runs(self.plan, self.source)
        return order_by_shard(runs, self.source, self.journal.done, unseen)

    def all_batches(self) -> list[Batch]:
        """Return what there is to do at the beginning."""
        names = {name for pair in self.source.assumed for name in pair}
        unseen = {self.source.tensors[name].shard for name in names}
        return order_by_shard(plan_runs(self.plan, self.source), self.source, (), unseen)

    def _in_file_order(self, runs: list[Run], progress: _Progress) -> None:
        with Saver(self.output, self.journal) as saver:
            try:
                self._work_off(runs, saver, progress)
            except BaseException as error:
                if not is_useless(error):
                    saver.finish()
                raise
            saver.finish()

    def _by_shard(self, runs: list[Run], shards: Shards, progress: _Progress) -> None:
        source, journal = self.source, self.journal
        compare_assumed(source, journal)
        batches = self.batches_left()
        shards.order([batch.shard.name for batch in batches])
        waiting = {batch.shard for batch in batches}
        with Saver(self.output, journal, source.check_unchanged) as saver:
            try:
                # What an earlier run was killed over before it was away.
                used = shards_used(runs, source)
                give_back(shards, source, [one for one in source.here if one in used - waiting])
                for batch in batches:
                    shards.take(batch.shard.name)
                    source.open_file(batch.shard)
                    compare_assumed(source, journal)
                    self._work_off(batch.runs, saver, progress)
                    saver.finish()
                    give_back(shards, source, batch.consumed)
            except MismatchError:
                raise
            except BaseException:
                saver.finish()
                raise

    def _work_off(self, runs: Iterable[Run], saver: Saver, progress: _Progress) -> None:
        """Work tiles off on all threads; the caller's thread only saves and reports."""
        done = list(self.journal.done)
        tiles: Iterator[Numbered] = (
            item for run in runs for item in run.tiles() if not is_in(item[0], done)
        )

        def new_worker() -> Callable[[Numbered], None]:
            writer = TileWriter(self.source, self.output)
            return lambda item: writer.write(item[1])

        def save(item: Numbered, _: None) -> None:
            saver.add(item[0], item[1].source_bytes)

        with closing(work_off(tiles, self.threads, new_worker, late=save)) as finished:
            for item, _ in finished:
                save(item, _)
                progress.add(item[1])

    def _write_values(self) -> None:
        """Write the few tensors that are computed and not read, before any tile is saved."""
        for tensor in self.plan.tensors:
            if tensor.values:
                data = struct.pack(f"<{len(tensor.values)}f", *tensor.values)
                self.output.write(memoryview(data), tensor.offset)


@dataclass
class _Progress:
    done: int
    resumed: int
    report: Report

    def add(self, tile: Tile) -> None:
        self.done += tile.source_bytes
        self.report(self.done, self.resumed, tile.tensor.name)


def is_useless(error: BaseException) -> bool:
    """Say whether an error shows that what has been written can never become a file."""
    return isinstance(error, ConvertError) and not isinstance(error, UnfinishedError)


def compare_assumed(source: Source, journal: Journal) -> None:
    """Compare tensors that the plan takes for equal, as far as they could be read by now.

    What was read is kept in the journal, for its shard may go. Raises MismatchError.
    """
    names = dict.fromkeys(name for pair in source.assumed for name in pair)
    found = {name: source.digest(name) for name in names if name not in journal.digests}
    if fresh := {name: digest for name, digest in found.items() if digest}:
        journal.add_digests(fresh)
    for copy, main in source.assumed:
        one, two = journal.digests.get(copy), journal.digests.get(main)
        if one and two and one != two:
            raise MismatchError(
                f"{copy} is not equal to {main}, as it is in every release: this checkpoint must "
                "be there as a whole before it is converted"
            )


def give_back(shards: Shards, source: Source, paths: Iterable[Path]) -> None:
    """Close shards and let them go."""
    for path in paths:
        if path in source.here:
            source.close_file(path)
        shards.give_back(path.name)
