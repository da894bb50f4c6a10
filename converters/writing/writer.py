"""A plan → a finished file, or an unfinished one that the same command finishes.

Writes `.partial` files with all space reserved first (unless the space is to come from shards that
are removed), on several threads, each taking the next tile (working.py). What is done is kept in a
journal (journal.py, saver.py); an interrupted run leaves both, and the next one with the same
fingerprint goes on. Nothing is discarded that could not be made again, its shards being gone.
The order that makes this safe when the power fails:
1. The journal is emptied and synced before the output is made, so it never tells of old data.
2. Output, its size and head are synced, then the folder, before the journal names the first tile.
3. A tile's data is synced before the journal names the tile.
4. A shard is given back after the journal names all tiles that are made of it.
5. All data is synced and checked, then the journal says so, before the first file gets its name.
6. The folder is synced with the final names before the journal is removed; the lock goes last.
Does not know checkpoints beyond tiles, nor types.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from converters.errors import ConvertError, MismatchError, RefusedError, UnfinishedError
from converters.planning.plan import Plan
from converters.planning.split import part_paths, split_plan
from converters.source.shards import Shards
from converters.source.source import Source
from converters.writing.freeing import check_room, is_freed_for, refuse_away
from converters.writing.journal import Journal
from converters.writing.output import Output, Part
from converters.writing.provenance import conversion_fingerprint
from converters.writing.tiles import plan_tiles
from converters.writing.verify import verify_file
from converters.writing.working import Report, Work, give_back, is_useless


@dataclass(frozen=True)
class WriteOptions:
    """How to write: `force` replaces finished files, `restart` forgets an unfinished run."""

    threads: int
    force: bool = False
    restart: bool = False
    split_bytes: int | None = None  # the most bytes of tensors a file
    frees: bool = False  # shards are removed as they are consumed; what is away stays away


def write_file(
    plan: Plan,
    checkpoint: Source,
    target: Path,
    options: WriteOptions,
    report: Report,
    notice: Callable[[str], None],
    shards: Shards | None = None,
) -> tuple[Part, ...]:
    """Write the planned file to `target`, going on where an earlier run stopped; return its parts.

    Raises UnfinishedError when it is stopped from outside, with what is done kept, and ConvertError
    for what makes it useless, with nothing kept; with `shards`, which may not come again, all that
    can be of use is kept. `notice` is told what becomes of an earlier run.
    """
    plans = [plan] if options.split_bytes is None else split_plan(plan, options.split_bytes)
    fingerprint = conversion_fingerprint(plan, [one.head for one in plans], checkpoint)
    paths = part_paths(target, len(plans))
    output = Output([_part(path, one, plan) for path, one in zip(paths, plans, strict=True)])
    journal = Journal(journal_path(target))
    work = Work(plan, checkpoint, output, journal, options.threads, report)
    try:
        _begin(work, fingerprint, target, options, notice, shards)
        if not journal.complete:
            work.run(shards)
            checkpoint.check_unchanged()
            for part, one in zip(output.parts, plans, strict=True):
                verify_file(part.partial, one)
            journal.finish()
        if shards is not None:
            give_back(shards, checkpoint, checkpoint.here)
        output.publish(options.force)
        journal.remove()
    except BaseException as error:
        failure = error
        if isinstance(error, OSError):
            failure = UnfinishedError(f"cannot write {target}: {error.strerror}")
        if _is_to_go(failure, output, journal, shards):
            output.discard()
            journal.remove()
        elif isinstance(failure, RefusedError):
            if journal.is_empty:
                journal.remove()
        elif journal.is_empty:
            journal.remove()
        elif isinstance(failure, UnfinishedError):
            kept = "what is done is kept, run the same command to go on"
            failure = UnfinishedError(f"{failure}; {kept}")
        elif isinstance(failure, ConvertError):
            failure = UnfinishedError(f"{failure}; what was made of other shards is kept")
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


def _is_to_go(
    error: BaseException, output: Output, journal: Journal, shards: Shards | None
) -> bool:
    """Say whether what is unfinished is of no use after an error."""
    if isinstance(error, MismatchError) or (output.is_new and not journal.done):
        return True
    return is_useless(error) and (shards is None or not journal.done)


def _begin(
    work: Work,
    fingerprint: str,
    target: Path,
    options: WriteOptions,
    notice: Callable[[str], None],
    shards: Shards | None,
) -> None:
    """Open what an earlier run left if it can be trusted, else start over."""
    output, journal = work.output, work.journal
    earlier = not journal.is_empty
    known = journal.read(fingerprint) and not options.restart
    if known and journal.complete and output.is_published():
        return  # all that was left to do is to remove the journal, or to rename
    if output.is_named() and not options.force:
        raise UnfinishedError(f"{target} exists already: choose another name or --force")
    fixed = shards is None or options.frees  # what is away does not come
    if known and output.reopen():
        if fixed:
            refuse_away(work.source, work.batches_left(), "")
        return
    why = ""
    if options.restart and earlier:
        why = "the unfinished conversion is discarded (--restart)"
    elif known:
        why = "the unfinished file is not as it was left: starting over"
    elif earlier and journal.saved_nothing:
        why = "the unfinished conversion had saved nothing yet: starting over"
    elif earlier:
        why = (
            "the unfinished conversion is of another source, version or options, or its journal is "
            "damaged: starting over"
        )
    if fixed:
        forced = "--restart" if options.restart else "--force" if options.force else ""
        refuse_away(work.source, work.all_batches(), forced, why)
    if why:
        notice(why)
    reserve = not options.frees or not is_freed_for(work.source, target)
    if not reserve:
        head_bytes = sum(len(part.head) for part in output.parts)
        check_room(work.all_batches(), work.source, target, head_bytes)
    output.discard_others(journal.files)
    journal.begin(fingerprint, [part.partial.name for part in output.parts])
    output.create(reserve)
