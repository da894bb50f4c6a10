"""A plan → a finished file, or no file.

Writes under a temporary name in the target's folder with all space reserved first, on several
threads, each taking the next tile; then syncs, checks and renames. Whatever goes wrong, also
Ctrl-C, the temporary file is removed and nothing stands under the final name; after a kill -9
it stays behind and the next run replaces it.
Does not know checkpoints beyond tiles, nor types.
"""

from __future__ import annotations

import errno
import fcntl
import os
import queue
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from converters.errors import ConvertError
from converters.plan import Plan
from converters.source import Source
from converters.tiles import Tile, TileWriter, plan_tiles
from converters.verify import verify_file

# Called on the caller's thread with the bytes read so far and the tensor in work.
Report = Callable[[int, str], None]


def write_file(
    plan: Plan, checkpoint: Source, target: Path, threads: int, force: bool, report: Report
) -> None:
    """Write the planned file to `target`; raise ConvertError and leave nothing if it fails."""
    partial = target.with_name(target.name + ".partial")
    file = _open_partial(partial)
    try:
        _reserve(file, plan.size_bytes, target)
        _write_head(file, plan.head, target)
        _run(plan_tiles(plan, checkpoint), checkpoint, file, threads, report, target.name)
        _sync(file, target)
        verify_file(partial, plan)
        if target.exists() and not force:
            raise ConvertError(f"{target} appeared meanwhile: choose another name or --force")
        os.replace(partial, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise ConvertError(f"cannot write {target}: {error.strerror}") from error
    finally:
        # The lock goes last: without it, another conversion could write what is renamed above.
        if _is_named(file, partial):
            partial.unlink()
        os.close(file)


def source_bytes(plan: Plan, checkpoint: Source) -> int:
    """Return how many bytes of tensors the plan reads."""
    return sum(tile.source_bytes for tile in plan_tiles(plan, checkpoint))


def _open_partial(partial: Path) -> int:
    try:
        file = os.open(partial, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise ConvertError(f"cannot create {partial}: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Renamed between open and lock, it is another conversion's finished file: hands off.
        if not _is_named(file, partial):
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
        os.ftruncate(file, 0)
    except OSError as error:
        os.close(file)
        raise ConvertError(f"another conversion is writing {partial}") from error
    return file


def _is_named(file: int, path: Path) -> bool:
    """Say whether the open file still stands under the path."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _reserve(file: int, size: int, target: Path) -> None:
    """Reserve all space now, so that a full disk ends the run before the work."""
    free = shutil.disk_usage(target.parent).free
    try:
        _fallocate(file, size, free)
    except OSError as error:
        raise ConvertError(
            f"no room for {target}: it needs {size / 1e9:.3f} GB, {free / 1e9:.3f} GB are free "
            f"({error.strerror})"
        ) from error


def _fallocate(file: int, size: int, free: int) -> None:
    """Reserve space, or compare with what is free where the system cannot (macOS, some mounts)."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)
            return
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
    if size > free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(file, size)


def _write_head(file: int, head: bytes, target: Path) -> None:
    done = 0
    while done < len(head):
        done += os.pwrite(file, memoryview(head)[done:], done)


def _sync(file: int, target: Path) -> None:
    try:
        os.fsync(file)
    except OSError as error:
        raise ConvertError(f"cannot write {target}: {error.strerror}") from error


def _sync_folder(folder: Path) -> None:
    """Make the rename itself last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _run(
    tiles: Iterator[Tile],
    checkpoint: Source,
    file: int,
    threads: int,
    report: Report,
    name: str,
) -> None:
    """Work all tiles off on `threads` threads; the caller's thread only reports."""
    lock, stop = threading.Lock(), threading.Event()
    # Tiles done, an exception, or None when a thread has ended.
    finished: queue.SimpleQueue[Tile | BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        writer = TileWriter(checkpoint, file, name)
        try:
            while not stop.is_set():
                with lock:
                    tile = next(tiles, None)
                if tile is None:
                    break
                writer.write(tile)
                finished.put(tile)
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, raised there
            finished.put(error)
        finally:
            finished.put(None)

    workers = [threading.Thread(target=work, name=f"convert-{n}") for n in range(threads)]
    done, running = 0, 0
    try:
        for worker in workers:
            worker.start()
            running += 1
        while running:
            event = finished.get()
            if event is None:
                running -= 1
            elif isinstance(event, Tile):
                done += event.source_bytes
                report(done, event.tensor.name)
            else:
                raise event
    finally:
        stop.set()
        for worker in workers:
            if worker.ident is not None:
                worker.join()
