"""A streaming Markdown answer, in pieces, so that a long one stays as quick as a short one.

Takes the text so far and whether it is complete. One worker a widget appends what is new, as
fast as the screen can take it; whatever came in meanwhile goes with the next append. Raw HTML is
shown as text, links are never opened, and single line breaks are kept. Knows nothing about turns.
"""

import asyncio

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from textual.containers import Vertical
from textual.widget import MountError

from tui.text.segments import settled_markdown
from tui.widgets.growing import GrowingMarkdown


def markdown_parser() -> MarkdownIt:
    """Give the parser for answers.

    Textual drops raw HTML, so an answer about `<div>` would lose it; and it joins lines that
    models mean to stand apart.
    """
    parser = MarkdownIt("gfm-like", {"html": False})
    parser.core.ruler.push("keep_line_breaks", _keep_line_breaks)
    return parser


def _keep_line_breaks(state: StateCore) -> None:
    for token in state.tokens:
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"


class Answer(Vertical):
    """The answer of one reply; hidden while it is empty."""

    def __init__(self, text: str = "", complete: bool = False) -> None:
        super().__init__()
        self._text, self._complete = text, complete
        self._changed = asyncio.Event()
        self._piece: GrowingMarkdown | None = None
        self._start = 0  # where the growing piece begins
        self._written = 0  # how much of the text is on the screen
        self._withdrawn = False  # what is on the screen is not the text's beginning
        self._appended = False  # the growing piece was streamed, so it is laid out once more

    def on_mount(self) -> None:
        """Start the worker that keeps the screen up with the text."""
        self.display = bool(self._text)
        self.run_worker(self._follow_while_mounted(), exclusive=True)

    def show(self, text: str, complete: bool) -> None:
        """Take the text so far; it grows, unless all of it was withdrawn."""
        self._withdrawn |= not text.startswith(self._text)
        if len(text) == len(self._text) and complete == self._complete:
            return
        self._text, self._complete = text, complete
        self.display = bool(text)
        self._changed.set()

    @property
    def caught_up(self) -> bool:
        """Tell whether all text is on the screen."""
        return self._written == len(self._text) and not self._withdrawn

    async def _follow_while_mounted(self) -> None:
        try:
            await self._follow()
        except MountError:
            # The reply was scrolled out of the window in the middle of an update.
            if self.is_attached:
                raise

    async def _follow(self) -> None:
        while True:
            self._changed.clear()
            while not self.caught_up:
                if self._withdrawn:
                    await self._begin_again()
                await self._write()
            if self._complete and self._piece is not None and self._appended:
                # Streaming leaves table cells and late reference links half done: lay it out once.
                await self._piece.update(self._text[self._start :])
                self._appended = False
            await self._changed.wait()  # for more text; one that was cut off may go on

    async def _begin_again(self) -> None:
        self._withdrawn = False
        self._piece, self._start, self._written, self._appended = None, 0, 0, False
        await self.remove_children()

    async def _write(self) -> None:
        tail = self._text[self._start :]
        cut = settled_markdown(tail)
        end = self._start + cut if cut else len(self._text)
        piece = await self._growing_piece()
        if cut or self._written == self._start:
            await piece.update(self._text[self._start : end])
            self._appended = False
        else:
            await piece.append(self._text[self._written : end])
            self._appended = True
        self._written = end
        if cut:
            self._piece, self._start = None, end

    async def _growing_piece(self) -> GrowingMarkdown:
        if self._piece is None:
            self._piece = GrowingMarkdown(parser_factory=markdown_parser, open_links=False)
            await self.mount(self._piece)
        return self._piece
