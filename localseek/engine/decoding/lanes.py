"""Drafting for several sequences with one decode of the draft layer for all of them.

The layer is draft.py's, and so is the rule: its entry at position p >= 1 is made from the token at
p and the trunk's hidden row at p - 1. Takes what the trunk has read of each sequence with its
hidden rows, gives drafts after each sequence's last token. Knows nothing about sampling or what
becomes of its drafts.
"""

from collections.abc import Sequence

import numpy as np

from localseek.engine.drafting.draft import WORTH_READING
from localseek.engine.llama import Batch, Context, Floats, Full, Model
from localseek.options import MAX_DEPTH

NOWHERE = -2  # no position: a row before the first token would be at -1


class Lane:
    """One sequence's entries in the draft cache, and the tokens that wait to be entered.

    `length` is the next position without an entry; the tokens that wait follow it. `carry` is the
    trunk's hidden row at position `carried`. A lane that is not `on` takes no part.
    """

    def __init__(self, room: int, n_embd: int) -> None:
        self.on = False
        self.length, self.waiting, self.carried = 1, 0, NOWHERE
        self.carry: Floats = np.zeros(n_embd, dtype=np.float32)
        self.tokens = np.zeros(room, dtype=np.int32)
        self.rows: Floats = np.zeros((room, n_embd), dtype=np.float32)

    @property
    def end(self) -> int:
        """Give the position after the tokens that wait."""
        return self.length + self.waiting

    def row_before(self, position: int) -> Floats | None:
        """Give the trunk's hidden row before a position that is not entered, if it is known."""
        if self.length <= position < self.end:
            row: Floats = self.rows[position - self.length]
            return row
        return self.carry if position == self.end and self.carried == position - 1 else None


