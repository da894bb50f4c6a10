"""`models list`: the rows of all models on this machine, for people and for machines.

Takes the catalogue and the machine, gives lines of text or plain objects. Reads no files itself.
"""

from collections.abc import Iterable
from typing import Any

from rich.cells import cell_len

from localseek.gguf.architectures import KNOWN
from localseek.placing.fits import Fit
from localseek.store.models.catalogue import Model
from localseek.store.models.facts import Facts
from localseek.store.models.programs import TITLES
from localseek.system.sizes import rough_size
from localseek.terminal.columns import GAP, shortened, table
from localseek.terminal.messages import one_line

DROPPED = ("MTP", "CONTEXT", "FAMILY", "WHERE", "TYPE")  # on a narrow terminal, in this order
NAME_ROOM = 36  # columns that a name gets before other columns go; known models' names fit
LEAST_NAME = 16  # columns below which a name says nothing; then each value gets a line
HEADINGS = ("NAME", "FAMILY", "TYPE", "SIZE", "CONTEXT", "MTP", "FITS", "WHERE")


def as_object(model: Model, facts: Facts, fit: Fit) -> dict[str, Any]:
    """Give a model for JSON."""
    return {
        "name": model.place.called if model.in_library else model.name,
        **facts_object(facts),
        "path": str(model.path),
        "short_name": model.name,
        "names": list(model.short_names),
        "family": facts.family,
        "parts": list(facts.files),
        "missing": list(facts.missing),
        "fits": fit.how,
        "why": fit.why,
        "runs": not facts.obstacle,
        "where": place_name(model),
        "called": "" if model.in_library else model.place.called,
        "also": [str(one.path) for one in model.also],
    }


def facts_object(facts: Facts) -> dict[str, Any]:
    """Give what a file says of its model for JSON."""
    return {
        "title": facts.title,
        "path": facts.files[0],
        "architecture": facts.architecture,
        "type": facts.type,
        "size_bytes": facts.size_bytes,
        "parameters": facts.parameters,
        "context_length": facts.context_length,
        "layers": facts.layers,
        "experts": facts.experts,
        "experts_used": facts.experts_used,
        "mtp": facts.mtp,
        "only_mtp": facts.only_mtp,
    }


def lines(listed: Iterable[tuple[Model, Facts, Fit]], width: int | None) -> list[str]:
    """Lay the models out in columns; where they are is told if any is outside of the library.

    Where the terminal is too narrow, columns go, the least important first, and names are shortened
    in the middle.
    """
    models = list(listed)
    rows = [HEADINGS, *(_row(*one) for one in models)]
    if all(model.in_library for model, _, _ in models):
        rows = [row[:-1] for row in rows]
    if width is not None:
        rows = _narrowed(rows, width)
    return table(rows, width, left=len(rows[0]))


def _narrowed(rows: list[tuple[str, ...]], width: int) -> list[tuple[str, ...]]:
    wanted = min(NAME_ROOM, max(cell_len(row[0]) for row in rows))
    for heading in ("", *DROPPED):
        if heading in rows[0]:
            at = rows[0].index(heading)
            rows = [(*row[:at], *row[at + 1 :]) for row in rows]
        columns = [*zip(*rows, strict=True)][1:]
        room = width - sum(len(GAP) + max(map(cell_len, column)) for column in columns)
        if room >= wanted:
            break
    room = max(room, LEAST_NAME)
    return [(shortened(row[0], room), *row[1:]) for row in rows]


def _row(model: Model, facts: Facts, fit: Fit) -> tuple[str, ...]:
    return (
        one_line(model.name),
        one_line(_family(facts)),
        facts.type,
        rough_size(facts.size_bytes),
        f"{facts.context_length:,}" if facts.context_length else "-",
        "only" if facts.only_mtp else "yes" if facts.mtp else "no",
        _fits(facts, fit),
        place_name(model),
    )


def _fits(facts: Facts, fit: Fit) -> str:
    if facts.obstacle and facts.architecture in KNOWN:
        return f"no: {facts.obstacle}"
    return fit.how  # an architecture that is not known says so in its own column


def _family(facts: Facts) -> str:
    known = facts.architecture in KNOWN
    return facts.family if known else f"{facts.architecture or '?'} (unknown)"


def place_name(model: Model) -> str:
    """Name the program that a model belongs to."""
    return TITLES[model.place.program]
