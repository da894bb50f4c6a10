"""`pull --convert`: a checkpoint downloaded and converted, whole or shard by shard.

Takes a plan of files, gives a GGUF in the library. With --free-source a shard comes while the one
before it is converted, and goes when what was made of it is safe: the disk holds the output and two
shards.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localseek.commands.library.pull_progress import shown
from localseek.commands.parts.converting import Meter, as_object, as_ours, convert_shown, summary
from localseek.errors import UsageError
from localseek.store import library
from localseek.store.hub.streaming import opener
from localseek.store.pulling.brought import Brought
from localseek.store.pulling.downloading import Downloader, Tally, first_bytes
from localseek.store.pulling.heads import check_shard_header, write_shard_header
from localseek.store.pulling.plan import Ledger, Plan, keep_record, save_plan, with_output
from localseek.store.pulling.remote import OpenStream, RemoteFile
from localseek.store.pulling.room import check_room, missing_bytes
from localseek.store.pulling.shards import ShardsAhead
from localseek.store.pulling.verifying import is_there
from localseek.system import paths
from localseek.terminal.messages import Status, note

if TYPE_CHECKING:
    from converters import ConvertOptions, ConvertResult
    from localseek.commands.library.pull_choice import Pull

SAFETENSORS = ".safetensors"


def run(
    arguments: argparse.Namespace, pull: "Pull", quiet: bool,
    fetch: Callable[["Pull", bool], None], facts: dict[str, Any],
) -> int:  # fmt: skip
    """Pull and convert, and say by which name the model is asked for."""
    from converters import ConvertOptions

    target, is_made = _target(arguments, pull)
    plan = pull.plan
    if is_made:
        note(f"{plan.repository} was converted already. To do it again, give another --out.")
        _print(arguments, facts, target, None)
        return 0
    # Noted before it begins: a file under its name is whole, whenever this process ends.
    pull = replace(pull, plan=with_output(plan, target))
    options = ConvertOptions(type=arguments.convert, name=plan.repository.rpartition("/")[2])
    if arguments.free_source:
        result = _while_it_comes(pull, target, options, quiet)
    else:
        fetch(pull, quiet)
        result = convert_shown(pull.folder, target, options, Meter(quiet))
    _print(arguments, facts, target, result)
    return 0


def _target(arguments: argparse.Namespace, pull: "Pull") -> tuple[Path, bool]:
    """Give the file to write, and whether it is made already; raises UsageError.

    What cannot be written is refused here, before anything is downloaded.
    """
    from converters.writing.writer import journal_path

    name = f"{pull.plan.repository.rpartition('/')[2]}-{arguments.convert}.gguf"
    target = Path(arguments.out).expanduser() if arguments.out else paths.models() / name
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent} is not a folder.", "Create it first.")
    if target.is_dir():
        raise UsageError(f"{target} is a folder.", "Give the name of a file with --out.")
    if not target.exists() or journal_path(target).exists():  # with one, it needs tidying up
        return target, False
    if str(target.resolve()) not in pull.plan.outputs:
        raise UsageError(f"{target} exists already.", "Give another name with --out.")
    return target, True


def _print(
    arguments: argparse.Namespace, facts: dict[str, Any], target: Path,
    result: "ConvertResult | None",
) -> None:  # fmt: skip
    inside = target.is_relative_to(paths.models())
    name = library.library_name(target) if inside else str(target)
    if arguments.json:
        done = {"path": str(target)} if result is None else as_object(result)
        print(json.dumps({**facts, "converted": {**done, "model": name}}))
        return
    if result is not None:
        print(summary(result))
    print(f'Next: localseek ask -m {name} "Hello"')


def _while_it_comes(
    pull: "Pull", target: Path, options: "ConvertOptions", quiet: bool
) -> "ConvertResult":
    """Convert with shards that come and go; the same command goes on wherever it was stopped."""
    plan, folder = pull.plan, pull.folder
    shards = [file for file in plan.files if file.name.endswith(SAFETENSORS)]
    if not shards:
        raise UsageError(
            f"{plan.repository} has its weights in .bin files, which cannot be freed one by one.",
            "Leave --free-source out.",
        )
    open_stream = opener(plan.repository, plan.commit)
    ledger, brought = Ledger(folder), Brought(folder)
    try:
        _small_files(plan, folder, open_stream, ledger, quiet)
        _headers(folder, shards, open_stream)
    except KeyboardInterrupt:
        note("Stopped; the same command goes on.")
        raise
    kept = [f.name for f in shards if (folder / f.name).exists() and not brought.holds(f.name)]
    _check_disk(folder, target, options, [file for file in shards if file.name not in kept])
    if kept:
        count = f"{len(kept)} shard{'s were' if len(kept) > 1 else ' was'}"
        note(f"{count} here before: used where needed, and left here.")
    save_plan(folder, pull.key, plan)
    tally = Tally(sum(file.size_bytes for file in shards), len(shards))
    downloader = Downloader(folder, open_stream, ledger, tally, brought)
    coming = Coming(folder, shards, downloader, brought, Meter(quiet), quiet)
    try:
        result = convert_shown(folder, target, options, coming.meter, shards=coming)
    finally:
        coming.close()
    for shard in shards:  # those that a killed run had used up, and not removed
        brought.remove(shard.name)
    keep_record(folder, plan, ledger)
    return result


def _small_files(
    plan: Plan, folder: Path, open_stream: OpenStream, ledger: Ledger, quiet: bool
) -> None:
    """Fetch what is not a shard: settings, tokenizer, templates."""
    small = [file for file in plan.files if not file.name.endswith(SAFETENSORS)]
    missing = [file for file in small if not is_there(folder, file, ledger)]
    to_come = missing_bytes(folder, missing)
    check_room(folder, to_come, plan.repository)
    tally = Tally(to_come, len(missing))
    with shown(tally, quiet):
        Downloader(folder, open_stream, ledger, tally).fetch_all(missing)


def _headers(folder: Path, shards: Sequence[RemoteFile], open_stream: OpenStream) -> None:
    """Fetch every shard's table of tensors: they decide all that is converted."""

    def read(file: RemoteFile, start: int, end: int) -> bytes:
        return first_bytes(open_stream, file, start, end)

    with Status("") as status:
        for number, shard in enumerate(shards, 1):
            status.text = f"reading what the shards hold, {number} of {len(shards)}…"
            write_shard_header(folder, shard, read)


