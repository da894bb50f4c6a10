"""A sequence as bytes: what both caches hold, the tokens, the model it belongs to, a checksum.

Takes a decoder between two generations and gives a file image, or puts one back. It is whole or
nothing: an image that is damaged, of another model, build or kind of cache is refused with the
reason, and the decoder is then empty. The sampler has no part in it, for every request makes its
own; nor have hidden rows, for the decoder reads the last two tokens again.
"""

import hashlib
import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from localseek.engine.decoder import Decoder
from localseek.engine.llama import Bytes

MAGIC = b"localseek sequence 1\n"
DIGEST_BYTES = 32
_LENGTH = struct.Struct("<Q")


class StateError(Exception):
    """An image cannot be used; the text says why, as the end of a sentence."""


@dataclass(frozen=True)
class Head:
    """What an image says of itself: the model, the tokens, where its parts end."""

    model: str  # fingerprint of model, build and cache types
    n_tokens: int
    draft_length: int  # next position without an entry in the draft cache; 0: no draft cache
    target_bytes: int
    draft_bytes: int

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Give the sizes of tokens, target cache and draft cache in bytes."""
        return 4 * self.n_tokens, self.target_bytes, self.draft_bytes


def image(decoder: Decoder, model: str) -> list[memoryview]:
    """Give the parts of the image of what a decoder has read, in file order."""
    tokens = np.array(decoder.cached, np.int32).view(np.uint8)
    target = decoder.target.state()
    drafter = decoder.drafter
    if drafter:
        drafter.settle()
    draft = drafter.context.state() if drafter else np.empty(0, np.uint8)
    head = {
        "model": model,
        "n_tokens": len(decoder.cached),
        "draft_length": drafter.length if drafter else 0,
        "target_bytes": target.size,
        "draft_bytes": draft.size,
    }
    text = json.dumps(head).encode()
    start = memoryview(MAGIC + _LENGTH.pack(len(text)) + text)
    parts = [start, tokens.data, target.data, draft.data]
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return [*parts, memoryview(digest.digest())]


def read_head(data: Bytes, size_bytes: int) -> tuple[Head, list[int]]:
    """Read head and tokens from the beginning of an image of `size_bytes`; raise StateError."""
    start = len(MAGIC) + _LENGTH.size
    if data[: len(MAGIC)].tobytes() != MAGIC or data.size < start:
        raise StateError("it is no saved sequence of this version")
    (length,) = _LENGTH.unpack(data[len(MAGIC) : start].tobytes())
    if length > 4096 or start + length > data.size:
        raise StateError("it is damaged")
    try:
        values: dict[str, Any] = json.loads(data[start : start + length].tobytes())
        head = Head(**values)
        counts = (head.n_tokens, head.draft_length, head.target_bytes, head.draft_bytes)
        sane = all(type(count) is int and count >= 0 for count in counts)
    except (ValueError, TypeError, RecursionError) as error:
        raise StateError("it is damaged") from error
    if not sane or start + length + sum(head.sizes) + DIGEST_BYTES != size_bytes:
        raise StateError("it is damaged")
    begin = start + length
    tokens = data[begin : begin + 4 * head.n_tokens]
    if tokens.size != 4 * head.n_tokens:
        raise StateError("it is damaged")
    return head, np.frombuffer(tokens.tobytes(), np.int32).tolist()


def restore(decoder: Decoder, data: Bytes, model: str) -> None:
    """Put a sequence back; raise StateError, and leave the decoder empty, if it cannot be used."""
    head, tokens = read_head(data, data.size)
    if head.model != model:
        raise StateError("it belongs to another model or version")
    digest = hashlib.blake2b(data[:-DIGEST_BYTES].data, digest_size=DIGEST_BYTES).digest()
    if digest != data[-DIGEST_BYTES:].tobytes():
        raise StateError("it is damaged")
    drafter = decoder.drafter
    if (drafter is not None) != (head.draft_length > 0):
        raise StateError("it was made with the MTP layer in another state")
    if len(tokens) > decoder.target.n_ctx:
        raise StateError("it is longer than the context")
    begin = data.size - DIGEST_BYTES - head.target_bytes - head.draft_bytes
    middle = begin + head.target_bytes
    decoder.forget()
    put = decoder.target.put_state(data[begin:middle])
    if put and drafter:
        put = drafter.context.put_state(data[middle:-DIGEST_BYTES])
    if not put:
        decoder.forget()
        raise StateError("llama.cpp does not take it")
    decoder.cached = tokens
    if drafter:
        drafter.restore(head.draft_length)
