"""`--free-source`: the shards of a local checkpoint removed as they are consumed.

A shard goes in an order that a power cut can't turn into a loss: what was made of it is synced and
in the journal when it is given back; then its header is written and synced, and only then the
shard is unlinked. Says before anything is written what cannot be freed, whether the output fits
into the space that becomes free, and what can no longer be converted because its shards are gone.
Does not ask the user, nor know tiles beyond their sizes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.errors import ConvertError, OptionError, RefusedError, UnfinishedError
from converters.source.checkpoint import Checkpoint
from converters.source.folders import followed, header_path
from converters.source.shard_header import ShardHeader
from converters.source.source import Source
from converters.writing.output import sync_folder
from converters.writing.schedule import Batch

_BLOCK = 4096  # bytes that a file system gives at once
_SLACK = 1 << 20  # for the journal and the file system's own tables


@dataclass(frozen=True)
class Freeable:
    """What `--free-source` would remove of a folder."""

    folder: Path
    shards: tuple[Path, ...]  # that are there
    gone: int  # removed by an earlier run, or never there
    size_bytes: int


def freeable(source: Path) -> Freeable:
    """Say which shards `--free-source` would remove; raise ConvertError where it must not."""
    folder = followed(source)
    if folder.is_file():
        raise OptionError(
            f"--free-source removes the safetensors shards of a checkpoint: {source} is a file"
        )
    with Checkpoint(folder) as checkpoint:
        refuse_unfreeable(checkpoint)
        shards = tuple(checkpoint.here)
        size = sum(checkpoint.sizes[one] for one in shards)
        return Freeable(folder, shards, len(checkpoint.away), size)


def refuse_unfreeable(source: Source) -> None:
    """Raise ConvertError for a source whose shards must not, or cannot, be removed."""
    if not isinstance(source, Checkpoint):
        raise OptionError("--free-source removes the shards of a checkpoint, never a GGUF file")
    for shard in source.here:
        if shard.suffix != ".safetensors":
            raise ConvertError(
                f"{shard} is a PyTorch file, which no header can stand for: leave --free-source out"
            )
        if shard.is_symlink():
            raise ConvertError(
                f"{shard} is a link, as in a Hub cache, whose files others may use: copy the "
                "folder with `cp -rL`, or leave --free-source out"
            )
        if shard.stat().st_nlink > 1:
            raise ConvertError(
                f"{shard} has another name elsewhere (a hard link), so that removing it frees "
                "nothing: leave --free-source out"
            )
    if not os.access(source.folder, os.W_OK | os.X_OK):
        raise ConvertError(f"{source.folder} is read-only: make it writable, or copy it")


class FreedShards:
    """The shards of a checkpoint that is here, each removed when it is given back."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Take an open checkpoint that has been planned: headers tell what was compared."""
        self._folder = checkpoint.folder
        self._headers = {shard.name: checkpoint.header(shard) for shard in checkpoint.here}

    def order(self, names: Sequence[str]) -> None:
        """Take note of nothing."""

    def take(self, name: str) -> None:
        """Return at once: what is missing was refused before."""

    def give_back(self, name: str) -> None:
        """Put a shard's header in its place; raise UnfinishedError if that cannot be done."""
        shard = self._folder / name
        try:
            _write_header(shard, self._headers[name])
            shard.unlink(missing_ok=True)
            sync_folder(self._folder)
        except OSError as error:
            raise UnfinishedError(f"cannot remove {shard}: {error.strerror}") from error


def is_freed_for(source: Source, target: Path) -> bool:
    """Say whether what the source's shards take becomes free where the target is written."""
    folder = next(iter(source.sizes)).parent
    return folder.stat().st_dev == target.parent.stat().st_dev


def check_room(
    batches: Iterable[Batch], source: Source, target: Path, head_bytes: int
) -> None:
    """Raise RefusedError if the disk would be full before enough shards were removed."""
    need = peak = head_bytes + _SLACK
    for batch in batches:
        # At both ends of a run a block may be begun that another one fills.
        need += sum(run.size_bytes + 2 * _BLOCK for run in batch.runs)
        peak = max(peak, need)
        for shard in batch.consumed:
            need -= shard.stat().st_blocks * 512 - 2 * _BLOCK
    free = shutil.disk_usage(target.parent).free
    if peak > free:
        raise RefusedError(
            f"no room for {target}: while shards are removed it needs {peak / 1e9:.3f} GB more "
            f"than now, {free / 1e9:.3f} GB are free"
        )


def refuse_away(source: Source, batches: Iterable[Batch], forced: str, why: str = "") -> None:
    """Raise RefusedError if shards are needed that are away and won't come.

    `forced` is the option that would begin again, `why` what became of an earlier run.
    """
    away = set(source.away)
    lost = [batch.shard for batch in batches if batch.shard in away]
    if not lost:
        return
    count, total = len(lost), len(source.sizes)
    some = "all shards" if count == total else f"{count} of {total} shards"
    what = f"{some} of {lost[0].parent} are missing, only headers are there ({lost[0].name} first)"
    if forced:
        raise RefusedError(f"{forced} begins again, but {what}: leave it out, or download them")
    if why:
        reason = why.removesuffix(": starting over")
        raise RefusedError(
            f"{reason}, but it cannot start over: {what}; give the command that it began with, or "
            "download them"
        )
    raise RefusedError(f"{what}: download them")


def _write_header(shard: Path, header: ShardHeader) -> None:
    """Put a header on the disk, for good, in the place of any other."""
    path = header_path(shard)
    unfinished = path.with_name(path.name + ".partial")
    data = memoryview(header.encode())
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(unfinished, flags, 0o666)
    try:
        os.ftruncate(file, 0)
        done = 0
        while done < len(data):
            done += os.pwrite(file, data[done:], done)
        os.fsync(file)
    finally:
        os.close(file)
    os.replace(unfinished, path)
    sync_folder(path.parent)
