"""Rows for one decode: tokens at positions of sequences, hidden rows beside them if asked for.

The memory that llama.cpp reads is made once and written in place; nothing is allocated for a step.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np
from numpy.typing import NDArray

from localseek.engine.llama.types import Floats

_SEQUENCES = ctypes.POINTER(ctypes.POINTER(lib.llama_seq_id))
FEW = 8  # rows that are written one by one: numpy takes longer for so few


class Batch:
    """Room for rows: tokens at positions, hidden rows beside them if asked for.

    `fill` and `put` take rows of one sequence, number 0; `add` rows of any, after `clear`.
    """

    def __init__(self, capacity: int, n_embd: int = 0) -> None:
        self.capacity = capacity
        self._tokens = (lib.llama_token * capacity)()
        self._pos = (lib.llama_pos * capacity)()
        self._n_seq = (ctypes.c_int32 * capacity)(*([1] * capacity))
        self._sequences = (lib.llama_seq_id * capacity)()
        step = ctypes.sizeof(lib.llama_seq_id)
        first = ctypes.addressof(self._sequences)
        self._pointers = (ctypes.c_void_p * capacity)(
            *range(first, first + step * capacity, step)
        )  # fmt: skip
        self._logits = (ctypes.c_int8 * capacity)()
        self.tokens: NDArray[np.int32] = np.ctypeslib.as_array(self._tokens)
        self.pos: NDArray[np.int32] = np.ctypeslib.as_array(self._pos)
        self.logits: NDArray[np.int8] = np.ctypeslib.as_array(self._logits)
        self.sequences: NDArray[np.int32] = np.ctypeslib.as_array(self._sequences)
        self.rows: Floats = np.zeros((capacity, n_embd), dtype=np.float32)
        floats = ctypes.POINTER(ctypes.c_float)
        self.struct: Any = lib.llama_batch(
            0, self._tokens, self.rows.ctypes.data_as(floats) if n_embd else floats(), self._pos,
            self._n_seq, ctypes.cast(self._pointers, _SEQUENCES), self._logits,
        )  # fmt: skip

    def fill(
        self, tokens: Sequence[int] | NDArray[np.int32], first: int, rows: Floats | None = None,
        outputs: int = 1,
    ) -> None:  # fmt: skip
        """Take tokens for positions `first`, `first`+1, …; the last `outputs` rows give logits."""
        count = len(tokens)
        self.tokens[:count] = tokens
        if rows is not None:
            self.rows[:count] = rows
        self.place(count, first, outputs)

    def place(self, count: int, first: int, outputs: int = 1) -> None:
        """Put the first `count` rows, which are filled, at positions `first`, `first`+1, …"""
        if count <= FEW:
            for row in range(count):
                self._pos[row] = first + row
                self._logits[row] = row >= count - outputs
        else:
            self.pos[:count] = range(first, first + count)
            self.logits[:count] = 0
            self.logits[count - outputs : count] = 1
        self.struct.n_tokens = count

    def put(self, tokens: Sequence[int], first: int) -> None:
        """Take a few tokens, all of which give logits: `fill` without what costs more for few."""
        count = len(tokens)
        for index, token in enumerate(tokens):
            self._tokens[index] = token
            self._pos[index] = first + index
            self._logits[index] = 1
        self.struct.n_tokens = count

    def note(self, tokens: Sequence[int], at: int) -> None:
        """Write a few tokens into rows from number `at` on, and nothing else."""
        for row, token in enumerate(tokens, at):
            self._tokens[row] = token

    def change(self, token: int, position: int) -> None:
        """Let the only row, which stays one that gives logits, be another token elsewhere."""
        self._tokens[0] = token
        self._pos[0] = position

    @property
    def count(self) -> int:
        """Give the number of rows."""
        return int(self.struct.n_tokens)

    def clear(self) -> None:
        """Drop all rows."""
        self.struct.n_tokens = 0

    def add(
        self, tokens: Sequence[int] | NDArray[np.int32], first: int, sequence: int,
        rows: Floats | None = None, outputs: int = 0,
    ) -> None:  # fmt: skip
        """Take more rows, of a sequence's positions from `first`; the last `outputs` give logits.

        There must be room for them.
        """
        start, end = self.count, self.count + len(tokens)
        self.tokens[start:end] = tokens
        self.pos[start:end] = range(first, first + end - start)
        self.sequences[start:end] = sequence
        self.logits[start : end - outputs] = 0
        self.logits[end - outputs : end] = 1
        if rows is not None:
            self.rows[start:end] = rows
        self.struct.n_tokens = end
