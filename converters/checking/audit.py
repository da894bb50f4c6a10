"""A GGUF file checked value by value: alone, or against the checkpoint or GGUF file it came from.

Takes paths; gives what was found of every tensor. Alone: heads, bounds, finite values and scales,
layers that are missing, stretches of nothing but zero bytes. Against a source: the source is read
as a conversion reads it, tile by tile (permuted, split, merged as its family says), and compared
with what the file's own blocks decode to.
Does not print; progress goes through a callback.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable, Container, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from gguf import GGUFValueType

from converters.checking.tile_errors import BLOCK, TileError, limits_of, measure_table, measure_tile
from converters.convert import ConvertOptions, Progress, open_any, plan_conversion, thread_count
from converters.errors import ConvertError
from converters.kernels.dequantize import dequantize_rows
from converters.kernels.dtypes import PLAIN_DTYPES, Bytes, decode_rows
from converters.kernels.quantize import is_valid
from converters.kernels.workers import work_off
from converters.planning.plan import Mtp, Plan, PlannedTensor
from converters.planning.requantize import kind_of
from converters.source.checkpoint import Checkpoint
from converters.source.gguf_source import GGUFFile
from converters.source.source import Source, StoredTensor
from converters.source.stored import TABLE_DTYPES
from converters.types.mixtures import Shape
from converters.types.recipe import KEEP
from converters.writing.schedule import shards_of
from converters.writing.tiles import TILE_ELEMENTS, Tile, TileReader, plan_runs, whole_numbers

_ARRAY = GGUFValueType.ARRAY


@dataclass(frozen=True)
class TensorAudit:
    """What was found of one tensor; the errors are None where it was not compared."""

    name: str
    type: str
    shape: tuple[int, ...]  # outermost first
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    rmse: float | None = None  # root of Σ(file − source)² / Σ source²
    worst_block: float | None = None  # the same of the worst 256 values
    worst_at: tuple[int, ...] | None = None  # where these begin, outermost first
    largest_error: float | None = None


@dataclass(frozen=True)
class Audit:
    """A file's audit, worst tensors first; `problems` and `notes` are of the file as a whole."""

    path: Path
    against: Path | None
    architecture: str
    tensors: tuple[TensorAudit, ...]
    problems: tuple[str, ...]
    elapsed_s: float
    notes: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Say whether nothing is wrong."""
        return not self.problems and not any(one.problems for one in self.tensors)


def audit(
    path: Path,
    against: Path | None = None,
    threads: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Audit:
    """Check the GGUF file `path`; raise ConvertError if it, or the source, cannot be read."""
    started, crew = time.monotonic(), thread_count(threads)
    notes: list[str] = []
    with GGUFFile(path) as model:
        problems = _structure(model)
        if against is None:
            tensors = _run(model, model, list(_own_jobs(model, ())), crew, progress)
        else:
            with open_any(against) as source:
                plan, missing = _expected(model, source)
                problems += missing
                jobs, notes = _jobs_against(model, plan, source)
                jobs += _own_jobs(model, {job.stored.name for job in jobs})
                tensors = _run(model, source, jobs, crew, progress)
        model.check_unchanged()
        architecture = model.architecture
    order = sorted(tensors, key=lambda one: (not one.problems, -(one.rmse or 0.0), one.name))
    elapsed = time.monotonic() - started
    return Audit(path, against, architecture, tuple(order), tuple(problems), elapsed, tuple(notes))


@dataclass(frozen=True)
class _Job:
    """Values of one tensor that lie together, and the tile of the source to compare them with."""

    stored: StoredTensor
    start: int  # bytes from the start of the tensor
    values: int
    tile: Tile | None = None

    @property
    def size_bytes(self) -> int:
        return self.stored.size_bytes * self.values // math.prod(self.stored.shape)


@dataclass(frozen=True)
class _Finding:
    valid: bool
    zero: bool
    error: TileError | None = None


def _jobs_against(model: GGUFFile, plan: Plan, source: Source) -> tuple[list[_Job], list[str]]:
    """Return the jobs of a comparison, and what is to be said of shards that are away."""
    runs, away = list(plan_runs(plan, source)), set(source.away)
    lost = {number for number, run in enumerate(runs) if away and shards_of(run, source) & away}
    touched = {runs[number].tensor.name for number in lost}
    jobs: list[_Job] = []
    for number, run in enumerate(runs):
        name = run.tensor.name
        if run.stride and name in touched:
            continue  # parts of rows cannot be read alone
        for _, tile in run.tiles():
            known = None if number in lost else tile
            jobs.append(_Job(model.tensors[name], tile.offset, tile.elements, known))
    if not touched:
        return jobs, []
    in_part = touched & {job.stored.name for job in jobs if job.tile is not None}
    total = len(source.sizes)
    some = "all shards" if len(away) == total else f"{len(away)} of {total} shards"
    first = source.away[0].name
    left = [
        f"{count} tensors were {how}"
        for count, how in ((len(touched - in_part), "not compared"), (len(in_part), "in part"))
        if count
    ]
    return jobs, [f"{some} are missing, only headers are there ({first} first): " + ", ".join(left)]


def _own_jobs(model: GGUFFile, without: Container[str]) -> Iterator[_Job]:
    """Cut the file's own tensors into runs of rows."""
    for stored in model.tensors.values():
        if stored.name in without:
            continue
        cols = stored.shape[-1]
        rows, step = math.prod(stored.shape[:-1]), max(1, TILE_ELEMENTS // cols)
        for row in range(0, rows, step):
            count = min(step, rows - row)
            yield _Job(stored, row * stored.row_bytes, count * cols)


def _structure(model: GGUFFile) -> list[str]:
    """Return what the head alone shows to be wrong: layers and tokens that do not add up."""
    problems = []
    blocks, layers = model.get(f"{model.architecture}.block_count"), _layers(model)
    if isinstance(blocks, int) and layers and not _is_draft_alone(model):
        lost = [layer for layer in range(min(blocks, max(layers) + 1)) if layer not in layers]
        if lost or max(layers) + 1 != blocks:
            found = f"{len(layers)} of {blocks} layers have tensors"
            problems.append(f"{found}, layer {lost[0]} has none" if lost else found)
    tokens = model.metadata.get("tokenizer.ggml.tokens")
    table = model.tensors.get("token_embd.weight")
    if tokens is not None and table is not None:
        count = struct.unpack_from("<Q", tokens.data, 4)[0] if tokens.kind == _ARRAY else 0
        if count != table.shape[0]:
            problems.append(f"{count:,} tokens, but token_embd.weight has {table.shape[0]:,} rows")
    return problems


def _layers(model: GGUFFile) -> set[int]:
    return {Shape(one.name, one.shape).layer for one in model.tensors.values()} - {-1}


def _is_draft_alone(model: GGUFFile) -> bool:
    """Say whether the file is what --mtp only writes: the last layer, which drafts."""
    blocks = model.get(f"{model.architecture}.block_count")
    drafts = model.get(f"{model.architecture}.nextn_predict_layers")
    return drafts == 1 and isinstance(blocks, int) and _layers(model) == {blocks - 1}


def _expected(model: GGUFFile, source: Checkpoint | GGUFFile) -> tuple[Plan, list[str]]:
    """Plan the file as the source describes it, each tensor at the start of its own data.

    Tensors that the file lacks or has in another shape are left out and told as problems.
    """
    if isinstance(source, GGUFFile):
        options = ConvertOptions(type=KEEP)
    else:
        draft = model.get(f"{model.architecture}.nextn_predict_layers")
        mtp: Mtp = "only" if _is_draft_alone(model) else "keep" if draft else "drop"
        options = ConvertOptions(type="F32", mtp=mtp)
    plan = plan_conversion(source, options, None)
    if plan.architecture != model.architecture:
        raise ConvertError(
            f"{model.path} is a {model.architecture} model, the source a {plan.architecture} one"
        )
    problems: list[str] = []
    kept: list[PlannedTensor] = []
    for tensor in plan.tensors:
        stored = model.tensors.get(tensor.name)
        if stored is None:
            problems.append(f"{tensor.name} is missing")
        elif stored.shape != tensor.shape:
            problems.append(
                f"{tensor.name} has the shape {list(stored.shape)}, not {list(tensor.shape)}"
            )
        else:
            kept.append(replace(tensor, kind=kind_of(stored), offset=0))
    return replace(plan, tensors=tuple(kept)), problems


def _run(
    model: GGUFFile,
    source: Source,
    jobs: list[_Job],
    threads: int,
    progress: Callable[[Progress], None] | None,
) -> list[TensorAudit]:
    started, done = time.monotonic(), 0
    total = sum(job.size_bytes for job in jobs)
    found: dict[str, list[tuple[_Job, _Finding]]] = {}
    work = work_off(jobs, threads, lambda: _Auditor(model, source).examine)
    with closing(work) as findings:
        for job, finding in findings:
            found.setdefault(job.stored.name, []).append((job, finding))
            done += job.size_bytes
            if progress is not None:
                progress(Progress(done, total, job.stored.name, time.monotonic() - started))
    return [_summed(parts) for parts in found.values()]


class _Auditor(TileReader):
    """One thread's buffers, and the check of a job."""

    def __init__(self, model: GGUFFile, source: Source) -> None:
        super().__init__(source)
        self._model = model

    def examine(self, job: _Job) -> _Finding:
        """Read, validate and compare one job; raise ConvertError if it cannot be read."""
        data = self._part(job)
        valid, zero = is_valid(kind_of(job.stored), data), not data.any()
        if job.tile is None or not valid:
            return _Finding(valid, zero)
        raw = self.read(job.tile)
        if job.stored.dtype == "I32" and job.tile.source.dtype in TABLE_DTYPES:
            numbers = whole_numbers(job.tile, raw)
            return _Finding(valid, zero, measure_table(data.view(np.int32), numbers))
        expected = self.decode(job.tile, raw)
        rows = self._buffer("decoded", 4 * job.values).view(np.float32)
        if job.stored.dtype in PLAIN_DTYPES:
            decode_rows(job.stored.dtype, data, rows)
        else:
            dequantize_rows(job.stored.dtype, data, rows)
        return _Finding(valid, zero, measure_tile(rows, expected, job.stored.dtype))

    def _part(self, job: _Job) -> Bytes:
        """Read what a job covers; of parts side by side, the columns that are its own."""
        stride = job.tile.stride if job.tile else 0
        column = job.start % stride if stride else 0
        size = job.tile.rows * stride if job.tile and stride else job.size_bytes
        data = self._buffer("found", size)
        self._model.read_into(job.stored, job.start - column, data.data)
        if not job.tile or not stride:
            return data
        own = job.size_bytes // job.tile.rows
        return np.ascontiguousarray(data.reshape(-1, stride)[:, column : column + own]).reshape(-1)


def _place(job: _Job, value: int) -> tuple[int, ...]:
    """Return where a job's value number `value` is in its tensor, outermost first."""
    first = job.start * math.prod(job.stored.shape) // job.stored.size_bytes
    if job.tile and job.tile.stride:
        row, value = divmod(value, job.tile.piece.cols)
        first += row * job.stored.shape[-1]
    return tuple(int(one) for one in np.unravel_index(first + value, job.stored.shape))


def _summed(parts: list[tuple[_Job, _Finding]]) -> TensorAudit:
    """Add up what was found of one tensor."""
    stored = parts[0][0].stored
    problems, notes = [], []
    if not all(finding.valid for _, finding in parts):
        problems.append("values or scales that are infinite or no number")
    if len(stored.shape) > 1 and any(part.zero and job.values > BLOCK for job, part in parts):
        notes.append("stretches of nothing but zeros, as an unfinished download leaves")
    compared = [(job, part.error) for job, part in parts if part.error is not None]
    if not compared:
        return TensorAudit(stored.name, stored.dtype, stored.shape, tuple(problems), tuple(notes))
    size = sum(error.squared_source for _, error in compared)
    lost = sum(error.squared_error for _, error in compared)
    rmse = math.sqrt(lost / size) if size else (math.inf if lost else 0.0)
    job, worst = max(compared, key=lambda one: (not one[1].explained, one[1].worst_block))
    place = _place(job, worst.worst_at)
    limits, is_table = limits_of(stored.dtype), stored.dtype == "I32"
    if is_table and lost:
        problems.append(f"whole numbers from {list(place)} on are not those of the source")
    elif not worst.explained:
        problems.append(
            f"a block at {list(place)} is {worst.worst_block:.1%} off its source, {stored.dtype} "
            f"explains {limits.block:.1%}"
        )
    coarse = any(error.largest > limits.absolute for _, error in compared)
    if not is_table and rmse > limits.tensor and coarse:
        problems.append(f"{rmse:.1%} off its source, {stored.dtype} explains {limits.tensor:.1%}")
    return TensorAudit(
        stored.name,
        stored.dtype,
        stored.shape,
        tuple(problems),
        tuple(notes),
        rmse,
        worst.worst_block,
        place,
        max(error.largest for _, error in compared),
    )
