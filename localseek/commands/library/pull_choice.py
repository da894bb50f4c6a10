"""From what the user asked for and what a repository holds to a plan of files.

Takes a request and a `Repository`, gives a `Plan`; what cannot be decided is an error that says
what to write. The machine is asked only where it matters whether a model fits.
"""

import contextlib
import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localseek.commands.library import devices
from localseek.errors import EngineError, LocalseekError, UsageError
from localseek.gguf.info import GGUFInfo
from localseek.store.pulling import choosing, fitting
from localseek.store.pulling.choosing import Model
from localseek.store.pulling.downloading import first_bytes
from localseek.store.pulling.heads import remote_info
from localseek.store.pulling.plan import Plan
from localseek.store.pulling.remote import (
    OpenStream,
    RemoteFile,
    Repository,
    brief,
    check_name,
)
from localseek.system import hardware
from localseek.system.machine import Machine
from localseek.system.sizes import rough_size
from localseek.terminal.columns import folded, table
from localseek.terminal.messages import Status, note, one_line


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for."""

    repository: str
    revision: str
    type: str = ""
    pattern: str = ""
    fit: bool = False
    checkpoint: bool = False  # only a checkpoint will do: it is to be converted


@dataclass(frozen=True, slots=True)
class Pull:
    """A request with its plan, and the folder that the files go to."""

    request: Request
    key: str
    folder: Path
    plan: Plan


class Chooser:
    """Chooses among the files of one repository."""

    def __init__(self, request: Request, found: Repository, open_stream: OpenStream) -> None:
        self.request, self.found, self._open_stream = request, found, open_stream
        self.listed = False  # the models were shown already

    def plan(self) -> Plan:
        """Give the files to download; raises LocalseekError where that is not clear."""
        request, files = self.request, self.found.files
        models = choosing.group_models(files)
        of_gguf = bool(request.type or request.fit) and not request.checkpoint
        if request.pattern and any(self._matches(file) for model in models for file in model.files):
            of_gguf = True
        small, shards = ((), ()) if of_gguf else self._checkpoint()
        if shards:
            chosen = tuple(f for f in (*small, *shards) if not request.pattern or self._matches(f))
            if chosen:
                return self._planned(chosen, checkpoint=True)
        elif models and not request.checkpoint:
            picked = self._models(models)
            several = tuple(file for model in picked for file in model.files)
            name = ", ".join(model.type or model.name for model in picked)
            return self._planned(several, checkpoint=False, model=name)
        raise self._nothing()

    def judged(self) -> tuple[list[fitting.Candidate], str] | None:
        """Judge the models that are left to choose from; None for one or none."""
        request = self.request
        models = choosing.group_models(self.found.files)
        if request.pattern or request.fit or request.checkpoint:
            return None
        if not request.type and self._checkpoint()[1]:
            return None
        models = choosing.choose(request.repository, models, request.type)
        if len(models) < 2:
            return None
        with Status("looking at what fits here…"):
            return fitting.candidates(models, machine_here(), self.open_info)

    @contextlib.contextmanager
    def open_info(self, model: Model) -> Iterator[GGUFInfo]:
        """Read what a model says of itself, without the rest of it."""
        with remote_info(model, self.read) as info:
            yield info

    def read(self, file: RemoteFile, start: int, end: int) -> bytes:
        """Read some bytes of a file."""
        return first_bytes(self._open_stream, file, start, end)

    def _checkpoint(self) -> tuple[tuple[RemoteFile, ...], tuple[RemoteFile, ...]]:
        def read(file: RemoteFile) -> bytes:
            return self.read(file, 0, file.size_bytes)

        return choosing.checkpoint_files(self.found.name, self.found.files, read)

    def _models(self, models: Sequence[Model]) -> list[Model]:
        request = self.request
        chosen = choosing.choose(request.repository, models, request.type, request.pattern)
        if request.fit:
            chosen = [self._fitting(chosen)]
        elif not request.pattern:
            chosen = [choosing.only_one(request.repository, chosen, self.listed)]
        return [choosing.whole(request.repository, model) for model in chosen]

    def _fitting(self, models: Sequence[Model]) -> Model:
        with Status("looking for the best that fits…"):
            best = fitting.best_fitting(models, machine_here(), self.open_info)
        if best is None:
            least = min(models, key=lambda model: model.size_bytes)
            how = f"--type {least.type}" if least.type else f"--file '{least.name[:100]}*'"
            name = least.type or brief(least.name)
            raise LocalseekError(
                f"None of the {len(models)} models of {request_name(self.request)} fits in memory; "
                f"the smallest, {name}, has {rough_size(least.size_bytes)}.",
                f"{how} takes it all the same: what does not fit is read from the disk, slowly.",
            )
        name = best.model.type or brief(one_line(best.model.name))
        note(f"{name} is the best that fits: {best.fit.why}.")
        return best.model

    def _matches(self, file: RemoteFile) -> bool:
        return fnmatch.fnmatch(file.name, self.request.pattern)

    def _planned(self, files: tuple[RemoteFile, ...], checkpoint: bool, model: str = "") -> Plan:
        found = self.found
        for file in files:
            check_name(file.name)
        licence = found.licence + (f" ({found.licence_link})" if found.licence_link else "")
        return Plan(
            found.name, self.request.revision, found.commit, licence, checkpoint, files, model
        )

    def _nothing(self) -> LocalseekError:
        request = self.request
        names = ", ".join(sorted(brief(file.name) for file in self.found.files)[:8]) or "no files"
        what = f" and that matches {request.pattern}" if request.pattern else ""
        if request.checkpoint:
            return UsageError(
                f"{request.repository} holds no checkpoint to convert{what}.",
                "--convert is for safetensors or .bin files with a config.json; leave it out for "
                f"GGUF files. It has: {names}.",
            )
        return LocalseekError(
            f"{request.repository} holds nothing that localseek can use{what}.",
            f"It has: {names}.",
        )


def request_name(request: Request) -> str:
    """Give a request as a person would write it."""
    return f"{request.repository}:{request.type}" if request.type else request.repository


def listing(judged: Sequence[fitting.Candidate], assumed: str, width: int | None) -> list[str]:
    """Lay the models of a repository out as a table."""
    rows = [("TYPE", "FILE", "SIZE", "FITS"), *map(_row, judged)]
    why = f"FITS: in memory here, {assumed}."
    return [*table(rows, width, left=2), *folded([why], width)]


def _row(one: fitting.Candidate) -> tuple[str, str, str, str]:
    files = one.model.files
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    fits = "lacks parts" if one.model.lacking else "yes" if one.fit.fits else "no"
    name = brief(one_line(files[0].name))
    return one.model.type or "-", f"{name}{more}", rough_size(one.model.size_bytes), fits


def as_object(one: fitting.Candidate) -> dict[str, Any]:
    """Give a model of a repository as a program reads it."""
    return {
        "type": one.model.type, "size_bytes": one.model.size_bytes, "fits": one.fit.fits,
        "why": one.fit.why, "files": [file.name for file in one.model.files],
    }  # fmt: skip


def machine_here() -> Machine:
    """Let the engine say what there is here; this machine's memory alone if it cannot."""
    try:
        return devices.machine_here()
    except EngineError:
        return hardware.read_machine(())


