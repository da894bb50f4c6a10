"""A page of names and values over the chat: help and statistics. Esc closes it.

Takes a title and sections of rows, all plain text. Knows nothing about the app's state.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from tui.commands import CHOOSING, COMMANDS, KEYS
from tui.screens.box import Box

Rows = Sequence[tuple[str, str]]


class Page(Box[None]):
    """Sections of rows to read."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,q,f1", "close", "Close", show=False, id="page.close")
    ]

    def __init__(self, title: str, sections: Sequence[Rows]) -> None:
        super().__init__()
        self._title, self._sections = title, sections

    def compose(self) -> ComposeResult:
        """Show the title over the sections, names in one column."""
        width = max((len(name) for rows in self._sections for name, _ in rows), default=0) + 2
        with VerticalScroll(id="page"):
            yield Static(Content.styled(self._title, "bold"), markup=False, classes="page-title")
            for rows in self._sections:
                lines = [
                    Content.assemble((name.ljust(width), "$text-accent"), value)
                    for name, value in rows
                ]
                yield Static(Content("\n").join(lines), markup=False, classes="page-section")
            yield Static(Content.styled("Esc closes this page.", "dim"), markup=False)


def help_page(bindings: Mapping[str, str]) -> Page:
    """Give the page of all keys, slash words and names of bindings with their keys."""
    words = [
        (f"/{command.word} {command.argument}".strip(), command.help)
        for command in COMMANDS
        if command.word
    ]
    pressed = [(command.key, command.title + ".") for command in COMMANDS if command.key]
    named = [(name, keys.replace(",", ", ")) for name, keys in bindings.items()]
    return Page("localseek", [[*KEYS, *pressed], CHOOSING, words, named])


class Lines(Box[None]):
    """Lines to read, drawn as they are: a plan."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,q", "close", "Close", show=False, id="lines.close")
    ]

    def __init__(self, title: str, lines: Sequence[str]) -> None:
        super().__init__()
        self._title, self._lines = title, lines

    def compose(self) -> ComposeResult:
        """Show the title over the lines."""
        with VerticalScroll(id="page"):
            yield Static(Content.styled(self._title, "bold"), markup=False, classes="page-title")
            yield Static(Content("\n".join(self._lines)), markup=False, classes="page-section")
            yield Static(Content.styled("Esc closes this page.", "dim"), markup=False)
