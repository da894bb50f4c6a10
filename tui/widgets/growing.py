"""Text that grows on the screen at little cost: the layout is made anew only for a new line.

Textual lays the whole screen out whenever a text is updated, 8 ms in the simplest conversation,
though most words that come in fit on the line that is there.
"""

from textual.content import Content
from textual.visual import visualize
from textual.widgets import Markdown, Static
from textual.widgets._markdown import MarkdownParagraph


def update_in_place(widget: Static, content: Content) -> None:
    """Show a content, and lay the screen out only if its height is another one than before."""
    width, height = widget.content_size
    same = width > 0 and visualize(widget, content).get_height({}, width) == height
    widget.update(content, layout=not same)  # one that is not shown yet has no width


class GrowingParagraph(MarkdownParagraph):
    """A paragraph that may grow."""

    def set_content(self, content: Content) -> None:
        """Show the paragraph's text."""
        self._content = content
        update_in_place(self, content)


class GrowingMarkdown(Markdown):
    """Markdown whose last paragraph may grow."""

    BLOCKS = {**Markdown.BLOCKS, "paragraph_open": GrowingParagraph}
