"""The header of a GGUF file, read with every bound checked before any native code sees the file.

Takes a path, gives a `Header`: metadata and where each tensor lies. Long arrays stay in the file
until they are asked for. The layout rules are those of llama.cpp's ggml/src/gguf.cpp: what it
would refuse, or worse accept, is refused here with a reason. Knows nothing about models.
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from localseek.errors import ModelError

Buffer = mmap.mmap | bytes
Scalar = int | float | bool | str

# ggml type number → (name, elements a block, bytes a block); from ggml.h and ggml-common.h.
GGML_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4),
    27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}  # fmt: skip
STRING, ARRAY = 8, 9
SCALARS = {  # GGUF value type → struct format
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
MAX_DIMS = 4
MAX_NAME_BYTES = 63  # ggml keeps a name in 64 bytes with its final zero
MAX_KEY_BYTES = 65_535  # the GGUF specification's limit
MIN_PAIR_BYTES, MIN_TENSOR_BYTES = 14, 25  # the shortest possible entries bound the counts
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
MAX_TEXT_BYTES = 64_000_000  # of one text, or a list of texts: the largest known lists have 10 MB
EAGER_ITEMS = 64  # arrays up to this long are read at once


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array that stays in the file: its element type, length and place."""

    path: Path
    kind: int
    count: int
    start: int
    end: int

    def read(self) -> tuple[Scalar, ...]:
        """Read the elements from the file."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            reader = _Reader(file.read(self.end - self.start), self.path)
        return tuple(reader.value(self.kind) for _ in range(self.count))

    def read_raw_texts(self) -> list[bytes]:
        """Read an array of texts as stored, without decoding; raises ModelError."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            data = file.read(self.end - self.start)
        at, texts, length_at = 0, [], struct.Struct("<Q").unpack_from
        try:
            for _ in range(self.count):
                start = at + 8
                at = start + length_at(data, at)[0]
                texts.append(data[start:at])
        except (struct.error, OverflowError) as error:
            raise ModelError(f"{self.path} changed while it was read.", "Try again.") from error
        return texts


Value = Scalar | tuple[Scalar, ...] | StoredArray


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as the header describes it; `shape` innermost first, `offset` in the file."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    size_bytes: int

    @property
    def elements(self) -> int:
        """Count the elements."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count


@dataclass(frozen=True, slots=True)
class Header:
    """All of a GGUF file that comes before the tensors' data."""

    path: Path
    version: int
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]
    size_bytes: int


class _Reader:
    """A place in a buffer that only moves forward and never beyond the end."""

    def __init__(self, buffer: Buffer, path: Path) -> None:
        self.buffer, self.path = buffer, path
        self.size, self.at = len(buffer), 0

    def fail(self, what: str, hint: str = "Download or convert it again.") -> ModelError:
        return ModelError(f"{self.path} is damaged: {what}.", hint)

    def scalar(self, code: str) -> int | float | bool:
        try:
            (value,) = struct.unpack_from(code, self.buffer, self.at)
        except struct.error as error:
            raise self.fail(f"the header ends early, at byte {self.size:,}") from error
        self.at += struct.calcsize(code)
        return value  # type: ignore[no-any-return]  # struct can't say what a format gives

    def count(self, code: str = "<Q") -> int:
        return int(self.scalar(code))

    def raw(self, limit: int, what: str) -> bytes:
        length = self.count()
        if length > limit:
            raise self.fail(f"{what} claims {length:,} bytes, at most {limit:,} are allowed")
        if length > self.size - self.at:
            raise self.fail(f"{what} claims {length:,} bytes, {self.size - self.at:,} are left")
        text = self.buffer[self.at : self.at + length]
        self.at += length
        return text

    def value(self, kind: int, key: str = "a text value") -> Scalar:
        if kind == STRING:
            return self.raw(MAX_TEXT_BYTES, key).decode("utf-8", "replace")
        return self.scalar(SCALARS[kind])

    def array(self, key: str) -> Value:
        kind, count = self.count("<I"), self.count()
        if kind not in SCALARS and kind != STRING:
            raise self.fail(f"{key} is an array of unknown or nested type {kind}")
        width = 8 if kind == STRING else struct.calcsize(SCALARS[kind])
        if count > (self.size - self.at) // width:
            raise self.fail(f"{key} claims {count:,} elements, more than the file has room for")
        if count <= EAGER_ITEMS:
            return tuple(self.value(kind, f"a text in {key}") for _ in range(count))
        start = self.at
        self.at = self._end_of_strings(key, count) if kind == STRING else start + width * count
        return StoredArray(self.path, kind, count, start, self.at)

    def _end_of_strings(self, key: str, count: int) -> int:
        at, buffer, length_at = self.at, self.buffer, struct.Struct("<Q").unpack_from
        try:  # a vocabulary has 100,000 and more: nothing but lengths is read here
            for _ in range(count):
                at += 8 + length_at(buffer, at)[0]
        except (struct.error, OverflowError) as error:
            raise self.fail(f"a text in {key} reaches beyond the end of the file") from error
        if at > self.size:
            raise self.fail(f"a text in {key} reaches beyond the end of the file")
        if at - self.at > MAX_TEXT_BYTES:
            limit = f"at most {MAX_TEXT_BYTES:,} are allowed"
            raise self.fail(f"{key} claims {at - self.at:,} bytes, {limit}")
        return int(at)


