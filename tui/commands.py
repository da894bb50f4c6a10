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
    Command("new", "New conversation", "Start afresh; this one is kept.", "new", key="Ctrl+N"),
    Command("temporary", "Temporary conversation", "Start one of which nothing is saved.",
            "temporary"),
    Command("conversations", "Conversations", "Search, resume, rename, pin, archive, delete.",
            "conversations", key="Ctrl+R"),
    Command("models", "Models", "Switch to another one; whether it fits and why.",
            "model", "[NAME]", "Ctrl+O"),
    Command("settings", "Settings of this conversation", "System prompt, sampling, limits.",
            "settings", key="F2"),
    Command("system", "System prompt", "Set it, or a preset by its name; nothing: none.",
            "system", "[TEXT]"),
    Command("think", "Thinking on or off", "Whether the next answers reason first.",
            "think", "[on|off|auto]", "Ctrl+T"),
    Command("fold", "Fold or unfold reasoning", "All of it, and what is to come.", key="Ctrl+L"),
    Command("retry", "Retry", "Another answer; both are kept.", "retry", key="R"),
    Command("continue", "Continue", "Let an answer that was cut off go on.", "continue", key="."),
    Command("edit", "Edit and resend", "Change a prompt; what followed is kept.", "edit", key="E"),
    Command("fork", "Fork here", "Go back to a message and ask on from there.", "fork", key="F"),
    Command("copy", "Copy answer", "As Markdown.", "copy", key="Y"),
    Command("copy_code", "Copy code", "The only code block of the answer, or the N-th.",
            "code", "[N]", "C"),
    Command("find", "Find", "A text in this conversation.", "find", "[TEXT]", "Ctrl+F"),
    Command("export", "Export", "To a new file: Markdown, or .json with all variants.",
            "export", "FILE"),
    Command("stats", "Statistics", "Speeds and counts of an answer.", "stats"),
    Command("plan", "Plan", "Where the model's layers are, and why.", "plan"),
    Command("editor", "External editor", "Write the prompt in $VISUAL or $EDITOR.", key="Ctrl+G"),
    Command("restart", "Restart the model", "Load it again when it is down.", "restart"),
    Command("help", "Help", "Keys and slash words.", "help", key="F1"),
    Command("quit", "Quit", "Leave localseek.", "quit", key="Ctrl+Q"),
)  # fmt: skip

KEYS = (
    ("Enter", "Send."),
    ("Shift+Enter, Ctrl+J", "A new line in the prompt."),
    ("↑ ↓", "Earlier prompts, at the first and last line."),
    ("PgUp PgDn", "Turn a page of the conversation."),
    ("@path, Tab", "Attach a text file; completes."),
    ("Esc", "Stop the answer; else go to the conversation and back."),
    ("Ctrl+C", "Copy what the mouse selected; twice: quit."),
    ("Ctrl+P", "All commands, by name."),
)
CHOOSING = (
    ("J K, G Shift+G", "Choose a message; the first, the last."),
    ("[ ]", "The variant before, after."),
    ("Space", "Fold or unfold its reasoning."),
)

_SLASH = re.compile(r"/([a-z]+)(?:\s+(.*))?\s*", re.DOTALL)


def parse_slash(text: str) -> tuple[str, str] | None:
    """Read `/word argument`; None when the text is a prompt. The word may be unknown."""
    match = _SLASH.fullmatch(text)
    return (match[1], (match[2] or "").strip()) if match else None


def by_word(word: str) -> Command | None:
    """Give the command of a slash word."""
    return next((command for command in COMMANDS if command.word == word), None)


def words() -> dict[str, str]:
    """Give the slash words with their help."""
    return {command.word: command.help for command in COMMANDS if command.word}
