"""Files made whole: each grows in a part that survives anything, and is verified before it counts.

Takes a function that opens a file's bytes from an offset on, gives files under their names. The
hub's own library throws away what a killed process had downloaded (huggingface_hub 2.4 names its
unfinished files at random), hence this. Knows nothing about HTTP.
"""

import errno
import os
import queue
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from localseek.errors import LocalseekError
from localseek.store.pulling.brought import Brought
from localseek.store.pulling.plan import Ledger, linked, opened, part_path
from localseek.store.pulling.remote import OpenStream, RemoteFile, TransientError
from localseek.store.pulling.room import ELSEWHERE
from localseek.store.pulling.verifying import Digest, digest_of

AT_ONCE = 8  # files; as many as huggingface_hub's snapshot_download takes
REQUEST_BYTES = 16 << 30  # bytes of one request: the hub sends no more than 50 GB in one answer
TRIES = 6  # in a row that bring no byte: about half a minute
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 16.0
LAST_CHUNK_S = 2.0  # for threads that are told to stop; a read that hangs takes longer
LONGEST_ASKED_S = 300.0  # a server that wants a longer pause is an error: the hub's window is 5 min


class Retries:
    """How long to wait before asking again for a file, and when to give up."""

    def __init__(self, name: str) -> None:
        self._name, self._failed = name, 0

    def pause(self, came: bool, reason: str, asked_s: float | None) -> float:
        """Give the seconds to wait; raises LocalseekError after too many tries without a byte."""
        self._failed = 0 if came else self._failed + 1
        wait_s = min(FIRST_WAIT_S * 2.0**self._failed, LONGEST_WAIT_S)
        wait_s = wait_s if asked_s is None else asked_s
        if self._failed >= TRIES or wait_s > LONGEST_ASKED_S:
            raise LocalseekError(
                f"{self._name} could not be downloaded: {reason}.",
                "Check the connection; the same command goes on where it stopped.",
            )
        return wait_s


def wait(seconds: float) -> None:
    """Wait; Ctrl-C ends it."""
    threading.Event().wait(seconds)


class Stopped(Exception):
    """The download was told to stop."""


class Tally:
    """How far a download is, as its threads count it; read by whoever shows it."""

    def __init__(self, total_bytes: int, files: int, done_bytes: int = 0) -> None:
        self.total_bytes, self.files = total_bytes, files
        self.done_bytes, self.done_files = done_bytes, 0
        self.waiting = ""  # why nothing comes at the moment
        self._lock = threading.Lock()

    @property
    def share(self) -> float:
        """Give what is there, of 1."""
        return self.done_bytes / self.total_bytes if self.total_bytes else 1.0

    def add(self, count: int, files: int = 0) -> None:
        """Count bytes and files that have come; fewer than none when some must come again."""
        with self._lock:
            self.done_bytes += count
            self.done_files += files
            self.waiting = ""


