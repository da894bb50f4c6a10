"""What a pull has set out to fetch, and which files are there: kept in the folder they go to.

The plan pins a request to the commit that it was looked up at, so that the same command goes on
with the same files; the ledger says which files were verified, and when. Both are JSON in
FOLDER/.localseek-pull. Knows nothing about networks.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from localseek.errors import LocalseekError
from localseek.store.pulled import Pulled, record, recorded
from localseek.store.pulling.remote import RemoteFile, check_name

STATE = ".localseek-pull"  # a folder; the finished download's record is another file


@dataclass(frozen=True, slots=True)
class Plan:
    """The files of one request, at one commit."""

    repository: str
    revision: str  # that was asked for
    commit: str
    licence: str
    checkpoint: bool  # else GGUF files
    files: tuple[RemoteFile, ...]
    model: str = ""  # of GGUF files: the name and type that were chosen
    outputs: tuple[str, ...] = ()  # the files that --convert makes of it, finished or not

    @property
    def size_bytes(self) -> int:
        """Give the bytes of all files."""
        return sum(one.size_bytes for one in self.files)


def request_key(*words: str) -> str:
    """Name a request by what it asks for, so that the same command finds its plan again."""
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:12]


def save_plan(folder: Path, key: str, plan: Plan) -> None:
    """Keep a plan in the folder; raises LocalseekError."""
    write_state(_state(folder) / f"plan-{key}.json", asdict(plan))


def load_plan(folder: Path, key: str) -> Plan | None:
    """Read a plan back; None where there is none, or none that can be read."""
    try:
        found = json.loads((folder / STATE / f"plan-{key}.json").read_bytes())
        files = tuple(RemoteFile(**one) for one in found.pop("files"))
        for file in files:
            check_name(file.name)
        return Plan(files=files, **{**found, "outputs": tuple(found["outputs"])})
    except (OSError, ValueError, TypeError, AttributeError, KeyError, LocalseekError):
        return None


def drop_parts(folder: Path) -> None:
    """Remove what has grown for files that no plan of the folder wants any more."""
    plans = [load_plan(folder, path.stem.removeprefix("plan-")) for path in _plans(folder)]
    wanted = {
        part_path(folder, file)
        for plan in plans if plan is not None
        for file in plan.files if not (folder / file.name).exists()
    }  # fmt: skip
    for part in set((folder / STATE).glob("*.part")) - wanted:
        with contextlib.suppress(OSError):
            part.unlink()


def _plans(folder: Path) -> list[Path]:
    return sorted((folder / STATE).glob("plan-*.json"))


def with_output(plan: Plan, target: Path) -> Plan:
    """Give the plan that says what is made of its files."""
    return replace(plan, outputs=tuple(dict.fromkeys((*plan.outputs, str(target.resolve())))))


def part_path(folder: Path, file: RemoteFile) -> Path:
    """Give where a file grows until it is whole; another version of it grows elsewhere."""
    identity = f"{file.name}\0{file.sha256 or file.blob_id}\0{file.size_bytes}"
    return _state(folder) / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.part"


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep other pulls out of a folder while the block runs; raises LocalseekError."""
    path = _state(folder) / "lock"
    try:
        lock = os.fdopen(opened(path, os.O_WRONLY), "w")
    except OSError as error:
        raise _unwritable(path, error) from error
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LocalseekError(
                f"Another localseek pull is filling {folder}.", "Wait for it, or use --to."
            ) from error
        yield


class Ledger:
    """Which files of a folder were verified; a file that changed since counts as unverified."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / STATE / "verified.json"
        self._lock = threading.Lock()
        self._entries: dict[str, list[str | int]] = self._read()

    def sha256(self, name: str) -> str:
        """Give the checksum of a verified file that is unchanged, "" otherwise."""
        entry = self._entries.get(name)
        return str(entry[0]) if entry and entry[1:] == self._marks(name) else ""

    def known(self, name: str) -> str:
        """Give the checksum that a file once had here, whatever it is now; "" if none."""
        entry = self._entries.get(name)
        if entry:
            return str(entry[0])
        finished = recorded(self.folder)
        return finished.files.get(name, "") if finished else ""

    def enter(self, name: str, sha256: str) -> None:
        """Note that a file was verified just now; raises LocalseekError."""
        with self._lock:
            self._entries[name] = [sha256, *self._marks(name)]
            write_state(self._path, self._entries)

    def _marks(self, name: str) -> list[str | int]:
        try:
            found = (self.folder / name).stat()
        except OSError:
            return []
        return [found.st_size, found.st_mtime_ns]

    def _read(self) -> dict[str, list[str | int]]:
        try:
            found = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        entries = found.items() if isinstance(found, dict) else ()
        return {k: v for k, v in entries if isinstance(v, list) and len(v) == 3}


def keep_record(folder: Path, plan: Plan, ledger: Ledger) -> None:
    """Write beside the files what they are; those of other pulls into the folder stay named."""
    earlier = recorded(folder)
    files = {} if earlier is None else {
        name: digest for name, digest in earlier.files.items() if (folder / name).exists()
    }  # fmt: skip
    files |= {one.name: digest for one in plan.files if (digest := ledger.sha256(one.name))}
    wanted = Pulled(plan.repository, plan.commit, plan.licence, files)
    if wanted != earlier:
        record(folder, wanted)


def _state(folder: Path) -> Path:
    path = folder / STATE
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    if path.is_symlink():
        raise linked(path)
    return path


def linked(path: Path) -> LocalseekError:
    """Say that a link stands where one of our own files or folders has to be."""
    return LocalseekError(f"{path} is a link, and pull writes through none.", "Remove it.")


def opened(path: Path, flags: int) -> int:
    """Open one of our files to write, or make it; raises OSError for a link in its place."""
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def write_state(path: Path, value: object) -> None:
    """Write JSON whole or not at all; raises LocalseekError."""
    unfinished = path.with_suffix(".new")
    try:
        with os.fdopen(opened(unfinished, os.O_WRONLY | os.O_TRUNC), "w", encoding="utf-8") as out:
            json.dump(value, out, indent=1, ensure_ascii=False)
        unfinished.replace(path)
    except OSError as error:
        at = unfinished if error.errno == errno.ELOOP else path
        raise _unwritable(at, error) from error


def _unwritable(path: Path, error: OSError) -> LocalseekError:
    if error.errno == errno.ELOOP:
        return linked(path)
    return LocalseekError(
        f"{path} cannot be written: {error.strerror}.",
        "Set LOCALSEEK_HOME to another folder, or give one with --to.",
    )
