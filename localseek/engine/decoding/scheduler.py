"""Continuous batching: sequences that come and go in one context, and decode together.

Every step is one decode. In it are the last token of each sequence that decodes, with its drafts,
and a piece of the prompts that are still to be read. Cells of the cache are shared: a sequence
waits until its prompt and a part of its answer fit, and where cells run out the youngest goes back
into the queue, to be read again later. Knows nothing about text or messages.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from localseek.engine.decoding.cells import Cells
from localseek.engine.decoding.decoder import common_prefix
from localseek.engine.decoding.lanes import Lanes
from localseek.engine.decoding.sequence import Job, Sequence
from localseek.engine.drafting.draft_policy import SURE, DepthPolicy, Trial
from localseek.engine.drafting.shared_depth import SharedDepth, SharedStep
from localseek.engine.llama import Aborted, Batch, Context, Full, Model
from localseek.errors import EngineError, LocalseekError, UsageError
from localseek.events import Failed

PIECES = 4  # a batch's fraction that is read of prompts while others decode: they wait for it
ANSWER_ROOM = 256  # tokens of an answer for which cells are free when its sequence begins
WORTH_WAITING = 16  # tokens; a sequence waits until another has read as many that both begin with


@dataclass(slots=True)
class Turn:
    """A sequence's part of one step: drafted tokens that are verified, and the tokens it got."""

    sequence: Sequence
    drafted: list[int] = field(default_factory=list)
    chances: list[float] = field(default_factory=list)  # that the draft layer gave them
    kept: list[int] = field(default_factory=list)
    row: int = 0  # of the last token in the batch
    fresh: list[int] = field(default_factory=list)
    failed: LocalseekError | None = None  # its sampler could not go on


