"""Drafting with the model's own multi-token prediction (MTP) layer.

Takes accepted tokens with the trunk's hidden rows, gives likely next tokens. The layer has its
own cache: its entry at position p >= 1 is made from the token at p and the trunk's hidden row at
p - 1 (after the final norm; DeepSeek-V3 technical report, section 2.2). Position 0 has no entry,
as in training. Knows nothing about sampling or what becomes of its drafts.
"""

from collections.abc import Sequence

import numpy as np

from localseek.engine.llama import Batch, Context, Floats, Model
from localseek.events import DraftStats


class Drafter:
    """The MTP context beside a target context.

    `length` is the next position without an entry, never under 1; `carry` is the trunk's hidden
    row at the last position that the trunk has read.
    """

    def __init__(self, model: Model, target: Context, threads: int) -> None:
        self.context = Context(
            model, target.n_ctx, threads, target.n_batch, target=target, abort=target.abort
        )
        self._batch = Batch(target.n_batch, model.n_embd)
        self.length = 1
        self.carry: Floats = np.zeros(model.n_embd, dtype=np.float32)
        self._waiting: list[int] = []  # accepted tokens from position `length` on, not yet run
        self._waiting_rows: list[Floats] = []  # and the hidden row before each

    def observe(self, tokens: Sequence[int], rows: Floats) -> None:
        """Take tokens that the trunk has read, with its hidden rows [len(tokens), n_embd].

        The row before the first of them must be in `carry`.
        """
        if not tokens:
            return
        before = np.concatenate((self.carry[None], rows[:-1]))
        self._run(list(tokens), before, "none")
        self.carry = rows[-1]

    def accept(self, tokens: Sequence[int], rows: Floats) -> None:
        """Take newly chosen tokens; `rows[i]` is the trunk's hidden row just before `tokens[i]`."""
        self._waiting += tokens
        self._waiting_rows += list(rows)
        self.carry = rows[-1]

    def draft(self, depth: int) -> list[int]:
        """Give `depth` tokens likely to follow the last accepted one."""
        last = len(self._waiting) - 1
        self._run(self._waiting, np.stack(self._waiting_rows), "last")
        self._waiting, self._waiting_rows = [], []
        drafted = [self.context.best(last)]
        for step in range(1, depth):
            # Deeper drafts feed the layer its own hidden row; the entries are dropped below.
            row = self.context.hidden_row(last)
            self._batch.fill([drafted[-1]], self.length + step - 1, row[None])
            self.context.decode(self._batch)
            last = 0
            drafted.append(self.context.best(last))
        if depth > 1:
            self.context.trim(self.length)
        return drafted

    def trim(self, length: int) -> None:
        """Forget positions from `length` on, and accepted tokens that were never run."""
        self._waiting, self._waiting_rows = [], []
        self.length = max(length, 1) if self.context.trim(max(length, 1)) else 1

    def close(self) -> None:
        """Free the context."""
        self.context.close()

    def _run(self, tokens: list[int], rows: Floats, outputs: str) -> None:
        self._batch.fill(tokens, self.length, rows, outputs)
        self.context.decode(self._batch)
        self.length += len(tokens)


class DraftCounter:
    """Counts what was drafted and accepted, by position."""

    def __init__(self) -> None:
        self.steps = 0
        self.tokens = 0
        self.drafted: list[int] = []
        self.accepted: list[int] = []

    def count(self, drafted: int, accepted: int) -> None:
        """Take one verification step: how many tokens were drafted, how many of them accepted."""
        self.steps += 1
        self.tokens += accepted + 1
        while len(self.drafted) < drafted:
            self.drafted.append(0)
            self.accepted.append(0)
        for position in range(drafted):
            self.drafted[position] += 1
            self.accepted[position] += position < accepted

    def stats(self) -> DraftStats | None:
        """Give the statistics, or None when nothing was drafted."""
        if not self.steps:
            return None
        pairs = zip(self.accepted, self.drafted, strict=True)
        return DraftStats(
            steps=self.steps,
            drafted=sum(self.drafted),
            accepted=sum(self.accepted),
            accepted_by_position=[round(a / d, 4) for a, d in pairs],
            mean_depth=round(sum(self.drafted) / self.steps, 3),
            tokens_per_step=round(self.tokens / self.steps, 3),
        )
