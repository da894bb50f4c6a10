"""Drafting with the model's own multi-token prediction (MTP) layer.

Takes accepted tokens with the trunk's hidden rows, gives likely next tokens. The layer has its
own cache: its entry at position p >= 1 is made from the token at p and the trunk's hidden row at
p - 1 (after the final norm; DeepSeek-V3 technical report, section 2.2). Position 0 has no entry,
as in training. Knows nothing about sampling or what becomes of its drafts.
"""

from collections.abc import Sequence

import numpy as np

from localseek.engine.drafting.draft_policy import HINDSIGHT, Trial
from localseek.engine.llama import Batch, Context, Floats, Model
from localseek.options import MAX_DEPTH

WORTH_READING = 64  # entries that lack; for more, the layer starts over where the prompt goes on


class Drafter:
    """The MTP context beside a target context.

    Tokens wait, with the hidden row before each, until a draft is wanted: a decoder that does not
    draft pays for no more than copying rows. `length` is the next position without an entry in
    the cache, never under 1; the tokens that wait follow it. `carry` is the trunk's hidden row at
    the last position that the trunk has read. More waiting tokens than the room for them make
    the layer start over with the last ones: its cache is then a window.

    `alike` lets the decodes of drafts of several tokens have one row each, and so one graph. On a
    GPU a graph that is not as the one before takes longer than a row: on an H200 first drafts after
    2.4 rows took 0.41 instead of 0.73 ms, second ones 0.19 instead of 0.61.
    """

    def __init__(self, model: Model, target: Context, threads: int, alike: bool = False) -> None:
        self.context = Context(
            model, target.n_ctx, threads, target.n_batch, target=target, abort=target.abort
        )
        self._batch = Batch(target.n_batch, model.n_embd)
        self.length = 1
        self.carry: Floats = np.zeros(model.n_embd, dtype=np.float32)
        self.waiting = 0
        self._carries = False  # `carry` is the row before the first token that is not here
        self._drafted, self._last_output, self._alike = 0, 0, alike
        self._room: Floats = np.empty(model.n_vocab, dtype=np.float32)
        # What waits is kept where llama.cpp will read it.
        self._tokens, self._rows = self._batch.tokens, self._batch.rows

    def warm_up(self) -> None:
        """Run a few rows and forget them.

        The first of several rows take ten trips more to a worker and back, once (llama.cpp asks
        for the sizes of tensors there).
        """
        rows = MAX_DEPTH + 1
        self._tokens[:rows] = 0
        self._rows[:rows] = 0.0
        self._batch.place(rows, self.length)
        self.context.decode(self._batch)
        self.context.likeliest(0)  # waits for it
        self.context.trim(0)

    def observe(self, tokens: Sequence[int], rows: Floats) -> None:
        """Take tokens that the trunk has read, with its hidden rows [len(tokens), n_embd].

        The row before the first of them must be in `carry`.
        """
        if not tokens:
            return
        self.settle()
        self._tokens[: len(tokens)] = tokens
        self._rows[0], self._rows[1 : len(tokens)] = self.carry, rows[:-1]
        self._run(len(tokens), 0)
        self.carry[:] = rows[-1]
        self._carries = True

    def accept(self, tokens: Sequence[int], rows: Floats) -> None:
        """Take newly chosen tokens; `rows[i]` is the trunk's hidden row just before `tokens[i]`."""
        count = len(tokens)
        if self.waiting + count > self._batch.capacity:
            self._make_room()
        end = self.waiting + count
        self._batch.note(tokens, self.waiting)
        self._rows[self.waiting : end] = rows
        self.carry[:] = rows[-1]
        self.waiting, self._carries = end, False

    def settle(self) -> None:
        """Make the entries of all tokens that wait."""
        self._enter(self.waiting)

    def settle_before(self, position: int) -> Floats | None:
        """Make the entries before `position`; give the trunk's row before it if it is known."""
        if self._carries or not self.length <= position < self.length + self.waiting:
            self.settle()
            return self.carry if self._carries and position == self.length else None
        self._enter(position - self.length)
        row: Floats = self._rows[0]
        return row

    def first(self, weigh: bool, deep: bool) -> tuple[int, float, list[Trial]]:
        """Draft the token that follows the last accepted one; `deep`: `next` may be called then.

        Gives it, its probability (1 unless `weigh`), and in hindsight, if many tokens waited,
        what would have been drafted before the last of them.
        """
        looks_back = weigh and self.waiting > HINDSIGHT
        outputs = HINDSIGHT + 1 if looks_back else 1
        if deep:
            outputs = self._lead_up(outputs)
        count = self.waiting
        self._run(count, outputs)
        self.waiting = 0
        self._drafted, self._last_output = 1, outputs - 1
        if not weigh:
            return self.context.likeliest(outputs - 1), 1.0, []
        logits = self.context.logits(outputs)
        hindsight: list[Trial] = []
        if looks_back:
            came = self._tokens[count - outputs + 1 : count]
            for row, known in zip(logits[:-1], came, strict=True):
                token, probability = self._weighed(row)
                hindsight.append((probability, token == known))
        return *self._weighed(logits[-1]), hindsight

    def next(self, token: int, weigh: bool) -> tuple[int, float]:
        """Draft the token that follows `token`, the last one drafted."""
        # Deeper drafts feed the layer its own hidden row; the entries are dropped by `end`.
        self._tokens[0] = token
        self._rows[0] = self.context.hidden(self._last_output + 1)[self._last_output]
        self._batch.place(1, self.length + self._drafted - 1)
        self.context.decode(self._batch)
        self._drafted += 1
        self._last_output = 0
        if not weigh:
            return self.context.likeliest(0), 1.0
        return self._weighed(self.context.logits(1)[0])

    def end(self) -> None:
        """Forget the entries of drafted tokens."""
        if self._drafted > 1:
            self.context.trim(self.length)
        self._drafted = 0

    def trim(self, position: int) -> bool:
        """Forget all from `position` on; tell whether `carry` is now the row before it.

        If not, the trunk must read again from the position before `length`.
        """
        end = self.length + self.waiting
        if position == end and self._carries:
            return True
        if self.length <= position < end:
            self.waiting = position - self.length
            self.carry[:] = self._rows[self.waiting]
            self._carries = True
            return True
        self.waiting, self._carries = 0, False
        worth = WORTH_READING if self.length > 1 else 0  # an empty cache has nothing to lose
        if position - self.length > worth:
            self.context.trim(0)
            self.length = position
            return False
        self.length = max(min(position, self.length), 1)
        if not self.context.trim(self.length):
            self.length = max(position, 1)  # empty now: the layer starts over there
        return False

    def begin_at(self, position: int) -> None:
        """Start the cache over: the next token that is accepted has this position."""
        self.context.trim(0)
        self.length, self.waiting, self._carries = max(position, 1), 0, False

    def restore(self, length: int, row: Floats | None) -> None:
        """Take over a cache that was put back with entries before `length`.

        `row` is the trunk's hidden row before that position, if it is known.
        """
        self.length, self.waiting, self._carries = length, 0, row is not None
        if row is not None:
            self.carry[:] = row

    def recover(self) -> None:
        """Forget what a decode that was given up has left in the cache."""
        self._drafted = 0
        self.context.trim(self.length)

    def close(self) -> None:
        """Free the context."""
        self.context.close()

    def _make_room(self) -> None:
        """Start the cache over with the later half of what waits."""
        kept = self.waiting // 2
        self._tokens[:kept] = self._tokens[self.waiting - kept : self.waiting]
        self._rows[:kept] = self._rows[self.waiting - kept : self.waiting]
        self.context.trim(0)
        self.length += self.waiting - kept
        self.waiting = kept

    def _lead_up(self, outputs: int) -> int:
        """Make entries until all that wait can be outputs of one decode; give how many that are.

        Only there is it known whose hidden row llama.cpp gives: of a masked context (`Context`)
        those of the first rows in some families (deepseek2, glm4moe, qwen35), of the outputs in
        others (deepseek4, step35).
        """
        outputs = max(outputs, min(self.waiting, MAX_DEPTH + 1))
        self._enter(self.waiting - outputs)
        if not self._alike or outputs > MAX_DEPTH + 1:
            return outputs
        while self.waiting > 1:
            self._enter(1, 1)
        return 1

    def _enter(self, count: int, outputs: int = 0) -> None:
        """Make the entries of the first tokens that wait."""
        if not count:
            return
        end = self.waiting
        self._run(count, outputs)
        self.waiting = end - count
        self._tokens[: self.waiting] = self._tokens[count:end].copy()
        self._rows[: self.waiting] = self._rows[count:end].copy()

    def _run(self, count: int, outputs: int) -> None:
        """Take in the first rows of the batch; the last `outputs` give logits."""
        self._batch.place(count, self.length, outputs)
        self.context.decode(self._batch)
        self.length += count

    def _weighed(self, logits: Floats) -> tuple[int, float]:
        """Give the likeliest token and its probability."""
        token, room = int(logits.argmax()), self._room
        np.subtract(logits, logits[token], out=room)
        np.exp(room, out=room)
        return token, 1 / float(room.sum())
