"""The files that a conversion writes: unfinished ones under `.partial`, until all are complete.

Takes the parts of the output (one, unless it is split) and data with its place in the whole plan,
whose data the parts hold one after the other, each behind a head of its own. Reserves all space
first, writes from any thread, syncs, and renames: the first part last, for a reader begins with it.
Does not know tensors, nor which bytes are still to come.
"""

from __future__ import annotations

import bisect
import errno
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.errors import ConvertError, UnfinishedError


@dataclass(frozen=True)
class Part:
    """One file: its final path, its head, the offset in the whole plan of the data behind it."""

    path: Path
    head: bytes
    start: int
    size_bytes: int

    @property
    def partial(self) -> Path:
        """Where it stands until it is complete."""
        return self.path.with_name(self.path.name + ".partial")


class Output:
    """The open files of all parts."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)
        self._starts = [part.start for part in parts]
        self._files: list[int] = []
        self._unsynced = [False] * len(parts)
        self.is_new = False  # built again in this run

    @property
    def size_bytes(self) -> int:
        """Bytes of all parts together."""
        return sum(part.size_bytes for part in self.parts)

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.pop())

    def reopen(self) -> bool:
        """Open the unfinished files of an earlier run; say whether all are as they were left."""
        try:
            for part in self.parts:
                file = os.open(part.partial, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                self._files.append(file)
                if not _is_begun(file, part):
                    break
            else:
                return True
        except OSError:
            pass  # whatever it is, the files are built again, and that names what is wrong
        self.close()
        return False

    def create(self, reserve: bool = True) -> None:
        """Make new unfinished files with their heads; `reserve` all space that they will take."""
        self.is_new = True
        free = shutil.disk_usage(self.parts[0].path.parent).free
        for part in self.parts:
            path = part.partial
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                file = os.open(path, flags, 0o666)
            except OSError as error:
                raise ConvertError(f"cannot create {path}: {error.strerror}") from error
            self._files.append(file)
            os.ftruncate(file, 0)
        for index, part in enumerate(self.parts):
            try:
                if reserve:
                    _reserve(self._files[index], part.size_bytes, free)
                else:
                    os.ftruncate(self._files[index], part.size_bytes)
            except OSError as error:
                raise ConvertError(
                    f"no room for {self.parts[0].path}: it needs {self.size_bytes / 1e9:.3f} GB, "
                    f"{free / 1e9:.3f} GB are free ({error.strerror})"
                ) from error
            free -= part.size_bytes
            self._put(index, memoryview(part.head), 0)
        self.sync()
        sync_folder(self.parts[0].path.parent)

    def write(self, data: memoryview, offset: int) -> None:
        """Write data that lies within one part; may be called from several threads."""
        index = bisect.bisect_right(self._starts, offset) - 1
        part = self.parts[index]
        self._put(index, data, len(part.head) + offset - part.start)

    def _put(self, index: int, data: memoryview, at: int) -> None:
        done = 0
        while done < len(data):
            try:
                done += os.pwrite(self._files[index], data[done:], at + done)
            except OSError as error:
                raise _stopped(self.parts[index], error) from error
        self._unsynced[index] = True  # after the bytes, so that no sync can miss them

    def sync(self) -> None:
        """Return when all bytes that were written before the call are on the disk."""
        for index, file in enumerate(self._files):
            if not self._unsynced[index]:
                continue
            self._unsynced[index] = False
            try:
                os.fsync(file)
            except OSError as error:
                raise _stopped(self.parts[index], error) from error

    def publish(self, force: bool) -> None:
        """Give every part its final name, the first one last; parts that have it stay."""
        waiting = [part for part in reversed(self.parts) if part.partial.exists()]
        for part in waiting:
            if part.path.exists() and not force:
                raise UnfinishedError(f"{part.path} appeared meanwhile: move it or add --force")
        for part in waiting:
            try:
                os.replace(part.partial, part.path)
            except OSError as error:
                raise _stopped(part, error) from error
        sync_folder(self.parts[0].path.parent)

    def is_named(self) -> bool:
        """Say whether something stands under a final name."""
        return any(part.path.exists() for part in self.parts)

    def is_published(self) -> bool:
        """Say whether every part stands under one of its names, complete to the looks."""
        return all(
            _looks_like(part.partial, part) or _looks_like(part.path, part) for part in self.parts
        )

    def discard(self) -> None:
        """Remove the unfinished files."""
        for part in self.parts:
            part.partial.unlink(missing_ok=True)

    def discard_others(self, names: Sequence[str]) -> None:
        """Remove the unfinished files of an earlier run that are not this output's own."""
        own = {part.partial.name for part in self.parts}
        for name in set(names) - own:
            if name.endswith(".partial") and Path(name).name == name:
                self.parts[0].path.with_name(name).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make names that were given or changed in a folder last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _stopped(part: Part, error: OSError) -> UnfinishedError:
    return UnfinishedError(f"cannot write {part.path.name}: {error.strerror}")


def _is_begun(file: int, part: Part) -> bool:
    return os.fstat(file).st_size == part.size_bytes and _starts_with(file, part.head)


def _looks_like(path: Path, part: Part) -> bool:
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return _is_begun(file, part)
    finally:
        os.close(file)


def _starts_with(file: int, head: bytes) -> bool:
    return os.pread(file, len(head), 0) == head


def _reserve(file: int, size: int, free: int) -> None:
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
