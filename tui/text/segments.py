"""Where a growing text can be cut, so that only its last piece is laid out again.

Takes text that streams in, gives the length of a first piece that no later text will change.
A text of 100,000 characters then costs as much a frame as its last few thousand. Knows nothing
about Textual.
"""

import re

MARKDOWN_SIZE = 4_000  # characters; a screenful or two, laid out in a few milliseconds
PLAIN_SIZE = 2_000
# A line that can go on with the block before it even after a blank line: an indented one, a list
# item, a quotation, a table row.
_CONTINUES = re.compile(r"[ \t]|[-*+>|]|\d{1,9}[.)]")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")


def settled_markdown(text: str, size: int = MARKDOWN_SIZE) -> int:
    """Give where to cut Markdown that is longer than `size`: the last safe place, or 0.

    Safe is the start of an unindented block that follows a blank line outside any code fence.
    """
    if len(text) <= size:
        return 0
    safe = position = 0
    fence, blank_before = "", False
    for line in text.splitlines(keepends=True):
        stripped = line.strip()
        if not fence and blank_before and stripped and not _CONTINUES.match(line):
            safe = position
            if safe >= size:
                break
        if match := _FENCE.match(line):
            mark, rest = match.groups()
            if not fence:
                fence = mark
            elif mark.startswith(fence) and not rest.strip():
                fence = ""
        blank_before = not stripped
        position += len(line)
    return safe


def settled_plain(text: str, size: int = PLAIN_SIZE) -> int:
    """Give where to cut plain text that is longer than `size`: after a line, or at `size`."""
    if len(text) <= size:
        return 0
    return text.rfind("\n", 0, size) + 1 or size
