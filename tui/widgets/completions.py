"""What a prompt can be completed to: a few lines over it; Tab takes the one that is marked.

Takes completions, gives the chosen one. Has no focus of its own: the prompt hands it its keys.
"""

from textual.content import Content
from textual.widgets import Static

from tui.text.attachments import Completion


class Completions(Static):
    """The list, hidden while it is empty."""

    ALLOW_SELECT = False

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)
        self.display = False
        self._offered: list[Completion] = []
        self._at, self._moved = 0, False

    def offer(self, completions: list[Completion]) -> None:
        """Show these, or nothing."""
        if completions == self._offered:
            return
        self._offered, self._at, self._moved = completions, 0, False
        self.display = bool(completions)
        self._draw()

    def move(self, step: int) -> None:
        """Mark the next or the one before, round and round."""
        self._at, self._moved = (self._at + step) % len(self._offered), True
        self._draw()

    def chosen(self, key: str) -> Completion | None:
        """Give the marked one if a key takes it: Tab, or Enter once the mark was moved."""
        if key == "tab" or (key == "enter" and self._moved):
            return self._offered[self._at]
        return None

    def _draw(self) -> None:
        width = max((len(one.text) for one in self._offered), default=0) + 2
        lines = [
            Content.assemble(
                (one.text.ljust(width), "$text-accent bold" if place == self._at else ""),
                (one.remark, "dim"),
            )
            for place, one in enumerate(self._offered)
        ]
        self.update(Content("\n").join(lines))