def _check_disk(
    folder: Path, target: Path, options: "ConvertOptions", shards: Sequence[RemoteFile]
) -> None:
    """Raise LocalseekError unless the output and two shards fit on the disk."""
    from converters import ConvertError, preview

    try:
        output = preview(folder, options).size_bytes
    except ConvertError as error:
        raise as_ours(error) from error
    partial = target.with_name(f"{target.name}.partial")
    if partial.exists():  # its room is taken already
        output = max(0, output - 512 * partial.stat().st_blocks)
    two = sorted((file.size_bytes for file in shards), reverse=True)[:2]
    there = sum((folder / f.name).stat().st_size for f in shards if (folder / f.name).exists())
    incoming = max(0, sum(two) - there - _grown(folder, shards))
    if folder.stat().st_dev == target.parent.stat().st_dev:
        hint = "Make room, or put one of them on another disk with --to or --out."
        check_room(folder, output + incoming, f"{target.name} with two shards beside it", hint)
    else:
        check_room(target.parent, output, target.name, "Make room, or give another --out.")
        check_room(folder, incoming, "Two shards", "Make room, or give another folder with --to.")


def _grown(folder: Path, shards: Sequence[RemoteFile]) -> int:
    """Give the bytes of shards that earlier runs have begun to download."""
    return sum(file.size_bytes for file in shards) - missing_bytes(folder, shards)


class Coming:
    """The shards as a conversion asks for them; shows the download whenever it has to wait."""

    def __init__(
        self, folder: Path, shards: Sequence[RemoteFile], downloader: Downloader,
        brought: Brought, meter: Meter, quiet: bool,
    ) -> None:  # fmt: skip
        from converters.errors import UnfinishedError

        self.meter = meter
        self._files = {file.name: file for file in shards}
        self._folder, self._downloader, self._quiet = folder, downloader, quiet
        self._ahead = ShardsAhead(folder, self._bring, brought.remove, UnfinishedError)

    def order(self, names: Sequence[str]) -> None:
        """Begin to download what is still needed."""
        tally = self._downloader.tally
        tally.files, tally.total_bytes = len(names), sum(self._size(name) for name in names)
        self._ahead.order(names)

    def take(self, name: str) -> None:
        """Wait until a shard is whole; raises ConvertError if it cannot come."""
        if self._ahead.has(name):
            self._ahead.take(name)
            return
        self.meter.end()
        with shown(self._downloader.tally, self._quiet):
            self._ahead.take(name)

    def give_back(self, name: str) -> None:
        """Let go of a shard of which all is made: one that was brought for this is removed."""
        self._ahead.give_back(name)

    def close(self) -> None:
        """End the download."""
        self._ahead.close()
        self._downloader.stop.set()

    def _size(self, name: str) -> int:
        return self._files[name].size_bytes

    def _bring(self, name: str) -> None:
        file, downloader = self._files[name], self._downloader
        if is_there(self._folder, file, downloader.ledger):
            downloader.tally.add(file.size_bytes, files=1)
        else:
            downloader.tally.add(file.size_bytes - missing_bytes(self._folder, [file]))
            downloader.fetch(file)
        check_shard_header(self._folder, file)


