"""A plan cut into tiles, and what happens to one: read, decode, quantize, write.

A tile is a run of rows that lie together both in a stored tensor and in the file; memory is a few
tiles a thread, whatever the model's size.
Takes a plan and open files. Knows nothing of threads, progress or the file's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Kind

from converters.errors import ConvertError
from converters.kernels.dequantize import dequantize_rows
from converters.kernels.dtypes import (
    E8M0_NAN,
    FP4_BLOCK,
    FP8_BLOCK,
    Bytes,
    Floats,
    decode_e8m0,
    decode_fp4_rows,
    decode_fp8_rows,
    decode_rows,
    repack_fp4,
)
from converters.kernels.quantize import is_in_range, is_valid, quantize_rows, row_bytes
from converters.layout import Piece
from converters.planning.plan import Plan, PlannedTensor
from converters.source.source import Source, StoredTensor
from converters.source.stored import Weight, resolve
from converters.writing.output import Output

# 4 MiB of float32: large enough that Python's share of the work is lost in the kernels' (measured:
# 2 ns a value over Q8_0's 10), small enough that a few threads need some tens of MB.
TILE_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class Tile:
    """Rows [first_row, first_row + rows) of a stored tensor and their place in the file.

    `stride` is the distance of rows in the file, in bytes; 0: they follow each other.
    """

    tensor: PlannedTensor
    source: StoredTensor
    piece: Piece
    first_row: int
    rows: int
    offset: int
    stride: int = 0

    @property
    def elements(self) -> int:
        """Number of values."""
        return self.rows * self.piece.cols

    @property
    def source_bytes(self) -> int:
        """Bytes read for the tile, block scales left out."""
        return self.rows * self.source.row_bytes


@dataclass(frozen=True)
class Run:
    """The tiles of one piece, which are numbered one after the other, in file order of the plan."""

    tensor: PlannedTensor
    source: StoredTensor
    piece: Piece
    offset: int
    out_row: int  # bytes from a row in the file to the next
    stride: int  # out_row if a row of the piece is a part of the file's, else 0
    step: int  # rows a tile
    first: int  # number of the first tile

    @property
    def numbers(self) -> range:
        """The numbers of the tiles."""
        return range(self.first, self.first + -(-self.piece.row_count // self.step))

    @property
    def size_bytes(self) -> int:
        """Bytes that the tiles fill in the file."""
        width = self.piece.cols if self.stride else self.tensor.shape[-1]
        return self.piece.elements // width * row_bytes(self.tensor.kind, width)

    def tiles(self) -> Iterator[tuple[int, Tile]]:
        """Yield the tiles with their numbers."""
        tensor, source, piece = self.tensor, self.source, self.piece
        for number in self.numbers:
            start = (number - self.first) * self.step
            rows = min(self.step, piece.row_count - start)
            offset = self.offset + start * self.out_row
            yield (
                number,
                Tile(tensor, source, piece, piece.first_row + start, rows, offset, self.stride),
            )


def plan_runs(plan: Plan, checkpoint: Source) -> Iterator[Run]:
    """Yield the runs of all pieces in file order."""
    number = 0
    for tensor in plan.tensors:
        offset = tensor.offset
        out_row = row_bytes(tensor.kind, tensor.shape[-1])
        for piece in tensor.pieces:
            source = checkpoint.tensors[piece.source]
            side_by_side = not piece.transpose and piece.cols != tensor.shape[-1]
            start = tensor.offset + row_bytes(tensor.kind, piece.column) if side_by_side else offset
            stride = out_row if side_by_side else 0
            step = piece.row_count if piece.transpose else _tile_rows(piece)
            run = Run(tensor, source, piece, start, out_row, stride, step, number)
            yield run
            number = run.numbers.stop
            if not side_by_side:
                offset += (piece.cols if piece.transpose else piece.row_count) * out_row


def plan_tiles(plan: Plan, checkpoint: Source) -> Iterator[Tile]:
    """Yield all tiles in file order."""
    for run in plan_runs(plan, checkpoint):
        for _, tile in run.tiles():
            yield tile


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
        self._weight: Weight | None = None  # that was last in work
        self._scales: tuple[str, Floats] | None = None  # of the FP8 weight that was last in work

    def read(self, tile: Tile) -> Bytes:
        """Read a tile as it is stored; the bytes are there until the next call."""
        raw = self._buffer("raw", tile.source_bytes)
        self._checkpoint.read_into(tile.source, tile.first_row * tile.source.row_bytes, raw.data)
        return raw

    def decode(self, tile: Tile, raw: Bytes) -> Floats:
        """Return a tile's rows as the file orders them, until the next call."""
        rows = self._buffer("rows", 4 * tile.elements).view(np.float32)
        rows = rows.reshape(tile.rows, tile.piece.cols)
        weight = self._resolved(tile.source)
        if weight.coding == "fp8":
            with np.errstate(over="ignore"):  # what overflows is refused below, with its name
                decode_fp8_rows(raw, self._scales_of(weight), tile.first_row, rows)
        elif weight.coding == "fp4":
            decode_fp4_rows(raw, self._fp4_scales(weight, tile), rows)
        elif weight.coding == "plain":
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

    def _resolved(self, source: StoredTensor) -> Weight:
        if self._weight is None or self._weight.tensor.name != source.name:
            self._weight = resolve(self._checkpoint, source)
        return self._weight

    def _scales_of(self, weight: Weight) -> Floats:
        """Return an FP8 weight's whole scale table, one value a 16,384 weights."""
        stored = weight.scale
        assert stored is not None
        if self._scales is None or self._scales[0] != stored.name:
            raw = np.empty(stored.size_bytes, np.uint8)
            self._checkpoint.read_into(stored, 0, raw.data)
            table = raw.view(np.float32) if stored.dtype == "F32" else decode_e8m0(raw)
            if not np.isfinite(table).all():
                raise _not_finite(stored.name)
            self._scales = (stored.name, table.reshape(stored.shape))
        return self._scales[1]

    def _fp4_scales(self, weight: Weight, tile: Tile) -> Bytes:
        """Return the E8M0 codes of a tile's rows [rows, cols / 32]."""
        stored = weight.scale
        assert stored is not None
        codes = self._buffer("codes", tile.elements // FP4_BLOCK)
        self._checkpoint.read_into(stored, tile.first_row * stored.row_bytes, codes.data)
        if codes.max(initial=0) == E8M0_NAN:
            raise _not_finite(stored.name)
        return codes.reshape(tile.rows, -1)

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
        raw, kind = self.read(tile), tile.tensor.kind
        moved = tile.piece.transpose or tile.piece.interleave
        if tile.tensor.below:
            data = self._table(tile, raw)
        elif tile.source.dtype == kind.name and not moved:
            data = raw
        elif kind == Kind.MXFP4 and self._resolved(tile.source).coding == "fp4":
            data = self._buffer("data", tile.rows * row_bytes(kind, tile.piece.cols))
            repack_fp4(raw, self._fp4_scales(self._resolved(tile.source), tile), data)
        else:
            data = self._encode(tile, raw)
        if not is_valid(kind, data):
            raise ConvertError(
                f"{tile.source.name} holds values that {kind.name} cannot (infinite or no number)"
            )
        if not tile.stride:
            self._output.write(data.data, tile.offset)
            return
        size = row_bytes(kind, tile.piece.cols)
        for row in range(tile.rows):
            part = data[row * size : (row + 1) * size]
            self._output.write(part.data, tile.offset + row * tile.stride)

    def _table(self, tile: Tile, raw: Bytes) -> Bytes:
        """Return whole numbers as I32; raise ConvertError for one that indexes nothing."""
        numbers = whole_numbers(tile, raw)
        least, most = int(numbers.min(initial=0)), int(numbers.max(initial=0))
        if least < 0 or most >= tile.tensor.below:
            raise ConvertError(
                f"{tile.source.name} holds {least if least < 0 else most}, but numbers of "
                f"{tile.tensor.below} experts: download it again"
            )
        return numbers.astype(np.int32).view(np.uint8)

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


def whole_numbers(tile: Tile, raw: Bytes) -> npt.NDArray[np.int32] | npt.NDArray[np.int64]:
    """Return a tile of a table as its source stores it, without its shape."""
    return raw.view(np.int64) if tile.source.dtype == "I64" else raw.view(np.int32)


def _not_finite(name: str) -> ConvertError:
    return ConvertError(f"{name} holds values that are infinite or no number: download it again")