class Downloader:
    """Downloads files into a folder; `stop` ends all of it within a chunk or a wait."""

    def __init__(
        self, folder: Path, open_stream: OpenStream, ledger: Ledger, tally: Tally,
        brought: Brought | None = None,
    ) -> None:  # fmt: skip
        """`brought` hears of each file that this download brings."""
        self.folder, self.tally, self.ledger, self.brought = folder, tally, ledger, brought
        self._open = open_stream
        self.stop = threading.Event()

    def fetch_all(self, files: Iterable[RemoteFile]) -> None:
        """Download several files at once; raises the first error, after the others have stopped."""
        waiting: queue.SimpleQueue[RemoteFile] = queue.SimpleQueue()
        ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        count = 0
        for file in files:
            waiting.put(file)
            count += 1

        def work() -> None:
            try:
                while not self.stop.is_set():
                    self.fetch(waiting.get_nowait())
            except queue.Empty:
                ended.put(None)
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                ended.put(error)
            else:
                ended.put(Stopped())

        threads = [
            # Daemons: a read that hangs must not keep a stopped process alive.
            threading.Thread(target=work, daemon=True)
            for _ in range(min(AT_ONCE, count))
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in threads:
                if (error := ended.get()) is not None:
                    self.stop.set()
                    until = time.monotonic() + LAST_CHUNK_S
                    for thread in threads:  # lest one writes on while the caller tries again
                        thread.join(max(0.0, until - time.monotonic()))
                    raise error
        finally:
            self.stop.set()

    def fetch(self, file: RemoteFile) -> None:
        """Download one file, going on where an earlier run stopped; a wrong one once more.

        Raises LocalseekError that names the file.
        """
        for again in (False, True):
            digest = self._complete(file)
            if digest.matches():
                self._keep(file, digest)
                return
            self._part(file).unlink(missing_ok=True)
            self.tally.add(-file.size_bytes)
            if again:
                break
        raise LocalseekError(
            f"{file.name} came twice with a wrong checksum: it is not what the hub says.",
            "Something on the way changes it: try later, or without a mirror (HF_ENDPOINT).",
        )

    def _part(self, file: RemoteFile) -> Path:
        return part_path(self.folder, file)

    def _complete(self, file: RemoteFile) -> Digest:
        """Let a part grow until it has every byte, and give what was seen of it."""
        try:
            return self._grow(file)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise linked(self._part(file)) from error
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise LocalseekError(
                f"{file.name} cannot be written: {error.strerror}.",
                f"{ELSEWHERE} What has come is kept." if full else "Mend that; the same command "
                "goes on where it stopped.",
            ) from error

    def _grow(self, file: RemoteFile) -> Digest:
        part = self._part(file)
        with os.fdopen(opened(part, os.O_WRONLY | os.O_APPEND), "ab", buffering=0) as out:
            have = out.tell()
            if have > file.size_bytes:
                out.truncate(0)
                have = 0
            digest = digest_of(part, file)
            retries = Retries(file.name)
            while have < file.size_bytes:
                before = have
                try:
                    end = min(file.size_bytes, have + REQUEST_BYTES)
                    with self._open(file, have, end) as (start, chunks):
                        if start != have:  # the server cannot begin in the middle
                            out.truncate(0)
                            self.tally.add(-have)
                            have, digest = 0, Digest(file)
                        for chunk in chunks:
                            if self.stop.is_set():
                                raise Stopped
                            data = chunk[: file.size_bytes - have]
                            _write(out.fileno(), data)
                            digest.update(data)
                            have += len(data)
                            self.tally.add(len(data))
                            if have == file.size_bytes:
                                break
                    reason, asked = "the connection ended early", None
                except TransientError as error:
                    reason, asked = error.reason, error.wait_s
                if have < file.size_bytes:
                    self._pause(retries.pause(have > before, reason, asked), reason)
            os.fsync(out.fileno())
            if os.fstat(out.fileno()).st_size != file.size_bytes:
                digest.spoil()  # another program has written to it
        return digest

    def _pause(self, wait_s: float, reason: str) -> None:
        """Wait before the next try, and say so if it is long."""
        if wait_s >= 1:
            self.tally.waiting = f"{reason}, trying again in {wait_s:.0f} s"
        if self.stop.wait(wait_s):
            raise Stopped

    def _keep(self, file: RemoteFile, digest: Digest) -> None:
        """Give a verified file its name."""
        path = self.folder / file.name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if self.brought is not None:
                self.brought.enter(file.name, self._part(file))
            self._part(file).replace(path)
        except OSError as error:
            raise LocalseekError(f"{path} cannot be written: {error.strerror}.") from error
        self.ledger.enter(file.name, digest.sha256)
        self.tally.add(0, files=1)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def first_bytes(open_stream: OpenStream, file: RemoteFile, start: int, end: int) -> bytes:
    """Read the bytes from `start` to `end` of a file into memory; raises LocalseekError."""
    found = bytearray()
    end = min(end, file.size_bytes)
    retries = Retries(file.name)
    while start + len(found) < end:
        before = len(found)
        reason, asked = "the connection ended early", None
        try:
            at = start + len(found)
            with open_stream(file, at, end) as (first, chunks):
                skip = at - first  # a server that ignores ranges begins at 0
                for chunk in chunks:
                    found += chunk[skip:]
                    skip = max(0, skip - len(chunk))
                    if start + len(found) >= end:
                        break
        except TransientError as error:
            reason, asked = error.reason, error.wait_s
        if start + len(found) < end:
            wait(retries.pause(len(found) > before, reason, asked))
    return bytes(found[: end - start])
