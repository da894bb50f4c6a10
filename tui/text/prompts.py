"""The history of prompts, walked with the arrow keys as in a shell.

Takes the prompts that were sent and the unsent draft, gives the text to show. Plain data; knows
nothing about Textual.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class PromptHistory:
    """What was sent, where the reader stands in it, and the draft left behind."""

    sent: tuple[str, ...] = ()
    at: int = 0  # == len(sent): at the draft
    draft: str = ""

    @property
    def text(self) -> str:
        """Give the text at the present place."""
        return self.sent[self.at] if self.at < len(self.sent) else self.draft

    def added(self, prompt: str) -> "PromptHistory":
        """Give the history after a prompt was sent; a repeated one is kept once."""
        sent = self.sent if self.sent[-1:] == (prompt,) else (*self.sent, prompt)
        return PromptHistory(sent, len(sent))

    def moved(self, step: int, text: str) -> "PromptHistory | None":
        """Give the history one step older (-1) or newer (+1), None at its ends."""
        target = self.at + step
        if not 0 <= target <= len(self.sent):
            return None
        draft = text if self.at == len(self.sent) else self.draft
        return replace(self, at=target, draft=draft)
