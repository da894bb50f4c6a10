"""The file that stands for a safetensors shard while the shard is not there: `NAME.header`.

Holds the shard's own head (length and table of tensors), then a JSON object with the size of the
whole file and the hub's SHA-256 of it, "" where that is not known. A conversion that removes a
shard adds its `mark`, by which it knows the shard again, and the SHA-256 of tensors that were
compared with others. Whatever is read is checked in full.
Does not know why a shard is away, nor when headers are written.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from converters.errors import ConvertError
from converters.source.folders import header_path
from converters.source.safetensors_table import parse_table, read_table, unique_keys
from converters.source.source import StoredTensor

_MAX_TRAILER_BYTES = 1 << 20
_MAX_SHARD_BYTES = 1 << 50
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ShardHeader:
    """What is known of a shard: the bytes before its data, its size, and who it is."""

    table: bytes
    size_bytes: int
    identity: str = ""  # the hub's SHA-256 of the whole file; "": unknown
    mark: str = ""  # what tells the file from others; "" stands for what the header itself tells
    digests: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of tensors, by name

    def __post_init__(self) -> None:
        object.__setattr__(self, "mark", self.mark or self._own_mark)

    @property
    def is_of_download(self) -> bool:
        """Say whether the header came before the shard, and so knows best what the shard is."""
        return self.mark == self._own_mark

    @property
    def _own_mark(self) -> str:
        return self.identity or hashlib.sha256(self.table).hexdigest()

    def encode(self) -> bytes:
        """Return the bytes of the file."""
        facts = {
            "size_bytes": self.size_bytes,
            "identity": self.identity,
            "mark": self.mark,
            "digests": dict(self.digests),
        }
        return self.table + json.dumps(facts).encode()

    def tensors(self, shard: Path) -> list[StoredTensor]:
        """Return the shard's tensors; raise ConvertError unless they fit into its size."""
        return parse_table(header_path(shard), self.table, self.size_bytes, shard)


def read_header(shard: Path) -> ShardHeader | None:
    """Read the header that stands for a shard, None if there is none; raise ConvertError."""
    path = header_path(shard)
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConvertError(f"cannot read {path}: {error.strerror}") from error
    try:
        size = os.fstat(file).st_size
        table = read_table(path, file, size)
        left = min(size - len(table), _MAX_TRAILER_BYTES + 1)
        trailer = os.pread(file, left, len(table))
    except OSError as error:
        raise ConvertError(f"cannot read {path}: {error.strerror}") from error
    finally:
        os.close(file)
    return _parse_trailer(path, table, trailer)


def _parse_trailer(path: Path, table: bytes, trailer: bytes) -> ShardHeader:
    broken = ConvertError(f"{path} is truncated or damaged: download it, or its shard, again")
    if len(trailer) > _MAX_TRAILER_BYTES:
        raise broken
    try:
        facts = json.loads(trailer, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise broken from error
    if not isinstance(facts, dict):
        raise broken
    size, identity = facts.get("size_bytes"), facts.get("identity")
    mark, digests = facts.get("mark", ""), facts.get("digests", {})
    if type(size) is not int or not len(table) <= size <= _MAX_SHARD_BYTES:
        raise broken
    if not isinstance(identity, str) or not isinstance(mark, str) or not isinstance(digests, dict):
        raise broken
    known = [text for text in (identity, mark, *digests.values()) if text != ""]
    if not all(isinstance(text, str) and _SHA256.fullmatch(text) for text in known):
        raise broken
    return ShardHeader(table, size, identity, mark, digests)
