"""Tiles in the order of the shards that hold them, so that few shards are needed at once.

Takes the runs of a plan, an open source and what is done already. Gives one batch a shard: the runs
that can be worked off once it is there, and the shards of which nothing is read afterwards. Every
tile has its place in the file, so the experts of a stack need not come together: a shard is needed
beyond its batch only where a weight and its scales lie in two shards.
Does not wait for shards, nor write anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.source.source import Source
from converters.source.stored import resolve
from converters.writing.spans import covers
from converters.writing.tiles import Run


@dataclass(frozen=True)
class Batch:
    """What is worked off when a shard has come, and which shards are consumed by it."""

    shard: Path
    runs: tuple[Run, ...]
    consumed: tuple[Path, ...]


def order_by_shard(
    runs: Iterable[Run], source: Source, done: Sequence[range], first: Iterable[Path] = ()
) -> list[Batch]:
    """Return the batches for all runs that are not `done`, in the order of the shards' names.

    The shards `first` are among them, also if no run needs them, and come first unless that would
    make more shards be held at once.
    """
    early = set(first)
    needs = [(run, shards_of(run, source)) for run in runs if not covers(done, run.numbers)]
    by_name = sorted(early.union(*(shards for _, shards in needs)), key=lambda shard: shard.name)
    plain = _batches(by_name, needs)
    if not early:
        return plain
    moved = _batches(sorted(by_name, key=lambda shard: shard not in early), needs)
    return moved if peak_held(moved) <= peak_held(plain) else plain


def _batches(order: Sequence[Path], needs: Sequence[tuple[Run, set[Path]]]) -> list[Batch]:
    """Return the batches for shards that are taken in that order."""
    rank = {shard: number for number, shard in enumerate(order)}
    waiting: dict[Path, list[Run]] = {shard: [] for shard in order}
    until = dict(rank)  # the batch after which nothing is read of a shard
    for run, shards in needs:
        last = max(shards, key=rank.__getitem__)
        waiting[last].append(run)
        for shard in shards:
            until[shard] = max(until[shard], rank[last])
    consumed: dict[int, list[Path]] = {}
    for shard in order:
        consumed.setdefault(until[shard], []).append(shard)
    return [
        Batch(shard, tuple(waiting[shard]), tuple(consumed.get(number, ())))
        for number, shard in enumerate(order)
    ]


def shards_used(runs: Iterable[Run], source: Source) -> set[Path]:
    """Return all shards that something is made of."""
    return set[Path]().union(*(shards_of(run, source) for run in runs))


def peak_held(batches: Iterable[Batch]) -> int:
    """Return how many shards are held at once at the most, if each is taken when it is needed."""
    held = peak = 0
    for batch in batches:
        held += 1
        peak = max(peak, held)
        held -= len(batch.consumed)
    return peak


def shards_of(run: Run, source: Source) -> set[Path]:
    """Return the shard that holds a run's values, and the one that holds their scales."""
    scale = resolve(source, run.source).scale
    return {run.source.shard, scale.shard} if scale else {run.source.shard}
