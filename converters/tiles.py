"""A plan cut into tiles, and what happens to one: read, decode, quantize, write.

A tile is a run of rows that lie together both in a stored tensor and in the file; memory is a few
tiles a thread, whatever the model's size.
Takes a plan and open files. Knows nothing of threads, progress or the file's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from converters.dequantize import dequantize_rows
from converters.dtypes import FP8_BLOCK, PLAIN_DTYPES, Bytes, Floats, decode_fp8_rows, decode_rows
from converters.errors import ConvertError
from converters.layout import Piece
from converters.output import Output
from converters.plan import Plan, PlannedTensor, scale_of
from converters.quantize import is_in_range, is_valid, quantize_rows, row_bytes
from converters.source import Source, StoredTensor

# 4 MiB of float32: large enough that Python's share of the work is lost in the kernels' (measured:
# 2 ns a value over Q8_0's 10), small enough that a few threads need some tens of MB.
TILE_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class Tile:
    """Rows [first_row, first_row + rows) of a stored tensor and their place in the file."""

    tensor: PlannedTensor
    source: StoredTensor
    piece: Piece
    first_row: int
    rows: int
    offset: int

    @property
    def elements(self) -> int:
        """Number of values."""
        return self.rows * self.piece.cols

    @property
    def source_bytes(self) -> int:
        """Bytes read for the tile, block scales left out."""
        return self.rows * self.source.row_bytes


def plan_tiles(plan: Plan, checkpoint: Source) -> Iterator[Tile]:
    """Yield all tiles in file order."""
    for tensor in plan.tensors:
        offset = tensor.offset
        out_row = row_bytes(tensor.kind, tensor.shape[-1])
        for piece in tensor.pieces:
            source = checkpoint.tensors[piece.source]
            step = piece.row_count if piece.transpose else _tile_rows(piece)
            for start in range(0, piece.row_count, step):
                rows = min(step, piece.row_count - start)
                yield Tile(tensor, source, piece, piece.first_row + start, rows, offset)
                out_rows = piece.cols if piece.transpose else rows
                offset += out_rows * out_row


def _tile_rows(piece: Piece) -> int:
    rows = max(1, TILE_ELEMENTS // piece.cols)
    if piece.interleave:  # whole heads
        return max(rows - rows % piece.interleave, piece.interleave)
    # Whole scale blocks where possible, so that a block's scales are spread out once.
    return rows // FP8_BLOCK * FP8_BLOCK or rows


class TileReader:
    """One thread's buffers, and a tile as the checkpoint means it: float32 rows."""

    def __init__(self, checkpoint: Source) -> None:
        self._checkpoint = checkpoint
        self._buffers: dict[str, Bytes] = {}
        self._scales: tuple[str, Floats] | None = None  # of the weight that was last in work

    def read(self, tile: Tile) -> Bytes:
        """Read a tile as it is stored; the bytes are there until the next call."""
        raw = self._buffer("raw", tile.source_bytes)
        self._checkpoint.read_into(tile.source, tile.first_row * tile.source.row_bytes, raw.data)
        return raw

    def decode(self, tile: Tile, raw: Bytes) -> Floats:
        """Return a tile's rows as the file orders them, until the next call."""
        rows = self._buffer("rows", 4 * tile.elements).view(np.float32)
        rows = rows.reshape(tile.rows, tile.piece.cols)
        if tile.source.dtype == "F8_E4M3":
            decode_fp8_rows(raw, self._scales_of(tile.source), tile.first_row, rows)
        elif tile.source.dtype in PLAIN_DTYPES:
            decode_rows(tile.source.dtype, raw, rows)
        else:
            dequantize_rows(tile.source.dtype, raw, rows)
        # Quantizing would hide them: ggml looks at block scales only. 0.1 ns a value over Q8_0's 4.
        finite = self._buffer("finite", tile.elements).view(np.bool_).reshape(rows.shape)
        if not np.isfinite(rows, out=finite).all():
            raise _not_finite(tile.source.name)
        if tile.piece.transpose:
            turned = self._buffer("turned", rows.nbytes).view(np.float32).reshape(rows.shape[::-1])
            turned[:] = rows.T
            rows = turned
        if tile.piece.interleave:
            rows = self._dealt(rows, tile.piece.interleave)
        return rows

    def _dealt(self, rows: Floats, head: int) -> Floats:
        """Deal the two halves of every `head` rows out alternately."""
        dealt = self._buffer("turned", rows.nbytes).view(np.float32).reshape(rows.shape)
        halves = rows.reshape(-1, 2, head // 2, rows.shape[1])
        dealt.reshape(-1, head // 2, 2, rows.shape[1])[:] = halves.swapaxes(1, 2)
        return dealt

    def _scales_of(self, weight: StoredTensor) -> Floats:
        """Return a weight's whole scale table, one value a 16,384 weights."""
        if self._scales is None or self._scales[0] != weight.name:
            stored = scale_of(self._checkpoint, weight)
            table = np.empty(stored.shape, np.float32)
            self._checkpoint.read_into(stored, 0, table.reshape(-1).view(np.uint8).data)
            if not np.isfinite(table).all():
                raise _not_finite(stored.name)
            self._scales = (weight.name, table)
        return self._scales[1]

    def _buffer(self, role: str, size: int) -> Bytes:
        """Return `size` bytes of a buffer that grows to the largest tile and is then reused."""
        buffer = self._buffers.get(role)
        if buffer is None or buffer.nbytes < size:
            buffer = self._buffers[role] = np.empty(size, np.uint8)
        return buffer[:size]


class TileWriter(TileReader):
    """A reader that also encodes and writes."""

    def __init__(self, checkpoint: Source, output: Output) -> None:
        super().__init__(checkpoint)
        self._output = output

    def write(self, tile: Tile) -> None:
        """Convert a tile; raise ConvertError if it cannot be read, encoded or written."""
        raw = self.read(tile)
        kind = tile.tensor.kind
        moved = tile.piece.transpose or tile.piece.interleave
        data = raw if tile.source.dtype == kind.name and not moved else self._encode(tile, raw)
        if not is_valid(kind, data):
            raise ConvertError(
                f"{tile.source.name} holds values that {kind.name} cannot (infinite or no number)"
            )
        self._output.write(data.data, tile.offset)

    def _encode(self, tile: Tile, raw: Bytes) -> Bytes:
        rows = self.decode(tile, raw)
        count, cols = rows.shape
        kind = tile.tensor.kind
        if not is_in_range(kind, rows):
            raise ConvertError(f"{tile.source.name} holds values too large for {kind.name}")
        size = row_bytes(kind, cols)
        data = self._buffer("data", count * size)
        if tile.tensor.importance is None:
            quantize_rows(kind, rows, data)
            return data
        first, done = (tile.offset - tile.tensor.offset) // size, 0
        for part, weights in tile.tensor.importance.runs(first, count, tile.tensor.shape[-2]):
            quantize_rows(kind, rows[done : done + part], data[done * size :], weights)
            done += part
        return data


def _not_finite(name: str) -> ConvertError:
    return ConvertError(f"{name} holds values that are infinite or no number: download it again")
