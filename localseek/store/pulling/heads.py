"""The heads of remote files, without the rest: what a GGUF says of its model, a shard's tensors.

Takes a function that reads bytes of a file, gives a `GGUFInfo` to plan with, or the header file
that a conversion reads where the shard itself is not there yet.
"""

import contextlib
import json
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from localseek.errors import LocalseekError, ModelError
from localseek.gguf.header import read_header
from localseek.gguf.info import GGUFInfo, read_info
from localseek.store.pulling.choosing import Model
from localseek.store.pulling.remote import RemoteFile

FIRST_BYTES, MOST_BYTES = 1 << 20, 64 << 20  # of a GGUF's head; vocabularies take up to 10 MB
FIRST_OF_SHARD = 1 << 18  # V3's tables of tensors take 70 kB a shard
MOST_TABLE_BYTES = 100_000_000  # the limit of the safetensors library
HEADER = ".header"  # beside where the shard will be: NAME.safetensors.header

ReadRange = Callable[[RemoteFile, int, int], bytes]  # file, first byte, the byte after the last


@contextlib.contextmanager
def remote_info(model: Model, read: ReadRange) -> Iterator[GGUFInfo]:
    """Read what a remote model says of itself; raises LocalseekError.

    The heads lie in files full of holes, as long as the real ones, while the block lasts.
    """
    with tempfile.TemporaryDirectory(prefix="localseek-head-") as folder:
        paths = []
        for file in model.files:
            path = Path(folder) / PurePosixPath(file.name).name
            _write_head(path, file, read)
            paths.append(path)
        yield read_info(paths[0])


def _write_head(path: Path, file: RemoteFile, read: ReadRange) -> None:
    """Write a file of the remote one's length that holds its head; raises LocalseekError."""
    have = 0
    wanted = min(FIRST_BYTES, file.size_bytes)
    while True:
        with path.open("ab" if have else "wb") as out:
            out.truncate(have)
            out.write(read(file, have, wanted))
            out.truncate(file.size_bytes)
        have = wanted
        last = have >= min(MOST_BYTES, file.size_bytes)
        try:
            header = read_header(path)
        except ModelError:
            if last:
                raise
        else:
            # Offsets begin where the head ends: a head that reaches into the hole was misread.
            if last or all(tensor.offset <= have for tensor in header.tensors[:1]):
                return
        wanted = min(4 * have, MOST_BYTES, file.size_bytes)


def write_shard_header(folder: Path, shard: RemoteFile, read: ReadRange) -> None:
    """Write a shard's table of tensors beside where the shard will be; raises LocalseekError."""
    path = folder / f"{shard.name}{HEADER}"
    if _is_header(path, shard):
        return
    table = read(shard, 0, min(FIRST_OF_SHARD, shard.size_bytes))
    length = struct.unpack("<Q", table[:8])[0] if len(table) >= 8 else 0
    end = 8 + length
    if not 2 <= length <= min(MOST_TABLE_BYTES, shard.size_bytes - 8):
        raise _broken(shard)
    if len(table) < end:
        table += read(shard, len(table), end)
    try:
        json.loads(table[8:end])
    except (ValueError, RecursionError) as error:
        raise _broken(shard) from error
    unfinished = path.with_name(f"{path.name}.new")
    try:
        unfinished.unlink(missing_ok=True)
        with unfinished.open("xb") as out:  # "x" follows no link
            out.write(table[:end] + _trailer(shard))
        unfinished.replace(path)
    except OSError as error:
        raise LocalseekError(f"{path} cannot be written: {error.strerror}.") from error


def _broken(shard: RemoteFile) -> LocalseekError:
    return LocalseekError(
        f"{shard.name} of the repository does not begin as a safetensors file does.",
        "It may have come damaged: give the same command again.",
    )


def check_shard_header(folder: Path, shard: RemoteFile) -> None:
    """Raise LocalseekError if a whole shard is not what its header says; the header goes then."""
    path = folder / f"{shard.name}{HEADER}"
    with path.open("rb") as header, (folder / shard.name).open("rb") as whole:
        size = 8 + struct.unpack("<Q", whole.read(8))[0]
        whole.seek(0)
        same = header.read(size) == whole.read(size)
    if not same:
        path.unlink()
        raise LocalseekError(
            f"The table of {shard.name} came damaged, before the shard itself.",
            "Give the same command again: it reads the table anew.",
        )


def _trailer(shard: RemoteFile) -> bytes:
    return json.dumps({"size_bytes": shard.size_bytes, "identity": shard.sha256}).encode()


def _is_header(path: Path, shard: RemoteFile) -> bool:
    """Tell whether a header stands for this very shard; a conversion may have added to it."""
    try:
        with path.open("rb") as file:
            file.seek(8 + struct.unpack("<Q", file.read(8))[0])
            said = json.loads(file.read())
        return (said["size_bytes"], said["identity"]) == (shard.size_bytes, shard.sha256)
    except (OSError, ValueError, OverflowError, struct.error, KeyError, TypeError):
        return False
