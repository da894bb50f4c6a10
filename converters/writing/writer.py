"""A plan → a finished file, or an unfinished one that the same command finishes.

Writes `.partial` files with all space reserved first, on several threads, each taking the next
tile. What is done is kept in a journal (journal.py, saver.py); an interrupted run leaves both, and
the next one with the same fingerprint goes on. The order that makes this safe when the power fails:
1. The journal is emptied and synced before the output is made, so it never tells of old data.
2. Output, its size and head are synced, then the folder, before the journal names the first tile.
3. A tile's data is synced before the journal names the tile.
4. All data is synced and checked, then the journal says so, before the first file gets its name.
5. The folder is synced with the final names before the journal is removed; the lock goes last.
Does not know checkpoints beyond tiles, nor types.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from converters.errors import ConvertError, UnfinishedError
from converters.kernels.workers import work_off
from converters.source.source import Source
from converters.writing.journal import Journal
from converters.writing.output import Output, Part
from converters.writing.plan import Plan
from converters.writing.provenance import conversion_fingerprint
from converters.writing.saver import Saver
from converters.writing.split import part_paths, split_plan
from converters.writing.tiles import Tile, TileWriter, plan_tiles
from converters.writing.verify import verify_file

# Called on the caller's thread with the bytes read so far, those of them that earlier runs have
# read, and the tensor in work; first before any work, without a tensor.
Report = Callable[[int, int, str], None]
Numbered = tuple[int, Tile]


@dataclass(frozen=True)
class WriteOptions:
    """How to write: `force` replaces finished files, `restart` forgets an unfinished run."""

    threads: int
    force: bool = False
    restart: bool = False
    split_bytes: int | None = None  # the most bytes of tensors a file


def write_file(
    plan: Plan,
    checkpoint: Source,
    target: Path,
    options: WriteOptions,
    report: Report,
    notice: Callable[[str], None],
) -> tuple[Part, ...]:
    """Write the planned file to `target`, going on where an earlier run stopped; return its parts.

    Raises UnfinishedError when it is stopped from outside, with what is done kept, and ConvertError
    for what makes it useless, with nothing kept. `notice` is told what becomes of an earlier run.
    """
    plans = [plan] if options.split_bytes is None else split_plan(plan, options.split_bytes)
    fingerprint = conversion_fingerprint(plan, [one.head for one in plans], checkpoint)
    paths = part_paths(target, len(plans))
    output = Output([_part(path, one, plan) for path, one in zip(paths, plans, strict=True)])
    journal = Journal(journal_path(target))
    try:
        _begin(output, journal, fingerprint, target, options, notice)
        if not journal.complete:
            _work(plan, checkpoint, output, journal, options.threads, report)
            checkpoint.check_unchanged()
            for part, one in zip(output.parts, plans, strict=True):
                verify_file(part.partial, one)
            journal.finish()
        output.publish(options.force)
        journal.remove()
    except BaseException as error:
        failure = error
        if isinstance(error, OSError):
            failure = UnfinishedError(f"cannot write {target}: {error.strerror}")
        if _is_useless(failure) or (output.is_new and not journal.done):
            output.discard()
            journal.remove()
        elif journal.is_empty:
            journal.remove()
        elif isinstance(failure, UnfinishedError):
            kept = "what is done is kept, run the same command to go on"
            failure = UnfinishedError(f"{failure}; {kept}")
        raise failure from error
    finally:
        output.close()
        # Without the lock, another conversion could write what is renamed above.
        journal.close()
    return output.parts


def _part(path: Path, plan: Plan, whole: Plan) -> Part:
    """Return the part of the whole plan that a plan of its own describes."""
    first = plan.tensors[0].name
    start = next(tensor.offset for tensor in whole.tensors if tensor.name == first)
    return Part(path, plan.head, start, plan.size_bytes)


def journal_path(target: Path) -> Path:
    """Return where the journal of an unfinished conversion to `target` lies."""
    return target.with_name(target.name + ".partial.journal")


def source_bytes(plan: Plan, checkpoint: Source) -> int:
    """Return how many bytes of tensors the plan reads."""
    return sum(tile.source_bytes for tile in plan_tiles(plan, checkpoint))


def _is_useless(error: BaseException) -> bool:
    """Say whether an error shows that what has been written can never become a file."""
    return isinstance(error, ConvertError) and not isinstance(error, UnfinishedError)


def _begin(
    output: Output,
    journal: Journal,
    fingerprint: str,
    target: Path,
    options: WriteOptions,
    notice: Callable[[str], None],
) -> None:
    """Open what an earlier run left if it can be trusted, else start over."""
    earlier = not journal.is_empty
    known = journal.read(fingerprint) and not options.restart
    if known and journal.complete and output.is_published():
        return  # all that was left to do is to remove the journal, or to rename
    if output.is_named() and not options.force:
        raise UnfinishedError(f"{target} exists already: choose another name or --force")
    if known and output.reopen():
        return
    if options.restart and earlier:
        notice("the unfinished conversion is discarded (--restart)")
    elif known:
        notice("the unfinished file is not as it was left: starting over")
    elif earlier and journal.saved_nothing:
        notice("the unfinished conversion had saved nothing yet: starting over")
    elif earlier:
        notice(
            "the unfinished conversion is of another source, version or options, or its journal is "
            "damaged: starting over"
        )
    output.discard_others(journal.files)
    journal.begin(fingerprint, [part.partial.name for part in output.parts])
    output.create()


def _work(
    plan: Plan,
    checkpoint: Source,
    output: Output,
    journal: Journal,
    threads: int,
    report: Report,
) -> None:
    """Work off the tiles that are left, and save those that are finished, come what may."""
    done = list(journal.done)
    tiles = enumerate(plan_tiles(plan, checkpoint))
    resumed = 0
    if done:
        resumed = sum(tile.source_bytes for number, tile in tiles if _is_in(number, done))
        tiles = enumerate(plan_tiles(plan, checkpoint))
    report(resumed, resumed, "")
    _write_values(plan, output)
    left = ((number, tile) for number, tile in tiles if not _is_in(number, done))
    with Saver(output, journal) as saver:
        try:
            _run(left, lambda: TileWriter(checkpoint, output), threads, resumed, saver, report)
        except BaseException as error:
            if not _is_useless(error):
                saver.finish()
            raise
        saver.finish()


def _write_values(plan: Plan, output: Output) -> None:
    """Write the few tensors that are computed and not read, before any tile is saved."""
    for tensor in plan.tensors:
        if tensor.values:
            data = struct.pack(f"<{len(tensor.values)}f", *tensor.values)
            output.write(memoryview(data), tensor.offset)


def _is_in(number: int, spans: list[range]) -> bool:
    return any(number in span for span in spans)


def _run(
    tiles: Iterator[Numbered],
    new_writer: Callable[[], TileWriter],
    threads: int,
    resumed: int,
    saver: Saver,
    report: Report,
) -> None:
    """Work all tiles off on `threads` threads; the caller's thread only saves and reports."""

    def new_worker() -> Callable[[Numbered], None]:
        writer = new_writer()
        return lambda item: writer.write(item[1])

    def save(item: Numbered, _: None) -> None:
        saver.add(item[0], item[1].source_bytes)

    done = resumed
    with closing(work_off(tiles, threads, new_worker, late=save)) as finished:
        for item, _ in finished:
            save(item, _)
            done += item[1].source_bytes
            report(done, resumed, item[1].tensor.name)
