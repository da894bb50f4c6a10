"""What caches take: a row in each ggml type, and V4's caches, which compress and forget.

Takes counts from a file's header, gives bytes. V4 keeps a window of whole keys in each layer, one
key for every 4 or 128 tokens beyond it, and the tokens that are not compressed yet, with copies to
go back to after rejected drafts (llama.cpp 0.3.36: src/llama-kv-cache-dsv4.cpp).
"""

from dataclasses import dataclass

from localseek.gguf.head import GGML_TYPES
from localseek.gguf.info import GGUFInfo

CELLS = 256  # llama.cpp rounds the cells of a cache up to a multiple of it
FLOAT = 4  # bytes; tokens not compressed yet are kept in F32
DENSE, SPARSE = 4, 128  # ratios of compression; the former has an indexer and overlaps


def type_bytes(name: str, elements: int) -> int:
    """Give the bytes of a row of `elements` in a ggml type; whole blocks."""
    _, block, width = next(known for known in GGML_TYPES.values() if known[0].lower() == name)
    return -(-elements // block) * width


@dataclass(frozen=True, slots=True)
class CompressedCache:
    """The sizes that decide on V4's caches: ratios by layer, the window, floats of a key."""

    ratios: tuple[int, ...]
    window: int
    key: int
    value: int
    indexer: int

    def layer_bytes(
        self, index: int, draft: bool, cache_type: str, cells: int, batch: int, snapshots: int
    ) -> int:
        """Give the cache of a layer for `cells` tokens, with `snapshots` to go back to."""
        window = _padded(min(cells, self.window + batch))
        if draft:  # an ordinary cache, with values
            row = type_bytes(cache_type, self.key) + type_bytes(cache_type, self.value)
            return window * row
        row, ratio = type_bytes(cache_type, self.key), self.ratios[index]
        size = window * row
        if ratio == DENSE:
            indexer = type_bytes(cache_type, self.indexer)
            size += _padded(-(-cells // ratio)) * (row + indexer)
            size += self._waiting(2 * DENSE, 2 * (self.key + self.indexer), snapshots)
        elif ratio == SPARSE:
            size += _padded(-(-cells // ratio)) * row
            size += self._waiting(SPARSE, self.key, snapshots)
        return size

    def token_bytes(self, index: int, draft: bool, cache_type: str) -> int:
        """Give what a token beyond the window adds to a layer's cache, rounded down."""
        ratio = 0 if draft else self.ratios[index]
        if not ratio:
            return 0
        row = type_bytes(cache_type, self.key)
        return (row + (type_bytes(cache_type, self.indexer) if ratio == DENSE else 0)) // ratio

    def _waiting(self, rows: int, floats: int, snapshots: int) -> int:
        """Give the bytes of tokens not compressed yet: keys and their scores."""
        return 2 * rows * floats * FLOAT * (1 + snapshots)


def _padded(cells: int) -> int:
    return -(-cells // CELLS) * CELLS


def read_compressed(info: GGUFInfo) -> CompressedCache | None:
    """Read the sizes from a V4 file, None for any other."""
    if info.architecture != "deepseek4":
        return None
    ratios = info.array("deepseek4.attention.compress_ratios")
    return CompressedCache(
        ratios=tuple(ratio for ratio in ratios if isinstance(ratio, int)),
        window=info.count("attention.sliding_window"),
        key=info.count("attention.key_length"),
        value=info.count("attention.value_length"),
        indexer=info.count("attention.indexer.key_length"),
    )
