"""A sequence as bytes: what both caches hold, the tokens, the model it belongs to, a checksum.

Takes a decoder between two generations and gives a file image, or puts one back. It is whole or
nothing: an image that is damaged, of another model, build or kind of cache is refused with the
reason, and the decoder is then empty. The trunk's hidden row before the next token is kept with
it, so that a decoder goes on just as if it had never stopped. The sampler has no part in it: every
request makes its own from its seed, and none goes on in the middle of an answer.
"""

import hashlib
import json
import struct
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from localseek.engine.decoding.decoder import Decoder
from localseek.engine.llama import Bytes
from localseek.store.sequences import Content

MAGIC = b"localseek sequence 2\n"
DIGEST_BYTES = 32
LONGEST_HEAD = 4096  # bytes
_LENGTH = struct.Struct("<Q")
LONGEST_START = len(MAGIC) + _LENGTH.size + LONGEST_HEAD  # up to where the tokens begin


class StateError(Exception):
    """An image cannot be used here; the text says why, as the end of a sentence."""


class DamagedError(StateError):
    """An image can be used nowhere."""

    def __init__(self, why: str = "it is damaged") -> None:
        super().__init__(why)


@dataclass(frozen=True)
class Origin:
    """Where an image comes from."""

    model: str  # fingerprint of model, build and kind of caches
    place: str  # digest of the path of the model's file


@dataclass(frozen=True)
class Head:
    """What an image says of itself: its origin, where its parts end."""

    model: str
    place: str
    n_tokens: int
    draft_length: int  # next position without an entry in the draft cache; 0: no draft cache
    row_bytes: int  # the trunk's hidden row before the next token; 0: not known
    target_bytes: int
    draft_bytes: int

    @property
    def counts(self) -> tuple[int, ...]:
        """Give all that must be whole numbers."""
        return self.n_tokens, self.draft_length, *self.sizes[1:]

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Give the sizes of tokens, hidden row, target cache and draft cache in bytes."""
        return 4 * self.n_tokens, self.row_bytes, self.target_bytes, self.draft_bytes


def image(decoder: Decoder, origin: Origin) -> list[memoryview]:
    """Give the parts of the image of what a decoder has read, in file order."""
    tokens = np.array(decoder.cached, np.int32).view(np.uint8)
    drafter = decoder.drafter
    row = drafter.settle_before(len(decoder.cached)) if drafter else None
    hidden = np.empty(0, np.uint8) if row is None else row.copy().view(np.uint8)
    target = decoder.target.state()
    draft = drafter.context.state() if drafter else np.empty(0, np.uint8)
    head = Head(
        **asdict(origin), n_tokens=len(decoder.cached),
        draft_length=drafter.length if drafter else 0,
        row_bytes=hidden.size, target_bytes=target.size, draft_bytes=draft.size,
    )  # fmt: skip
    text = json.dumps(asdict(head)).encode()
    start = memoryview(MAGIC + _LENGTH.pack(len(text)) + text)
    parts = [start, tokens.data, hidden.data, target.data, draft.data]
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return [*parts, memoryview(digest.digest())]


def read_tokens(content: Content) -> tuple[Head, NDArray[np.int32]]:
    """Read head and tokens of a saved image, and no more of it; raise StateError, ValueError."""
    start = content.first(LONGEST_START)
    head, end = _read_head(np.frombuffer(start, np.uint8), content.size)
    needed = end + 4 * head.n_tokens
    data = start if needed <= len(start) else content.first(needed)
    return head, np.frombuffer(bytes(data[end:needed]), np.int32)  # not of the file any more


def read_head(data: Bytes, size_bytes: int) -> tuple[Head, NDArray[np.int32]]:
    """Read head and tokens from the beginning of an image of `size_bytes`; raise StateError."""
    head, begin = _read_head(data, size_bytes)
    tokens = data[begin : begin + 4 * head.n_tokens]
    if tokens.size != 4 * head.n_tokens:
        raise DamagedError
    return head, np.frombuffer(tokens.tobytes(), np.int32)


def _read_head(data: Bytes, size_bytes: int) -> tuple[Head, int]:
    """Give the head and where it ends."""
    start = len(MAGIC) + _LENGTH.size
    if data[: len(MAGIC)].tobytes() != MAGIC or data.size < start:
        raise DamagedError("it is not a saved sequence of this version")
    (length,) = _LENGTH.unpack(data[len(MAGIC) : start].tobytes())
    if length > LONGEST_HEAD or start + length > data.size:
        raise DamagedError
    try:
        head = Head(**json.loads(data[start : start + length].tobytes()))
        sane = all(type(count) is int and count >= 0 for count in head.counts)
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedError from error
    if not sane or start + length + sum(head.sizes) + DIGEST_BYTES != size_bytes:
        raise DamagedError
    return head, start + length


def restore(decoder: Decoder, data: Bytes, model: str) -> None:
    """Put a sequence back; raise StateError, and leave the decoder empty, if it cannot be used."""
    decoder.forget()
    head, tokens = read_head(data, data.size)
    if head.model != model:
        raise StateError("it belongs to another model or version")
    digest = hashlib.blake2b(data[:-DIGEST_BYTES].data, digest_size=DIGEST_BYTES).digest()
    if digest != data[-DIGEST_BYTES:].tobytes():
        raise DamagedError
    drafter = decoder.drafter
    if (drafter is not None) != (head.draft_length > 0):
        raise StateError("it was made with the MTP layer in another state")
    if len(tokens) > decoder.target.n_ctx:
        raise StateError("it is longer than the context")
    # From the end: the tokens are read already, and what is before them is of any length.
    middle = data.size - DIGEST_BYTES - head.draft_bytes
    begin = middle - head.target_bytes
    row = np.frombuffer(data[begin - head.row_bytes : begin].tobytes(), np.float32)
    # llama.cpp may take a state for good that lacks something: where it ends must be seen.
    put = decoder.target.put_state(data[begin:middle])
    put = put and decoder.target.length() == len(tokens)
    if put and drafter:
        put = drafter.context.put_state(data[middle:-DIGEST_BYTES])
        put = put and drafter.context.length() in (0, head.draft_length)
        put = put and row.size in (0, drafter.carry.size)
    if not put:
        decoder.forget()
        raise StateError("llama.cpp does not take it")
    decoder.cached = tokens.tolist()
    if drafter:
        drafter.restore(head.draft_length, row if row.size else None)
