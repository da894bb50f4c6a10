"""What the shared cache of a context holds for each of its sequences.

A cell holds one token at one position and may belong to several sequences: what begins alike is
read once. Takes tokens that were decoded, gives beginnings that are there already and how many
cells are taken. Knows nothing about requests.
"""

from collections.abc import Iterable
from itertools import count

from localseek.engine.decoding.decoder import common_prefix
from localseek.engine.llama import Context


class Cells:
    """The cells of a context's sequences, numbered from 0; one without a request keeps its own."""

    def __init__(self, context: Context, sequences: int) -> None:
        self.context = context
        self.held: list[list[int]] = [[] for _ in range(sequences)]  # tokens, by sequence
        self._cells: list[list[int]] = [[] for _ in range(sequences)]  # numbers that we give them
        self._numbers = count()
        self._clock = count()
        self._used_at = [-1] * sequences

    def read(self, sequence: int, tokens: list[int]) -> None:
        """Note tokens that were decoded at the end of a sequence."""
        self.held[sequence] += tokens
        self._cells[sequence] += [next(self._numbers) for _ in tokens]

    def cut(self, sequence: int, length: int) -> int:
        """Forget all from position `length` on; give what is left, which may be nothing."""
        if not self.context.cut(sequence, length):
            length = 0
        del self.held[sequence][length:]
        del self._cells[sequence][length:]
        return length

    def share(self, source: int, sequence: int, length: int) -> None:
        """Let an empty sequence begin as another one does, in the same cells."""
        self.context.share(source, sequence, length)
        self.held[sequence] = self.held[source][:length]
        self._cells[sequence] = self._cells[source][:length]

    def beginning(self, tokens: list[int]) -> tuple[int, int]:
        """Give the sequence that has most of the beginning of `tokens`, and how much of it."""
        shared = [common_prefix(held, tokens) for held in self.held]
        best = max(range(len(shared)), key=shared.__getitem__)
        return best, shared[best]

    def oldest(self, sequences: Iterable[int]) -> int:
        """Give the one of some sequences that was not begun for longest."""
        return min(sequences, key=self._used_at.__getitem__)

    def touch(self, sequence: int) -> None:
        """Note that a sequence is begun now."""
        self._used_at[sequence] = next(self._clock)

    def taken(self, sequences: Iterable[int]) -> int:
        """Count the cells that some sequences take together."""
        found: set[int] = set()
        return len(found.union(*(self._cells[sequence] for sequence in sequences)))
