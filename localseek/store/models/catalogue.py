"""All models on this machine with the names they answer to: the library's and other programs'.

A file that is seen in two places is one model. Names come from the file alone (names.py); where two
files would have the same one, the library's keeps it, and the others get `@` and their program,
then their owner, their folder, digits of their place. Reads headers only where it is asked to.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from localseek.gguf.architectures import EYES
from localseek.store.models import names, programs
from localseek.store.models.facts import Facts
from localseek.store.models.files import EMBEDDED
from localseek.store.models.programs import Place
from localseek.store.models.remembered import Remembered

BLOB = re.compile(r"(?:sha256-)?([0-9a-f]{64})")  # a file that is named after what it holds


@dataclass(frozen=True, slots=True)
class Model:
    """One model: the place where it is used from, its names, and what is known of it.

    `name` is the one to show, `names` all that it answers to; `also` are its other places.
    """

    place: Place
    name: str
    names: tuple[str, ...]
    facts: Facts | None = None
    problem: str = ""
    also: tuple[Place, ...] = ()

    @property
    def path(self) -> Path:
        """Give the model's file, the first one if it has several."""
        return self.place.path

    @property
    def short_names(self) -> tuple[str, ...]:
        """Give the names that tell no place unless they have to."""
        return tuple(name for name in self.names if "@" not in name or name == self.name)

    @property
    def in_library(self) -> bool:
        """Tell whether the file is localseek's own."""
        return not self.place.program


def all_models(read: bool = True) -> list[Model]:
    """List every model; without `read`, by what is known of the files without opening any."""
    remembered = Remembered()
    find: Callable[[Path], Facts | str | None] = remembered.known
    if read:
        from localseek.store.models.reading import read_facts  # noqa: PLC0415 - shells wait for names

        find = partial(remembered.read, reader=read_facts)
    found = []
    for place, also in _once(programs.all_places()):
        facts = find(place.path)
        problem = facts if isinstance(facts, str) else ""
        known = None if isinstance(facts, str) else facts
        if place.program and known and known.architecture == EYES:
            continue
        found.append(Model(place, "", (), known, problem, also))
    if read:
        remembered.save()
    order = list(programs.TITLES)
    return sorted(_named(found), key=lambda one: (order.index(one.place.program), one.name))


def _once(places: Iterable[Place]) -> list[tuple[Place, tuple[Place, ...]]]:
    """Give each file once, with the other places in which it is seen."""
    found: dict[int, list[Place]] = {}
    numbers: dict[object, int] = {}
    for place in places:
        marks = _marks(place.path)
        if not marks:
            continue  # it went while the folders were read
        number = next((numbers[mark] for mark in marks if mark in numbers), len(found))
        numbers.update(dict.fromkeys(marks, number))
        found.setdefault(number, []).append(place)
    return [(first, tuple(others)) for first, *others in found.values()]


def _marks(path: Path) -> list[object]:
    """Give what two places of one file have in common: its number, the digest it is named after."""
    try:
        facts = os.stat(path)
        real = BLOB.fullmatch(os.path.basename(os.path.realpath(path)))
    except (OSError, ValueError):
        return []
    return [(facts.st_dev, facts.st_ino), *([real[1]] if real else [])]


def _named(models: list[Model]) -> list[Model]:
    """Give each model its names, no two the same."""
    parts = [_parts(model) for model in models]
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for index, (base, tag) in enumerate(parts):
        groups[names.joined(base, tag)].append(index)
    shown = {}
    for plain, group in groups.items():
        libraries = [index for index in group if models[index].in_library]
        keeps = libraries if len(libraries) == 1 else group if len(group) == 1 else []
        others = [index for index in group if index not in keeps]
        shown.update(dict.fromkeys(keeps, plain))
        shown.update(_apart(plain, {index: models[index].place for index in others}))
    return [
        replace(model, name=shown[index], names=_answers(model, shown[index], *parts[index]))
        for index, model in enumerate(models)
    ]


def _parts(model: Model) -> tuple[str, str]:
    place, facts = model.place, model.facts
    if not place.program and place.called == EMBEDDED:
        return EMBEDDED, ""
    title, kind = (facts.title, facts.type) if facts else ("", "")
    title = "" if title == place.path.stem else title
    if place.program == "ollama" and not title:  # a blob's name says nothing
        base, _, tag = place.called.rpartition("/")[2].partition(":")
        return names.safe(base) or "model", names.safe(tag)
    base, tag = names.short_name(place.path, title, kind)
    return (f"{base}-file" if base == EMBEDDED else base), tag


def _apart(plain: str, places: dict[int, Place]) -> dict[int, str]:
    """Tell files of one name apart: by program, owner, folder, then by their place."""
    found: dict[int, str] = {}
    for ways in WAYS:
        rest = {index: place for index, place in places.items() if index not in found}
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for index, place in rest.items():
            groups[ways(place)].append(index)
        for mark, group in groups.items():
            if mark and len(group) == 1:
                found[group[0]] = f"{plain}@{mark}"
    return found


def _program(place: Place) -> str:
    return place.program


def _owner(place: Place) -> str:
    return "-".join(part for part in (place.program, names.safe(place.owner)) if part)


def _folder(place: Place) -> str:
    return "-".join(part for part in (place.program, names.safe(place.path.parent.name)) if part)


def _digits(place: Place) -> str:
    return "-".join(part for part in (place.program, names.digits(place.path)) if part)


WAYS = (_program, _owner, _folder, _digits)  # in which places of one name differ


def _answers(model: Model, shown: str, base: str, tag: str) -> tuple[str, ...]:
    """Give all names of a model: the one shown, by place, without tag, by its program."""
    plain = names.joined(base, tag)
    places = (model.place, *model.also)
    called = [one.called for one in places if one.program in ("", "ollama")]
    called += [one.removesuffix(":latest") for one in called if one.endswith(":latest")]
    marks = [way(one) for one in places for way in WAYS]
    placed = [f"{name}@{mark}" for mark in marks if mark for name in (plain, base)]
    found = [shown, plain, base, *called, *placed]
    return tuple(dict.fromkeys(found))


def spoken(models: Iterable[Model]) -> list[str]:
    """Give the names that a shell offers: those shown, and Ollama's own."""
    found = [EMBEDDED]
    for model in models:
        if model.problem:
            continue
        found.append(model.name)
        if model.place.program == "ollama":
            found.append(model.place.called)
    return list(dict.fromkeys(found))


def meant(name: str, models: Iterable[Model]) -> list[Model]:
    """Give the models that a name means: by the name shown, else by any that they answer to.

    The library's go first where a name without its place could mean others too.
    """
    wanted = name.lower()
    listed = list(models)
    for found in (
        [model for model in listed if model.name == wanted],
        [model for model in listed if model.in_library and wanted in _lower(model)],
        [model for model in listed if wanted in _lower(model)],
    ):
        if found:
            return found
    return []


def _lower(model: Model) -> set[str]:
    return {name.lower() for name in model.names}


def at(path: Path, models: Iterable[Model]) -> Model | None:
    """Give the model whose file a path leads to, None if no list knows it."""
    marks = set(_marks(path))
    for model in models:
        if marks.intersection(_marks(model.path)):
            return model
    return None
