"""All tokens with their logits in one table, as llama.cpp's samplers take them.

The memory is made once and filled again for each row.
"""

import ctypes
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np
from numpy.typing import NDArray

from localseek.engine.llama.types import Floats

_ROW = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data


class Candidates:
    """Room for `capacity` tokens; `pointer` is what llama.cpp is given."""

    def __init__(self, capacity: int) -> None:
        self._table: NDArray[Any] = np.zeros(capacity, _ROW)
        self._ids = np.arange(capacity, dtype=np.int32)
        self._rows = ctypes.cast(self._table.ctypes.data, lib.llama_token_data_p)
        self._array: Any = lib.llama_token_data_array(self._rows, capacity, -1, False)
        self.pointer = ctypes.byref(self._array)

    def fill(self, logits: Floats) -> None:
        """Take a row of logits, [n_vocab]."""
        self._table["id"] = self._ids
        self._table["logit"] = logits
        self._table["p"] = 0.0
        self._array.data, self._array.size = self._rows, len(self._ids)
        self._array.selected, self._array.sorted = -1, False

    @property
    def selected(self) -> int:
        """Give the token that a chain has chosen."""
        return int(self._array.data[self._array.selected].id)
