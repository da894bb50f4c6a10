"""A conversation as a Markdown file: for the user's own export, and after a crash.

Takes turns, gives text; writes it whole or not at all, readable by its owner only, and never
over another file. Knows nothing about Textual.
"""

import os
from datetime import datetime
from pathlib import Path

from localseek.errors import LocalseekError
from localseek.system import paths
from tui.state import AppState, TurnView


def as_markdown(state: AppState, unsent: str = "") -> str:
    """Give the conversation as Markdown; reasoning is folded, as it is on the screen."""
    parts = [f"# Conversation with {state.model.name}"]
    if state.system:
        parts.append(f"## System\n\n{state.system}")
    parts += [_turn(turn) for turn in state.turns]
    if unsent.strip():
        parts.append(f"## Not sent\n\n{unsent}")
    return "\n\n".join(parts) + "\n"


def write(path: Path, text: str) -> Path:
    """Write a new file; raises LocalseekError when it exists or cannot be written."""
    path = path.expanduser()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise LocalseekError(f"{path} exists already.", "Choose another name.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise LocalseekError(f"{path} cannot be written: {reason}.") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise LocalseekError(f"{path} cannot be written: {error.strerror}.") from error
    return path


def recover(state: AppState, unsent: str) -> Path | None:
    """Save what a crash would lose, and say where; None when there is nothing to save."""
    if not state.turns and not unsent.strip():
        return None
    name = datetime.now().strftime("%Y-%m-%d %H-%M-%S.%f.md")
    return write(paths.folder("recovered") / name, as_markdown(state, unsent))


def _turn(turn: TurnView) -> str:
    parts = [f"## Prompt\n\n{turn.prompt}"]
    if turn.reply.reasoning:
        parts.append(
            f"<details><summary>Reasoning</summary>\n\n{turn.reply.reasoning.strip()}\n\n</details>"
        )
    if turn.reply.answer:
        parts.append(f"## Answer\n\n{turn.reply.answer.strip()}")
    if turn.phase != "done":
        parts.append(f"*{turn.reply.error or turn.phase}*")
    return "\n\n".join(parts)
