"""The status line: model and state at the left, figures at the right, as many as fit.

Takes the state and the time. Every state is a word; colour only repeats it.
"""

from rich.cells import cell_len
from textual.content import Content
from textual.widgets import Static

from tui.state.views import AppState
from tui.state.wording import activity, figures, held_back, model_name, offline

GAP = 2  # cells between the two sides


class Status(Static):
    """One line about the model and the answer."""

    ALLOW_SELECT = False

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)
        self._line = ""

    def show(self, state: AppState, now: float) -> None:
        """Draw the line as it is now."""
        content = line(state, now, self.content_size.width)
        if content.markup != self._line:
            self._line = content.markup
            self.update(content, layout=False)
            self.tooltip = next(iter(offline(state.model)), None)


def line(state: AppState, now: float, width: int) -> Content:
    """Compose the line for a width in cells; the least wanted parts go first."""
    words = activity(state, now)
    left = Content.assemble((model_name(state.model), "bold"), " · ", (words, _style(state)))
    if state.thinking is not None:
        left = Content.assemble(left, f" · thinking {'on' if state.thinking else 'off'}")
    if unsaved := held_back(state):
        left = Content.assemble(left, " · ", (unsaved, "$text-warning"))
    if left.cell_length > width:
        left = Content.styled(words, _style(state))
    room = width - left.cell_length - GAP
    numbers = figures(state, now)
    beside = [cell_len(" · ".join(numbers)) + GAP, 0, 0]  # the full words only beside all figures
    said = zip(offline(state.model), beside, strict=False)
    lock = next((words for words, used in said if cell_len(words) + used <= room), "")
    right = [lock] if lock else []
    for part in reversed(range(len(numbers) + 1)):
        if cell_len(" · ".join([*numbers[:part], *right])) <= room:
            right = [*numbers[:part], *right]
            break
    text = " · ".join(right)
    space = max(0, width - left.cell_length - cell_len(text))
    return Content.assemble(left, " " * space, text)


def _style(state: AppState) -> str:
    if state.model.phase in ("failed", "dead"):
        return "$text-error"
    return "$text-accent" if state.busy else ""
