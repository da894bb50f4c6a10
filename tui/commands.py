"""Every verb of the app in one table: the palette, the slash words and the help page read it.

A command names an action of the app; a slash word is how it is typed in the prompt, a key how it
is pressed. Knows nothing about Textual.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """One verb; `action` is the app's method without its `action_`."""

    action: str
    title: str
    help: str
    word: str = ""
    argument: str = ""  # shown in the help: what may follow the slash word
    key: str = ""


COMMANDS = (
    Command("new", "New conversation", "Start afresh; again on an empty one: go back.",
            "new", key="Ctrl+N"),
    Command("think", "Thinking on or off", "Whether the next answers reason first.",
            "think", "[on|off]", "Ctrl+T"),
    Command("retry", "Retry", "Another answer to the last prompt.", "retry"),
    Command("copy", "Copy answer", "The last answer, as Markdown.", "copy", key="Y"),
    Command("export", "Export", "Write the conversation to a Markdown file.", "export", "FILE"),
    Command("stats", "Statistics", "Speeds and counts of the last answer.", "stats"),
    Command("fold", "Fold or unfold reasoning", "All of it, and what is to come.", key="Ctrl+L"),
    Command("restart", "Restart the model", "Load it again when it is down.", "restart", key="R"),
    Command("help", "Help", "Keys and slash words.", "help", key="F1"),
    Command("quit", "Quit", "Leave localseek.", "quit", key="Ctrl+Q"),
)  # fmt: skip

KEYS = (
    ("Enter", "Send."),
    ("Shift+Enter, Ctrl+J", "A new line in the prompt."),
    ("↑ ↓", "Earlier prompts, at the first and last line."),
    ("Esc", "Stop the answer; else go to the conversation."),
    ("J K, G, Shift+G", "Scroll the conversation, to its start, to its end."),
    ("Ctrl+C", "Copy what the mouse selected; twice: quit."),
    ("Ctrl+P", "All commands, by name."),
)

_SLASH = re.compile(r"/([a-z]+)(?:\s+(.*))?\s*", re.DOTALL)


def parse_slash(text: str) -> tuple[str, str] | None:
    """Read `/word argument`; None when the text is a prompt. The word may be unknown."""
    match = _SLASH.fullmatch(text)
    return (match[1], (match[2] or "").strip()) if match else None


def by_word(word: str) -> Command | None:
    """Give the command of a slash word."""
    return next((command for command in COMMANDS if command.word == word), None)
