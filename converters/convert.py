"""The conversion as one call: a checkpoint folder, or another GGUF file → a GGUF file.

Takes paths and options, reports progress through a callback, gives what was written. All errors
that a user can mend are ConvertError. Does not print and does not parse arguments.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from converters.errors import ConvertError, OptionError
from converters.kernels.quantize import load_kernels, make_tables
from converters.planning.plan import Mtp, Plan, make_plan
from converters.planning.requantize import plan_requantized
from converters.source.checkpoint import Checkpoint
from converters.source.folders import followed
from converters.source.gguf_source import GGUFFile, is_part
from converters.source.shards import Shards
from converters.types.fitting import Fitted
from converters.types.imatrix import Imatrix, open_imatrix
from converters.types.recipe import KEEP
from converters.writing.freeing import FreedShards, refuse_unfreeable
from converters.writing.writer import WriteOptions, journal_path, source_bytes, write_file


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert; `tensor_types` are (regular expression over GGUF names, ggml type).

    The type KEEP leaves the tensors of a GGUF file as they are.
    """

    type: str = "Q8_0"  # a mixture or one of our recipes; not used with fit_bytes
    mtp: Mtp = "keep"
    tensor_types: tuple[tuple[str, str], ...] = ()
    threads: int | None = None  # None: one a processor that this process may use
    force: bool = False  # replace an existing target
    name: str | None = None  # general.name; None: the folder's name
    split_bytes: int | None = None  # split into files with so many bytes of tensors at the most
    restart: bool = False  # forget what an unfinished conversion has done
    fit_bytes: int | None = None  # choose types so that the file takes no more bytes
    add_mtp: Path | None = None  # the checkpoint with the MTP layer that a GGUF source lacks
    imatrix: Path | None = None  # an importance matrix, as llama-imatrix writes it
    free_source: bool = False  # remove each shard of the checkpoint as it is consumed


@dataclass(frozen=True)
class Progress:
    """How far a conversion is, in bytes of the checkpoint's tensors; never goes back.

    The first report comes before any work and names no tensor.
    """

    done_bytes: int
    total_bytes: int
    tensor: str
    elapsed_s: float  # of this run
    resumed_bytes: int = 0  # done by earlier runs


@dataclass(frozen=True)
class ConvertResult:
    """A finished file, or the first of its `parts`; `types` counts tensors by ggml type."""

    path: Path
    size_bytes: int
    tensors: int
    elapsed_s: float
    architecture: str
    types: dict[str, int]
    warnings: tuple[str, ...]
    fitted: Fitted | None = None  # how the types were chosen for a size
    parts: tuple[Path, ...] = ()  # the files of a split model


def convert(
    source: Path,
    target: Path,
    options: ConvertOptions | None = None,
    progress: Callable[[Progress], None] | None = None,
    notice: Callable[[str], None] | None = None,
    shards: Shards | None = None,
) -> ConvertResult:
    """Convert the checkpoint folder or GGUF file `source` to the GGUF file `target`.

    `progress` and `notice` are called on this thread, and so is `shards`, which brings the shards
    of which only headers are in the folder. Raises ConvertError with one line for the user, and
    leaves nothing under `target` then. What a stopped conversion has done is kept beside `target`,
    and the same call goes on with it (UnfinishedError, Ctrl-C, a killed process).
    """
    options = options or ConvertOptions()
    started = time.monotonic()
    writing = WriteOptions(
        thread_count(options.threads),
        options.force,
        options.restart,
        options.split_bytes,
        options.free_source,
    )
    written = _followed(target)
    _check_target(written, source, options)
    load_kernels()
    with open_any(source) as checkpoint, open_imatrix(options.imatrix) as imatrix:
        if options.free_source:
            refuse_unfreeable(checkpoint)
        plan = plan_conversion(checkpoint, options, imatrix)
        if options.free_source and isinstance(checkpoint, Checkpoint):
            shards = FreedShards(checkpoint)
        make_tables({tensor.kind for tensor in plan.tensors})
        total = source_bytes(plan, checkpoint)

        def report(done: int, resumed: int, tensor: str) -> None:
            if progress is not None:
                elapsed = time.monotonic() - started
                progress(Progress(done, total, tensor, elapsed, resumed))

        told = notice or (lambda _text: None)
        parts = write_file(plan, checkpoint, written, writing, report, told, shards)
    split = len(parts) > 1
    return ConvertResult(
        path=parts[0].path if split else target,
        size_bytes=sum(part.size_bytes for part in parts),
        tensors=len(plan.tensors),
        elapsed_s=time.monotonic() - started,
        architecture=plan.architecture,
        types=dict(Counter(tensor.kind.name for tensor in plan.tensors)),
        warnings=plan.warnings,
        fitted=plan.fitted,
        parts=tuple(part.path for part in parts) if split else (),
    )


