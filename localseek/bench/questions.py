"""What `bench` asks a model: its answers are the text that drafts are measured on.

Takes a model file's facts, gives questions. Random tokens would not do: none would be guessed.
"""

from localseek.gguf.info import GGUFInfo
from localseek.nano import prompts

GENERAL = (
    "Explain in one paragraph how a refrigerator moves heat from a cold place to a warm one.",
    "Write a Python function that merges two sorted lists into one, with a docstring and a test.",
    "A train leaves at 9:40 and arrives at 13:05. How long did it take? Show each step.",
)
ARITHMETIC = ("981 * 87", "4077 + 3098 + 617", "(512 - 77) * 6", "9163 / 7", "347 * 28")


def built_in(info: GGUFInfo) -> tuple[str, ...]:
    """Give questions that the model can answer: nano, by its template, only does arithmetic."""
    return ARITHMETIC if info.chat_template == prompts.TEMPLATE else GENERAL
