"""The models' thread: which there are, whether they fit on this machine, what a plan looks like.

Takes questions, gives `ModelsListed` and `PlanDrawn`: first the names, then, once the machine is
known, whether each fits. A file that cannot be read is listed with what is wrong with it. Knows
nothing about Textual.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from localseek import nano
from localseek.errors import LocalseekError
from localseek.gguf.info import read_info
from localseek.options import LoadOptions, ModelInfo
from localseek.store import library
from localseek.store.models import catalogue
from localseek.store.models.catalogue import Model
from localseek.store.models.facts import Facts
from localseek.system.machine import CPU, Machine
from tui.state.actions import ModelsListed, PlanDrawn, Said
from tui.state.views import ModelOffer
from tui.threads.background import Background

LookAround = Callable[[], Machine]  # asks the engine what devices there are
EMBEDDED_WHY = "embedded: small, for trying things out"


class Shelf(Background):
    """Reads the models' facts, and looks at the machine, on a thread of its own."""

    def __init__(self, look_around: LookAround, options: LoadOptions) -> None:
        super().__init__("models")
        self._look_around, self._options = look_around, options

    def look(self, loaded: ModelInfo | None) -> None:
        """List the models; what the loaded one takes becomes free when another is loaded."""
        self.submit(partial(self._list, loaded))

    def draw(self, info: ModelInfo, width: int) -> None:
        """Draw the plan of a loaded model, for a width in cells."""
        self.submit(partial(self._draw, info, width))

    def _list(self, loaded: ModelInfo | None) -> None:
        found = [_offer(one) for one in catalogue.all_models() if one.facts or one.in_library]
        offers = [offer for offer, _ in found]
        if not any(offer.name == library.EMBEDDED for offer in offers) and _embedded_is_there():
            made = "made on first use"
            offers.insert(0, ModelOffer(library.EMBEDDED, why=f"{EMBEDDED_WHY}, {made}", fits=True))
            found.insert(0, (offers[0], None))
        self.emit(ModelsListed(tuple(offers)))
        try:
            machine = without(self._look_around(), loaded)
        except LocalseekError as error:
            self.emit(Said(str(error)))
            return
        self.emit(ModelsListed(tuple(self._judged(*one, machine) for one in found)))

    def _judged(self, offer: ModelOffer, facts: Facts | None, machine: Machine) -> ModelOffer:
        from localseek.store.models.fitting import fit_of  # noqa: PLC0415 — after the first picture

        if facts is None:
            return offer
        try:
            found = fit_of(facts, machine, self._options)
        except LocalseekError as error:  # it went meanwhile
            return replace(offer, fits=False, why=error.message)
        why = f"{EMBEDDED_WHY}; {found.why}" if offer.name == library.EMBEDDED else found.why
        return replace(offer, fits=found.fits, why=why)

    def _draw(self, info: ModelInfo, width: int) -> None:
        from localseek.placing.placement import placement_from  # noqa: PLC0415
        from localseek.placing.shape import read_shape  # noqa: PLC0415
        from localseek.terminal.drawing import plan_page  # noqa: PLC0415

        try:
            facts = {"machine": asdict(self._look_around()), "placement": info.placement}
            machine, placement = placement_from(facts)
            draft = read_info(Path(placement.draft_file)) if placement.draft_file else None
            shape = read_shape(read_info(Path(info.path)), draft)
        except (LocalseekError, OSError) as error:
            self.emit(Said(str(error)))
        else:
            self.emit(PlanDrawn(tuple(plan_page(shape, machine, placement, width))))


def without(machine: Machine, loaded: ModelInfo | None) -> Machine:
    """Give the machine as it is once a loaded model is gone."""
    taken = loaded.taken_bytes if loaded else {}
    return replace(
        machine,
        ram_free=min(machine.ram_total, machine.ram_free + taken.get(CPU, 0)),
        devices=tuple(
            replace(one, free_bytes=min(one.total_bytes, one.free_bytes + taken.get(one.name, 0)))
            for one in machine.devices
        ),
    )


def _offer(model: Model) -> tuple[ModelOffer, Facts | None]:
    """Give what the list shows of a model, and its facts if it could answer."""
    name = model.place.called if model.in_library else model.name
    facts = model.facts
    if facts is None:
        return ModelOffer(name, fits=False, why=model.problem), None
    told: dict[str, Any] = {
        "size_bytes": facts.size_bytes, "type": facts.type, "architecture": facts.architecture,
        "mtp": facts.mtp,
    }  # fmt: skip
    if facts.obstacle:
        return ModelOffer(name, **told, fits=False, why=facts.obstacle), None
    return ModelOffer(name, **told), facts


def _embedded_is_there() -> bool:
    return (nano.CHECKPOINT / "config.json").is_file()
