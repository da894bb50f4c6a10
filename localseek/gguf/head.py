"""The head of a GGUF file, read with every bound checked before anything is believed.

Takes a path, gives where each metadata value and each tensor lies, and the file's bytes while it
is open. The layout rules are those of llama.cpp's ggml/src/gguf.cpp and ggml/docs/gguf.md: what
that would refuse, or worse accept, is refused here with a reason. The one reader of both packages:
the runtime takes values by their meaning (header.py), a conversion by their bytes. Imports nothing
of either, and knows nothing about models.
"""

import contextlib
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
UINT32, STRING, ARRAY = 4, 8, 9
SCALARS = {  # GGUF value type → struct format
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
ALIGNMENT, LEAST_ALIGNMENT = 32, 8  # bytes: GGUF's default; fewer than 8 would split a number
MAX_DIMS = 4
MAX_NAME_BYTES = 63  # ggml keeps a name in 64 bytes with its final zero
MAX_KEY_BYTES = 65_535  # the GGUF specification's limit
MIN_PAIR_BYTES, MIN_TENSOR_BYTES = 14, 25  # the shortest possible entries bound the counts
MAX_TEXT_BYTES = 64_000_000  # of one text, or a list of texts: the largest known lists have 10 MB
MAX_HEAD_BYTES = 1 << 28  # a conversion holds a head in memory; the largest known have 20 MB
LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # how every pointer file begins
AGAIN = "Download or convert it again."


class HeadError(Exception):
    """Why a head was refused, without a final period, and what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


@dataclass(frozen=True, slots=True)
class Field:
    """A metadata value: its type number and its place in the file.

    An array's elements are of type `item`, `count` of them, from `first` on.
    """

    kind: int
    start: int
    end: int
    item: int = -1
    count: int = 1
    first: int = 0


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor; `shape` innermost first, `offset` from the start of the data."""

    name: str
    shape: tuple[int, ...]
    kind: int  # ggml type number
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Head:
    """What a file says before the data; `end` is where the last tensor ends."""

    version: int
    fields: dict[str, Field]
    tensors: tuple[TensorInfo, ...]
    alignment: int
    data_start: int
    end: int


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Head, mmap.mmap]]:
    """Read and check a file's head; its bytes can be read while the block lasts.

    Raises HeadError.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size < struct.calcsize("<4sIQQ"):
                raise HeadError(f"{path} is not a GGUF file: it has {size} bytes")
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise HeadError(f"{path} cannot be read: {reason}") from error
    with buffer:
        yield _read(_Reader(path, buffer)), buffer


def meaning(kind: int, data: bytes) -> Scalar | tuple[Scalar, ...]:
    """Give what the bytes of a checked value mean; text that is not UTF-8 is replaced."""
    if kind in SCALARS:
        (found,) = struct.unpack(SCALARS[kind], data)
        return found  # type: ignore[no-any-return]  # struct cannot say what a format gives
    if kind == STRING:
        return data[8:].decode("utf-8", "replace")
    item, count = struct.unpack_from("<IQ", data)
    return elements(item, count, data[12:])


def elements(item: int, count: int, data: bytes) -> tuple[Scalar, ...]:
    """Give what the bytes of an array's elements mean; raises ValueError if they changed."""
    try:
        if item in SCALARS:
            return struct.unpack_from(f"<{count}{SCALARS[item][1]}", data)
        return tuple(text.decode("utf-8", "replace") for text in raw_texts(count, data))
    except struct.error as error:
        raise ValueError("the elements are not all there") from error


def raw_texts(count: int, data: bytes) -> list[bytes]:
    """Give an array's texts as stored; raises ValueError if they changed."""
    at, texts, length_at = 0, [], struct.Struct("<Q").unpack_from
    try:
        for _ in range(count):
            start = at + 8
            at = start + length_at(data, at)[0]
            texts.append(data[start:at])
    except (struct.error, OverflowError) as error:
        raise ValueError("the texts are not all there") from error
    return texts


