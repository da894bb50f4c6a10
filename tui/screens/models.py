"""The list of models: type, size, whether it drafts, whether it fits on this machine and why.

Takes the state's `ModelOffer`s, gives the name of the chosen model.
"""

from textual.content import Content
from textual.widgets import Input

from localseek.system import paths
from localseek.system.sizes import rough_size
from tui.screens.choosing import Choosing
from tui.state.views import AppState, ModelOffer
from tui.state.wording import clean

GETTING = (
    "To get a real model, leave the app and run:\n"
    "  localseek pull REPOSITORY            a checkpoint from the Hub\n"
    "  localseek convert CHECKPOINT {folder}/NAME.gguf --type Q4_K_M\n"
    "A GGUF file that you have works too: put it into that folder, or /model FILE."
)


class Models(Choosing):
    """The box of models."""

    TITLE_TEXT = "Models"
    PLACEHOLDER = "filter by name, or the path of a GGUF file"

    def __init__(self) -> None:
        super().__init__()
        self._drawn: tuple[object, ...] = ()
        self._state: AppState | None = None

    def show(self, state: AppState) -> None:
        """Draw the models whose name holds what was typed."""
        self._state = state
        wanted = self.line.value.strip().casefold()
        drawn = (state.models, wanted, state.model.name)
        if drawn == self._drawn:
            return
        self._drawn = drawn
        offers = [one for one in state.models if wanted in one.name.casefold()]
        width = max((len(one.name) for one in offers), default=0)
        rows = [(one.name, line(one, one.name == state.model.name, width)) for one in offers]
        only = all(one.name == "nano" for one in state.models)
        getting = GETTING.format(folder=paths.short(paths.models())) if only else ""
        self.hint.update(Content(getting))
        nothing = "Enter loads this file." if wanted else "Looking for models…"
        self.fill(rows, nothing, first=state.model.name)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter by what stands in the line now."""
        if self._state is not None:
            self.show(self._state)

    def choose(self) -> None:
        """Take what is marked, or the file that was typed."""
        typed = self.line.value.strip()
        if chosen := self.marked or typed:
            self.dismiss(chosen)


def line(one: ModelOffer, current: bool, width: int) -> Content:
    """Give a model's name with its facts, and under it whether it fits."""
    facts = [one.type, rough_size(one.size_bytes) if one.size_bytes else "", one.architecture]
    facts.append("MTP" if one.mtp else "")
    told = " · ".join(clean(fact) for fact in facts if fact)
    fits = {True: "fits", False: "does not fit", None: "looking at this machine"}[one.fits]
    colour = "$text-warning" if one.fits is False else "dim"
    return Content.assemble(
        (clean(one.name).ljust(width), "bold" if current else ""),
        (f"  {told}{'  (in use)' if current else ''}", "dim"),
        (f"\n    {fits}{': ' if one.why else ''}{clean(one.why)}", colour),
    )  # fmt: skip
