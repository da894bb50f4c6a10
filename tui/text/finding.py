"""Finding a text in the conversation that is shown, and the code blocks of an answer.

Takes turns, gives their numbers; case does not matter. Knows nothing about Textual.
"""

from collections.abc import Iterable

from tui.state.views import TurnView


def holding(turns: Iterable[TurnView], text: str) -> list[int]:
    """Give the turns whose prompt, reasoning or answer holds a text."""
    wanted = text.casefold().strip()
    if not wanted:
        return []
    return [
        turn.id
        for turn in turns
        if any(
            wanted in part.casefold()
            for part in (turn.prompt, turn.reply.reasoning, turn.reply.answer)
        )
    ]


def code_blocks(answer: str) -> list[str]:
    """Give the contents of the fenced code blocks, in their order; an unclosed one too."""
    from markdown_it import MarkdownIt  # noqa: PLC0415 — after the first picture

    tokens = MarkdownIt("gfm-like").parse(answer)
    return [token.content.removesuffix("\n") for token in tokens if token.type == "fence"]