def open_any(source: Path) -> Checkpoint | GGUFFile:
    """Open a checkpoint folder or a GGUF file; raise ConvertError if it is neither."""
    source = followed(source)
    if source.is_dir():
        return Checkpoint(source)
    if not source.exists():
        raise ConvertError(f"{source} does not exist: give a checkpoint folder or a GGUF file")
    if source.suffix == ".json":
        raise ConvertError(f"{source} has no weights: give its folder, or add --dry-run")
    if source.suffix in (".safetensors", ".bin"):
        raise ConvertError(f"{source} is a part of a checkpoint: give the folder it is in")
    return GGUFFile(source)


def plan_conversion(
    source: Checkpoint | GGUFFile, options: ConvertOptions, imatrix: Imatrix | None
) -> Plan:
    """Plan what the options ask for; raise ConvertError for options that do not go together."""
    if isinstance(source, GGUFFile):
        if options.mtp != "keep":
            raise OptionError(
                f"--mtp {options.mtp} works on checkpoints only: a GGUF file keeps its layers"
            )
        if options.fit_bytes is not None:
            raise OptionError("--fit works on checkpoints only: choose a --type for a GGUF file")
        return plan_requantized(
            source, options.type, options.tensor_types, options.name, options.add_mtp, imatrix
        )
    if options.add_mtp:
        raise OptionError("--add-mtp adds to a GGUF file: a checkpoint's MTP layer is kept anyway")
    if options.type.upper() == KEEP:
        raise OptionError("--type keep is for GGUF files: choose a type for a checkpoint")
    return make_plan(
        source,
        options.type,
        mtp=options.mtp,
        overrides=options.tensor_types,
        name=options.name,
        fit_bytes=options.fit_bytes,
        imatrix=imatrix,
    )


def thread_count(asked: int | None) -> int:
    """Return how many threads work: those asked for, or one a processor of this process."""
    if asked is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if asked < 1:
        raise OptionError(f"{asked} threads are too few: give 1 or more")
    return asked


def _followed(target: Path) -> Path:
    """Return where a link leads, so that the file is written there and the link stays."""
    if not target.is_symlink():
        return target
    try:
        return target.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise ConvertError(f"{target} is a link that leads nowhere: remove it first") from error


def _check_target(target: Path, source: Path, options: ConvertOptions) -> None:
    if not target.parent.is_dir():
        raise ConvertError(f"{target.parent} is not a folder: create it first")
    if target.is_dir():
        raise ConvertError(f"{target} is a folder: give the name of a file")
    part = target.with_name(f"{target.stem}-00001-of-00001.gguf")
    if options.split_bytes is not None and is_part(source, part, any_count=True):
        raise ConvertError(f"the parts of {target} would replace those of {source}: rename it")
    if not target.exists():
        return
    folder = source if source.is_dir() else source.parent
    files = [file for file in folder.iterdir() if file.exists() and target.samefile(file)]
    if any(source.is_dir() or is_part(file, source) for file in files):
        raise ConvertError(f"{target} is a file of the source: choose another name")
    if options.force or options.split_bytes is not None:
        return  # a split model has other names
    if not journal_path(target).exists():  # with one, it may only need tidying up
        raise ConvertError(f"{target} exists already: choose another name or --force")
