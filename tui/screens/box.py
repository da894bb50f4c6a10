"""A box over the chat: it closes with Esc, and uses all of a small terminal."""

from typing import ClassVar, TypeVar

from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

Result = TypeVar("Result")

AGAIN_S = 4.0  # within which a second press confirms the first
TALL = 24  # rows, from which on a box has margins


class Box(ModalScreen[Result]):
    """What all boxes share; app.tcss draws them by these classes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close", key_display="esc", id="box.close")
    ]
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (60, "-medium")]
    VERTICAL_BREAKPOINTS = [(0, "-short"), (TALL, "-tall")]

    def action_close(self) -> None:
        """Leave without a result."""
        self.dismiss(None)