class Scheduler:
    """The sequences of one context; `step` runs one decode for all that there is room for."""

    def __init__(
        self, model: Model, target: Context, sequences: int, lanes: Lanes | None,
        depth: SharedDepth, cancelled: Callable[[int], bool],
    ) -> None:  # fmt: skip
        self.model, self.target, self.lanes, self.depth = model, target, lanes, depth
        self._cancelled = cancelled
        self._cells = Cells(target, sequences)
        self._batch = Batch(target.n_batch)
        self._waiting: list[Sequence] = []
        self._live: list[Sequence] = []  # the oldest first
        self._changed = False  # since the first that waits was found to have no room
        self._drafting = False
        self.numbers: frozenset[int] = frozenset()  # of all jobs, for other threads
        if lanes:
            target.give_hidden(False)

    @property
    def busy(self) -> bool:
        """Tell whether there is anything to do."""
        return bool(self._live or self._waiting)

    def add(self, job: Job) -> None:
        """Take a job; its prompt is not empty and shorter than the context."""
        self._waiting.append(Sequence(job, self.model, self.target.n_ctx))
        self._note()

    def step(self) -> None:
        """Run one decode. A fault of llama.cpp fails all jobs and empties the caches."""
        try:
            self._drop_cancelled()
            self._admit()
            if self._live:
                self._step()
        except Aborted:
            self._recover()
        except Full:
            self._make_room()
        except EngineError as error:
            for sequence in [*self._live, *self._waiting]:
                sequence.close()
                sequence.job.send(Failed(error.message, error.hint))
            self._live, self._waiting = [], []
            for slot in range(len(self._cells.held)):
                self._clear(slot)
            self._note()

    # Sequences come and go.

    def _note(self) -> None:
        self._changed = True
        self.numbers = frozenset(one.job.number for one in [*self._live, *self._waiting])

    def _drop_cancelled(self) -> None:
        for sequence in [*self._live, *self._waiting]:
            if self._cancelled(sequence.job.number):
                self._end(sequence)
                sequence.finish("cancelled")

    def _end(self, sequence: Sequence) -> None:
        """Take a sequence out; what it has read stays until its cells are needed."""
        among = self._live if sequence in self._live else self._waiting
        among.remove(sequence)
        self._note()

    def _idle(self) -> list[int]:
        live = {sequence.slot for sequence in self._live}
        return [slot for slot in range(len(self._cells.held)) if slot not in live]

    def _admit(self) -> None:
        """Let sequences begin in the order in which they came, as long as there is room."""
        while self._waiting and self._changed:
            sequence = self._waiting[0]
            idle = self._idle()
            source, shared = self._cells.beginning(sequence.tokens)
            if not idle or self._comes_soon(sequence, shared):
                return
            if self._live and not self._fits(sequence, shared):
                self._changed = False
                return
            self._begin(self._waiting.pop(0), source, min(shared, len(sequence.tokens) - 1), idle)

    def _comes_soon(self, sequence: Sequence, shared: int) -> bool:
        """Tell whether another sequence is reading more of the same beginning."""
        for other in self._live:
            most = common_prefix(other.tokens, sequence.tokens)
            if len(self._cells.held[other.slot]) < most and most - shared >= WORTH_WAITING:
                return True
        return False

    def _fits(self, sequence: Sequence, shared: int) -> bool:
        """Tell whether a sequence and the next part of all answers fit into the cells."""
        taken = self._cells.taken(one.slot for one in self._live)
        wanted = sum(min(ANSWER_ROOM, one.left) for one in [*self._live, sequence])
        unread = sum(len(one.tokens) - len(self._cells.held[one.slot]) for one in self._live)
        own = len(sequence.tokens) - shared
        return taken + unread + own + wanted <= self.target.n_ctx

    def _begin(self, sequence: Sequence, source: int, keep: int, idle: list[int]) -> None:
        """Give a sequence a place, with what of its beginning is in the cache."""
        cells = self._cells
        slot = source
        if source not in idle or 2 * keep < len(cells.held[source]):
            slot = cells.oldest(idle)
        if self._wants_drafts():
            assert self.lanes is not None  # it wants none without
            keep = self.lanes.begin(slot, source, keep)
        elif self.lanes:
            self.lanes.close_lane(slot)
        if slot == source:
            keep = cells.cut(slot, keep)
        else:
            cells.cut(slot, 0)
            cells.share(source, slot, keep)
        cells.touch(slot)
        self._live.append(sequence)
        sequence.begin(slot, keep)
        self._note()

    def _wants_drafts(self) -> bool:
        """Ask whether a sequence that begins is to be drafted for."""
        if self.lanes is None or not self.depth.of(len(self._live) + 1).start():
            return False
        self._start_drafting()
        return True

    def _start_drafting(self) -> None:
        assert self.lanes is not None  # it is to draft
        if not self._drafting:
            self.target.give_hidden(True)
            self._drafting = True

    def _stop_drafting(self) -> None:
        """Let the draft layer sleep: hidden rows are not even computed for it."""
        assert self.lanes is not None  # it drafted
        for slot in range(len(self._cells.held)):
            self.lanes.close_lane(slot)
        self.target.give_hidden(False)
        self._drafting = False

    # Trouble.

    def _clear(self, slot: int) -> None:
        self._cells.cut(slot, 0)
        if self.lanes:
            self.lanes.close_lane(slot)

    def _recover(self) -> None:
        """Drop what a decode that was given up has left; who was not cancelled goes on."""
        if self.target.abort:
            self.target.abort.clear()
        for slot, held in enumerate(self._cells.held):
            self._cells.cut(slot, len(held))
        if self.lanes:
            self.lanes.recover()

    def _make_room(self) -> None:
        """Free cells: of sequences that are over, else of the youngest that is not."""
        idle = [slot for slot in self._idle() if self._cells.held[slot]]
        if idle:
            self._clear(self._cells.oldest(idle))
            return
        youngest = self._live[-1]
        self._end(youngest)
        if not self._live:
            youngest.finish("length")
            return
        self._clear(youngest.slot)
        self._waiting.insert(0, youngest)
        self._note()
        self._changed = False  # until another one is over

    # One decode.

    def _step(self) -> None:
        held = self._cells.held
        turns = [Turn(one) for one in self._live if len(one.tokens) - len(held[one.slot]) == 1]
        reading = [one for one in self._live if len(one.tokens) - len(held[one.slot]) > 1]
        learnt = self._draft(turns) if turns and self._drafting else SharedStep()
        began = time.perf_counter()
        self._batch.clear()
        for turn in turns:  # their rows come first: then row and output have the same number
            one, rows = turn.sequence, [turn.sequence.tokens[-1], *turn.kept]
            turn.row = self._batch.count
            self._batch.add(rows, len(held[one.slot]), one.slot, outputs=len(rows))
        pieces = self._add_pieces(reading, bool(turns))
        self.target.decode(self._batch)
        for turn in turns:
            try:
                self._sample(turn)
            except LocalseekError as error:  # no token fits its grammar: the others go on
                turn.failed = error
        for one, row, piece in pieces:
            self._read(one.slot, row, piece)
        learnt.verify_s = time.perf_counter() - began
        if turns and self._drafting:
            self._learn(learnt, turns, timed=not pieces)
        elif turns and self.lanes and not pieces:
            self._sleep(learnt.verify_s, len(turns))
        for one, _, _ in pieces:
            one.progress(len(held[one.slot]))
        for turn in turns:
            if turn.failed is None:
                self._take(turn)
            else:
                self._fail(turn.sequence, turn.failed)

    def _add_pieces(
        self, reading: list[Sequence], shared: bool
    ) -> list[tuple[Sequence, int, list[int]]]:  # fmt: skip
        """Add pieces of prompts to the batch, all but each one's last token.

        That one is decoded in the next step, with the others': its logits choose the first token.
        """
        room = self.target.n_batch - self._batch.count
        if shared:
            room = min(room, self.target.n_batch // PIECES)
        pieces = []
        for one in reading:
            first = len(self._cells.held[one.slot])
            piece = one.tokens[first : min(first + room, len(one.tokens) - 1)]
            if piece:
                pieces.append((one, self._batch.count, piece))
                self._batch.add(piece, first, one.slot)
                room -= len(piece)
        return pieces

    def _read(self, slot: int, row: int, tokens: list[int]) -> None:
        """Note tokens that were decoded from a row of the batch on."""
        first = len(self._cells.held[slot])
        self._cells.read(slot, tokens)
        if self.lanes and self.lanes.on(slot):
            rows = self.target.hidden(self._batch.count)[row : row + len(tokens)]
            self.lanes.read(slot, first, tokens, rows)

    def _sample(self, turn: Turn) -> None:
        """Let the sampler choose as many tokens as were drafted right, and one more."""
        one, kept, sampler = turn.sequence, turn.kept, turn.sequence.job.sampler
        if not one.generated:
            self.target.check_numbers(turn.row)
        fresh = turn.fresh = [sampler.sample(self.target, turn.row)]
        while len(fresh) <= len(kept) and fresh[-1] == kept[len(fresh) - 1]:
            if fresh[-1] in one.ends:
                break
            fresh.append(sampler.sample(self.target, turn.row + len(fresh)))
        accepted = len(fresh) - 1
        if accepted < len(kept):
            self.target.cut(one.slot, len(self._cells.held[one.slot]) + 1 + accepted)
        self._read(one.slot, turn.row, [one.tokens[-1], *kept[:accepted]])
        if self.lanes and self.lanes.on(one.slot):
            one.drafts.count(len(kept), accepted)

    def _fail(self, one: Sequence, error: LocalseekError) -> None:
        """End a sequence whose sampler could not go on; what it has read is forgotten."""
        self._end(one)
        self._clear(one.slot)
        one.close()
        wrong_use = isinstance(error, UsageError)
        one.job.send(Failed(error.message, error.hint, wrong_use=wrong_use))

    def _take(self, turn: Turn) -> None:
        """Give a sequence its tokens; it may be over then, or its reasoning be closed."""
        one = turn.sequence
        stands, reason = one.take(turn.fresh)
        if reason:
            self._end(one)
            one.finish(reason)
        elif stands < len(turn.fresh):
            length = common_prefix(self._cells.held[one.slot], one.tokens)
            self._cells.cut(one.slot, length)
            if self.lanes:
                self.lanes.cut(one.slot, length)

    # Drafts.

    def _draft(self, turns: list[Turn]) -> SharedStep:
        """Fill in the drafts of each turn, as many as the policy wants."""
        lanes, policy = self.lanes, self.depth.of(len(turns))
        assert lanes is not None  # it drafts
        able = {turn.sequence.slot: turn for turn in turns if self._can_draft(turn.sequence)}
        learnt = SharedStep(waiting=lanes.waiting(list(able)) + 1)
        if not able or not policy.begin(learnt.waiting):
            return learnt
        started = time.perf_counter()
        lasts = {
            slot: (turn.sequence.tokens[-1], len(turn.sequence.tokens) - 1)
            for slot, turn in able.items()
        }
        deep = policy.deeper([SURE])
        drafted = lanes.first(lasts, policy.weighs, deep)
        begun = time.perf_counter()
        order = list(drafted)
        while drafted:
            for slot, (token, chance) in drafted.items():
                able[slot].drafted.append(token)
                able[slot].chances.append(chance)
            deeper = {
                slot: (token, len(able[slot].drafted))
                for slot, (token, _) in drafted.items()
                if deep
                and len(able[slot].drafted) < self._room(able[slot].sequence)
                and policy.deeper(able[slot].chances)
            }
            drafted = lanes.next(deeper, policy.weighs) if deeper else {}
        lanes.end([slot for slot in order if len(able[slot].drafted) > 1])
        learnt.first_s, learnt.next_s = begun - started, time.perf_counter() - begun
        for turn in able.values():
            turn.kept = turn.drafted[: self._kept(policy, turn)]
        return learnt

    def _room(self, sequence: Sequence) -> int:
        """Give how many tokens can be drafted before the context or the answer ends."""
        return min(self.target.n_ctx - len(sequence.tokens), sequence.left - 1)

    def _can_draft(self, sequence: Sequence) -> bool:
        assert self.lanes is not None  # it drafts
        return self.lanes.on(sequence.slot) and self._room(sequence) > 0

    @staticmethod
    def _kept(policy: DepthPolicy, turn: Turn) -> int:
        return policy.keep(turn.chances) if turn.drafted else 0

    def _learn(self, step: SharedStep, turns: list[Turn], timed: bool) -> None:
        """Tell the policy what the step did, and let the layer sleep if drafts do not pay."""
        step.drafted = [len(turn.drafted) for turn in turns]
        step.verified = [len(turn.kept) for turn in turns]
        step.tokens = sum(len(turn.fresh) for turn in turns)
        for turn in turns:
            compared = zip(turn.chances, turn.drafted, turn.fresh, strict=False)
            trials: list[Trial] = [(chance, token == came) for chance, token, came in compared]
            if trials:
                step.trials.append(trials)
        self.depth.learn(step, timed)
        if self.depth.of(len(turns)).asleep:
            self._stop_drafting()

    def _sleep(self, seconds: float, count: int) -> None:
        """Tell the policy what a step without drafts took, and wake the layer if it says so."""
        policy = self.depth.of(count)
        if policy.asleep:
            policy.slept(seconds / count)
        if policy.asleep or self.lanes is None:
            return
        self._start_drafting()
        for one in self._live:
            self.lanes.begin(one.slot, one.slot, len(self._cells.held[one.slot]))