class _Reader:
    """A place in a file that moves forward only and never beyond its end."""

    def __init__(self, path: Path, buffer: mmap.mmap) -> None:
        self.path, self.buffer = path, buffer
        self.size, self.at = len(buffer), 0

    def fail(self, what: str) -> HeadError:
        return HeadError(f"{self.path} is damaged: {what}", AGAIN)

    def advance(self, size: int, what: str, unit: str = "") -> int:
        """Go `size` bytes on and give where they begin."""
        start = self.at
        if size > self.size - start:
            claim = unit or f"{size:,} bytes, {self.size - start:,} are left"
            raise self.fail(f"{what} claims {claim}")
        if start + size > MAX_HEAD_BYTES:
            raise self.fail(f"its head has more than {MAX_HEAD_BYTES:,} bytes")
        self.at += size
        return start

    def count(self, code: str = "<Q") -> int:
        size = struct.calcsize(code)
        if size > self.size - self.at:
            raise self.fail(f"the header ends early, at byte {self.size:,}")
        return int(struct.unpack_from(code, self.buffer, self.advance(size, "the head"))[0])

    def raw(self, limit: int, what: str) -> bytes:
        length = self.count()
        if length > limit:
            raise self.fail(f"{what} claims {length:,} bytes, at most {limit:,} are allowed")
        start = self.advance(length, what)
        return self.buffer[start : self.at]

    def name(self, limit: int, what: str, known: object) -> str:
        """Read a key or a tensor's name: printable, and not there twice."""
        try:
            found = self.raw(limit, f"a {what}").decode()
        except UnicodeDecodeError as error:
            raise self.fail(f"a {what} is not valid UTF-8") from error
        if not found or not found.isprintable() or found in known:  # type: ignore[operator]  # a container
            raise self.fail(f"the {what} {found[:80]!r} is empty, broken or there twice")
        return found

    def field(self, kind: int, key: str) -> Field:
        """Go past a value and give its place."""
        start = self.at
        if kind == ARRAY:
            return self._array(start, key)
        if kind == STRING:
            length = self.count()
            if length > MAX_TEXT_BYTES:
                limit = f"at most {MAX_TEXT_BYTES:,} are allowed"
                raise self.fail(f"{key} claims {length:,} bytes, {limit}")
            self.advance(length, key)
        elif kind in SCALARS:
            self.advance(struct.calcsize(SCALARS[kind]), key)
        else:
            raise self.fail(f"{key} has the unknown value type {kind}")
        return Field(kind, start, self.at)

    def _array(self, start: int, key: str) -> Field:
        item, count = self.count("<I"), self.count()
        if item not in SCALARS and item != STRING:
            raise self.fail(f"{key} is an array of unknown or nested type {item}")
        first = self.at
        width = 8 if item == STRING else struct.calcsize(SCALARS[item])
        if count > (self.size - first) // width:
            raise self.fail(f"{key} claims {count:,} elements, more than the file has room for")
        size = self._texts_size(key, count) if item == STRING else width * count
        self.advance(size, key)
        return Field(ARRAY, start, self.at, item, count, first)

    def _texts_size(self, key: str, count: int) -> int:
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
        return int(at - self.at)


def _read(reader: _Reader) -> Head:
    version, n_tensors, n_pairs = _preamble(reader)
    fields: dict[str, Field] = {}
    for _ in range(n_pairs):
        key = reader.name(MAX_KEY_BYTES, "metadata key", fields)
        fields[key] = reader.field(reader.count("<I"), key[:80])
    alignment = _alignment(reader, fields.get("general.alignment"))
    found: dict[str, TensorInfo] = {}
    for _ in range(n_tensors):
        name = reader.name(MAX_NAME_BYTES, "tensor name", found)
        found[name] = _tensor(reader, name)
    start = -(-reader.at // alignment) * alignment
    expected, end = 0, reader.at
    for one in found.values():
        if one.offset != expected:  # llama.cpp's rule: in order, no gaps, so nothing can overlap
            raise reader.fail(f"tensor {one.name} is at offset {one.offset:,}, not at {expected:,}")
        end = start + one.offset + one.size_bytes
        expected = one.offset + -(-one.size_bytes // alignment) * alignment
    if end > reader.size:
        missing = f"{end - reader.size:,} of {end:,} bytes are missing"
        raise HeadError(f"{reader.path} is truncated: {missing}", "Download or copy it again.")
    return Head(version, fields, tuple(found.values()), alignment, start, end)


def _preamble(reader: _Reader) -> tuple[int, int, int]:
    path = reader.path
    if reader.buffer[: len(LFS_POINTER)] == LFS_POINTER:
        what = f"{path} is a Git LFS pointer, not the file itself"
        raise HeadError(what, "Run `git lfs pull` in its folder.")
    if reader.buffer[:4] != b"GGUF":
        hint = "`localseek convert` makes one from a checkpoint folder."
        raise HeadError(f"{path} is not a GGUF file", hint)
    reader.at = 4
    version = reader.count("<I")
    if version & 0xFFFF == 0 and version:
        raise HeadError(f"{path} is big-endian", "Only little-endian files run here.")
    if version not in (2, 3):
        raise HeadError(f"{path} has GGUF version {version}; 2 and 3 can be read")
    n_tensors, n_pairs = reader.count(), reader.count()
    if n_tensors > reader.size // MIN_TENSOR_BYTES or n_pairs > reader.size // MIN_PAIR_BYTES:
        raise reader.fail(f"it claims {n_tensors:,} tensors and {n_pairs:,} metadata entries")
    return version, n_tensors, n_pairs


def _alignment(reader: _Reader, stated: Field | None) -> int:
    if stated is None:
        return ALIGNMENT
    found = meaning(stated.kind, reader.buffer[stated.start : stated.end])
    power = isinstance(found, int) and found >= LEAST_ALIGNMENT and not found & (found - 1)
    if stated.kind != UINT32 or not isinstance(found, int) or not power:
        rule = f"a power of two from {LEAST_ALIGNMENT}"
        raise reader.fail(f"its general.alignment is {found!r}, not {rule}")
    return found


def _tensor(reader: _Reader, name: str) -> TensorInfo:
    n_dims = reader.count("<I")
    if n_dims > MAX_DIMS:
        raise reader.fail(f"tensor {name} claims {n_dims} dimensions, at most 4 are possible")
    shape = tuple(reader.count() for _ in range(n_dims)) or (1,)
    kind, offset = reader.count("<I"), reader.count()
    if kind not in GGML_TYPES:
        what = f"{reader.path}: tensor {name} has the unknown type {kind}"
        raise HeadError(what, "The file may need a newer localseek.")
    _, block, block_bytes = GGML_TYPES[kind]
    count = 1
    for extent in shape:
        count *= extent
    if not 0 < count < 2**63:
        raise reader.fail(f"tensor {name} has the impossible shape {list(shape)}")
    if shape[0] % block:
        raise reader.fail(f"tensor {name} has rows of {shape[0]:,}, no multiple of {block}")
    return TensorInfo(name, shape, kind, offset, count // block * block_bytes)
