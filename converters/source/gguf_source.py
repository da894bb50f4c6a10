"""A GGUF file as a source of tensors: all its parts, their metadata, dtypes named as ggml types.

Takes the path of a file, or of the first part of a split model (NAME-00001-of-0000N.gguf). Gives
tensors in stored order, and metadata as bytes with the keys of the split left out.
Does not know what the tensors mean.
"""

from __future__ import annotations

import re
from pathlib import Path

from converters.errors import ConvertError
from converters.kernels.dequantize import block_of
from converters.source.gguf_reader import Head, decode_value, read_head
from converters.source.source import Source, StoredTensor
from localseek.gguf.head import Scalar

_SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")
_SPLIT_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


class GGUFFile(Source):
    """An open GGUF model: heads in memory, parts open for positioned reads."""

    def __init__(self, path: Path) -> None:
        """Read and check the heads of all parts; raise ConvertError for anything wrong."""
        super().__init__()
        self.path = path
        head = read_head(path)
        self.metadata = {k: value for k, value in head.metadata.items() if k not in _SPLIT_KEYS}
        self.alignment = head.alignment
        try:
            for part in _parts(path, head):
                self._add(part, head if part == path else read_head(part))
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise ConvertError(f"cannot read {path}: {error.strerror}") from error
            raise
        stated = _number(head, "split.tensors.count", len(self.tensors))
        if stated != len(self.tensors):
            self.close()
            raise ConvertError(f"{path}: its parts hold {len(self.tensors)} tensors, not {stated}")

    @property
    def architecture(self) -> str:
        """The model's architecture, as llama.cpp names it."""
        name = self.get("general.architecture")
        if not isinstance(name, str) or not name:
            raise ConvertError(f"{self.path} names no architecture: it is not a model")
        return name

    def get(self, key: str) -> Scalar | tuple[Scalar, ...] | None:
        """Return what a metadata value means; None where it is missing."""
        value = self.metadata.get(key)
        return None if value is None else decode_value(value)

    def _add(self, part: Path, head: Head) -> None:
        self._open(part)
        for entry, size in zip(head.entries, head.sizes, strict=True):
            if entry.name in self.tensors:
                raise ConvertError(f"{entry.name} is in two parts of {self.path}")
            block = block_of(entry.kind)
            name = block.name if block is not None else str(entry.kind)
            start = head.data_start + entry.offset
            self.tensors[entry.name] = StoredTensor(
                entry.name, name, entry.shape, part, start, size
            )


def is_part(path: Path, of: Path, any_count: bool = False) -> bool:
    """Say whether a file is `of`, or by its name another part of the same split model."""
    one, other = _SPLIT_NAME.fullmatch(path.name), _SPLIT_NAME.fullmatch(of.name)
    if one is None or other is None:
        return path.exists() and of.exists() and path.samefile(of)
    beside = path.parent.resolve() == of.parent.resolve()
    return beside and one["stem"] == other["stem"] and (any_count or one["count"] == other["count"])


def _number(head: Head, key: str, default: int) -> int:
    value = head.metadata.get(key)
    found = default if value is None else decode_value(value)
    return found if isinstance(found, int) else -1


def _parts(path: Path, head: Head) -> list[Path]:
    """Return the paths of all parts, the first one first."""
    count, number = _number(head, "split.count", 1), _number(head, "split.no", 0)
    if count in (0, 1) and number == 0:
        return [path]
    name = _SPLIT_NAME.fullmatch(path.name)
    if name is None or int(name["count"]) != count or int(name["number"]) != number + 1:
        raise ConvertError(
            f"{path} says that it is part {number + 1} of {count}, its name does not: name the "
            f"parts NAME-00001-of-{count:05}.gguf and so on"
        )
    parts = [
        path.with_name(f"{name['stem']}-{one:05}-of-{count:05}.gguf") for one in range(1, count + 1)
    ]
    if number:
        raise ConvertError(f"{path} is part {number + 1} of {count}: give {parts[0].name}")
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ConvertError(f"{missing[0]}{more} is missing beside {path.name}: download it")
    return parts