def read_header(path: Path) -> Header:
    """Read and check the header of the GGUF file `path`; raises ModelError with the reason."""
    try:
        with path.open("rb") as file:
            if path.stat().st_size < 24:
                raise ModelError(f"{path} is not a GGUF file: it has {path.stat().st_size} bytes.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
                return _parse(_Reader(buffer, path))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"{path} cannot be read: {reason}.") from error


def _parse(reader: _Reader) -> Header:
    version, n_tensors, n_pairs = _preamble(reader)
    metadata = _metadata(reader, n_pairs)
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 8 or alignment & (alignment - 1):
        raise reader.fail(f"its alignment is {alignment!r}, not a power of two from 8")
    found = _tensor_infos(reader, n_tensors)
    start = -(-reader.at // alignment) * alignment
    tensors, expected, end = [], 0, reader.at
    for name, shape, kind, offset, size in found:
        if offset != expected:  # llama.cpp's rule: in order, no gaps, so nothing can overlap
            raise reader.fail(f"tensor {name} is at offset {offset:,}, not at {expected:,}")
        tensors.append(Tensor(name, shape, kind, start + offset, size))
        end = start + offset + size
        expected = offset + -(-size // alignment) * alignment
    if end > reader.size:
        raise ModelError(
            f"{reader.path} is truncated: {end - reader.size:,} of {end:,} bytes are missing.",
            "Download or copy it again.",
        )
    return Header(reader.path, version, metadata, tuple(tensors), reader.size)


def _preamble(reader: _Reader) -> tuple[int, int, int]:
    if reader.buffer[: len(LFS_POINTER)] == LFS_POINTER:
        raise ModelError(
            f"{reader.path} is a Git LFS pointer, not the file itself.",
            "Run `git lfs pull` in its folder.",
        )
    if reader.buffer[:4] != b"GGUF":
        raise ModelError(
            f"{reader.path} is not a GGUF file.",
            "`localseek convert` makes one from a checkpoint folder.",
        )
    reader.at = 4
    version = reader.count("<I")
    if version & 0xFFFF == 0 and version:
        raise ModelError(f"{reader.path} is big-endian.", "Only little-endian files run here.")
    if version not in (2, 3):
        raise ModelError(f"{reader.path} has GGUF version {version}; 2 and 3 can be read.")
    n_tensors, n_pairs = reader.count(), reader.count()
    if n_tensors > reader.size // MIN_TENSOR_BYTES or n_pairs > reader.size // MIN_PAIR_BYTES:
        raise reader.fail(f"it claims {n_tensors:,} tensors and {n_pairs:,} metadata entries")
    return version, n_tensors, n_pairs


def _metadata(reader: _Reader, n_pairs: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for _ in range(n_pairs):
        try:
            key = reader.raw(MAX_KEY_BYTES, "a metadata key").decode()
        except UnicodeDecodeError as error:
            raise reader.fail("a metadata key is not valid UTF-8") from error
        if not key.isprintable() or not key or key in metadata:
            raise reader.fail(f"the metadata key {key[:80]!r} is empty, broken or there twice")
        kind = reader.count("<I")
        if kind == ARRAY:
            metadata[key] = reader.array(key)
        elif kind in SCALARS or kind == STRING:
            metadata[key] = reader.value(kind, key)
        else:
            raise reader.fail(f"{key} has the unknown value type {kind}")
    return metadata


def _tensor_infos(
    reader: _Reader, n_tensors: int
) -> list[tuple[str, tuple[int, ...], str, int, int]]:
    found, names = [], set()
    for _ in range(n_tensors):
        raw_name = reader.raw(MAX_NAME_BYTES, "a tensor name")
        try:
            name = raw_name.decode()
        except UnicodeDecodeError as error:
            raise reader.fail("a tensor name is not valid UTF-8") from error
        if not name or not name.isprintable() or name in names:
            raise reader.fail(f"the tensor name {name!r} is empty, broken or there twice")
        names.add(name)
        n_dims = reader.count("<I")
        if n_dims > MAX_DIMS:
            raise reader.fail(f"tensor {name} claims {n_dims} dimensions, at most 4 are possible")
        shape = tuple(reader.count() for _ in range(n_dims)) or (1,)
        kind = reader.count("<I")
        type_name, size = _type_and_size(reader, name, shape, kind)
        found.append((name, shape, type_name, reader.count(), size))
    return found


def _type_and_size(
    reader: _Reader, name: str, shape: tuple[int, ...], kind: int
) -> tuple[str, int]:
    if kind not in GGML_TYPES:
        raise ModelError(
            f"{reader.path}: tensor {name} has the unknown type {kind}.",
            "The file may need a newer localseek.",
        )
    type_name, block, block_bytes = GGML_TYPES[kind]
    elements = 1
    for extent in shape:
        elements *= extent
    if not 0 < elements < 2**63:
        raise reader.fail(f"tensor {name} has the impossible shape {list(shape)}")
    if shape[0] % block:
        raise reader.fail(f"tensor {name} has rows of {shape[0]:,}, no multiple of {block}")
    return type_name, elements // block * block_bytes