class Lanes:
    """The draft layer's context beside a target context, a lane for each sequence."""

    def __init__(self, model: Model, target: Context, threads: int, sequences: int) -> None:
        self.context = Context(
            model, target.n_ctx, threads, target.n_batch, target=target, abort=target.abort,
            sequences=sequences,
        )  # fmt: skip
        self._batch = Batch(target.n_batch, model.n_embd)
        # What waits in all lanes, and their last tokens, are drafted from in one decode.
        room = self.context.n_batch // sequences - 1
        self._lanes = [Lane(room, model.n_embd) for _ in range(sequences)]
        self._outputs: dict[int, int] = {}  # each sequence's last one of the last decode

    def on(self, sequence: int) -> bool:
        """Tell whether a sequence has a lane."""
        return self._lanes[sequence].on

    def waiting(self, sequences: Sequence[int]) -> int:
        """Give how many tokens wait in the lanes of some sequences, on the average."""
        return sum(self._lanes[one].waiting for one in sequences) // max(1, len(sequences))

    def begin(self, sequence: int, source: int, keep: int) -> int:
        """Open a lane for a sequence that begins with `keep` tokens of `source`.

        Gives the position from which the trunk must read: one before `keep` where the hidden row
        there is not known, and less where that is cheaper. `source` may be `sequence`.
        """
        lane, other = self._lanes[sequence], self._lanes[source]
        row = other.row_before(keep) if other.on else None
        entered = min(keep, other.length) if other.on else 0
        if row is None and keep - entered > WORTH_READING:
            entered = 0
        if source != sequence or not entered:
            self.context.cut(sequence, 0)
        if source != sequence and entered:
            self.context.share(source, sequence, entered)
        if source == sequence and entered and not self.context.cut(sequence, entered):
            entered, row = 0, None
        waiting = keep - entered if row is not None else 0
        if waiting and source != sequence:
            lane.tokens[:waiting] = other.tokens[:waiting]
            lane.rows[:waiting] = other.rows[:waiting]
        if row is not None:
            lane.carry[:] = row
        lane.carried = NOWHERE if row is None else keep - 1
        lane.on, lane.waiting, lane.length = True, waiting, entered or max(keep, 1)
        return keep if row is not None else lane.length - 1

    def close_lane(self, sequence: int) -> None:
        """Let a sequence take no part any more."""
        self._lanes[sequence].on = False
        self.context.cut(sequence, 0)

    def cut(self, sequence: int, length: int) -> None:
        """Follow a trunk that has forgotten all from position `length` on."""
        lane = self._lanes[sequence]
        if not lane.on or length >= lane.end:
            return
        row = lane.row_before(length)
        if row is not None:
            lane.carry[:] = row
        lane.carried = NOWHERE if row is None else length - 1
        lane.waiting = max(0, length - lane.length)
        if length < lane.length:
            lane.length = max(1, length if self.context.cut(sequence, length) else 1)

    def read(self, sequence: int, first: int, tokens: Sequence[int], rows: Floats) -> None:
        """Take tokens that the trunk has read from position `first` on, with its hidden rows."""
        lane = self._lanes[sequence]
        if not lane.on or not tokens:
            return
        skip = max(0, lane.end - first)  # tokens that have an entry, or none ever
        if skip == 0 and lane.carried != first - 1:  # no row before the first: begin after it
            self._renew(sequence, first + 1)
            skip = 1
        new = tokens[skip:]
        if new:
            before = rows[skip - 1 : -1] if skip else np.concatenate((lane.carry[None], rows[:-1]))
            enter = self._enter if len(new) > len(lane.tokens) else self._wait
            enter(sequence, new, before)
        lane.carry[:] = rows[-1]
        lane.carried = first + len(tokens) - 1

    def first(
        self, lasts: dict[int, tuple[int, int]], weigh: bool, deep: bool
    ) -> dict[int, tuple[int, float]]:
        """Draft the token after each sequence's last one, given with its position.

        `deep`: `next` may be called then. Gives token and probability (1 unless `weigh`) of those
        that can be drafted for.
        """
        drafting = {}
        for sequence, (token, position) in lasts.items():
            lane = self._lanes[sequence]
            if lane.on and lane.carried == position - 1:
                self._forget_from(sequence, position)
                drafting[sequence] = token
                if deep and lane.waiting > MAX_DEPTH:
                    self._enter(sequence, [], lane.rows[:0])
        self._batch.clear()
        self._outputs, outputs = {}, 0
        for sequence, token in drafting.items():
            lane = self._lanes[sequence]
            waiting = lane.waiting
            # All rows are outputs if hidden rows are wanted, see `Drafter`.
            more = waiting if deep else 0
            if waiting:
                self._batch.add(
                    lane.tokens[:waiting], lane.length, sequence, lane.rows[:waiting], more
                )
            self._batch.add([token], lane.end, sequence, lane.carry[None], 1)
            outputs += more + 1
            self._outputs[sequence] = outputs - 1
        if not drafting or not self._run():
            return {}
        for sequence in drafting:
            lane = self._lanes[sequence]
            lane.length, lane.waiting = lane.end + 1, 0
        return self._likeliest(weigh)

    def next(
        self, drafted: dict[int, tuple[int, int]], weigh: bool
    ) -> dict[int, tuple[int, float]]:  # fmt: skip
        """Draft one token more after each sequence's last draft, given with how many it has."""
        rows = self.context.hidden(1 + max(self._outputs.values()))
        self._batch.clear()
        for sequence, (token, count) in drafted.items():
            row = rows[self._outputs[sequence]][None]
            position = self._lanes[sequence].length + count - 1
            self._batch.add([token], position, sequence, row, 1)
        self._outputs = {sequence: index for index, sequence in enumerate(drafted)}
        return self._likeliest(weigh) if self._run() else {}

    def end(self, sequences: Sequence[int]) -> None:
        """Forget the entries of drafted tokens."""
        for sequence in sequences:
            self.context.cut(sequence, self._lanes[sequence].length)

    def recover(self) -> None:
        """Start all lanes over after a decode that was given up."""
        for sequence, lane in enumerate(self._lanes):
            self._renew(sequence, lane.end)
            lane.carried = NOWHERE

    def close(self) -> None:
        """Free the context."""
        self.context.close()

    def _likeliest(self, weigh: bool) -> dict[int, tuple[int, float]]:
        """Give the likeliest token of each sequence's last row."""
        sequences, rows = list(self._outputs), list(self._outputs.values())
        logits = self.context.logits(1 + rows[-1])[rows]
        tokens = logits.argmax(axis=1)
        if weigh:
            best = np.take_along_axis(logits, tokens[:, None], axis=1)
            chances = 1 / np.exp(logits - best).sum(axis=1)
        else:
            chances = np.ones(len(sequences))
        return dict(
            zip(sequences, zip(tokens.tolist(), chances.tolist(), strict=True), strict=True)
        )

    def _forget_from(self, sequence: int, position: int) -> None:
        """Drop an entry at `position`, made in a step that came to nothing."""
        lane = self._lanes[sequence]
        if lane.length > position:
            self.context.cut(sequence, position)
            lane.length = position

    def _renew(self, sequence: int, length: int) -> None:
        """Start a lane over at a position: its cache is a window from there on."""
        lane = self._lanes[sequence]
        self.context.cut(sequence, 0)
        lane.length, lane.waiting = length, 0

    def _wait(self, sequence: int, tokens: Sequence[int], rows: Floats) -> None:
        lane = self._lanes[sequence]
        if lane.waiting + len(tokens) > len(lane.tokens):  # the cache becomes a window
            kept = min(lane.waiting // 2, len(lane.tokens) - len(tokens))
            dropped = lane.waiting - kept
            lane.tokens[:kept] = lane.tokens[dropped : lane.waiting].copy()
            lane.rows[:kept] = lane.rows[dropped : lane.waiting].copy()
            self._renew(sequence, lane.length + dropped)
            lane.waiting = kept
        start, end = lane.waiting, lane.waiting + len(tokens)
        lane.tokens[start:end] = tokens
        lane.rows[start:end] = rows
        lane.waiting = end

    def _enter(self, sequence: int, tokens: Sequence[int], rows: Floats) -> None:
        """Make the entries of what waits and of `tokens`, which follow it."""
        lane, batch = self._lanes[sequence], self._batch
        new = np.asarray(tokens, dtype=np.int32)
        everything = np.concatenate((lane.tokens[: lane.waiting], new))
        end = lane.length + len(everything)
        rows = np.concatenate((lane.rows[: lane.waiting], rows))
        for start in range(0, len(everything), batch.capacity):
            stop = min(start + batch.capacity, len(everything))
            batch.clear()
            batch.add(everything[start:stop], lane.length, sequence, rows[start:stop])
            lane.waiting = 0
            if not self._run():
                self._renew(sequence, end)
                return
            lane.length += stop - start

    def _run(self) -> bool:
        """Decode; False when the cache has no room: all lanes start over."""
        try:
            self.context.decode(self._batch)
        except Full:
            for sequence, lane in enumerate(self._lanes):
                self._renew(sequence, lane.end)
            return False
        return True
