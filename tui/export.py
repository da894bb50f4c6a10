"""A conversation as a Markdown file: for the user's own export, and after a crash.

Takes turns, gives text. Knows nothing about Textual.
"""

from datetime import datetime
from pathlib import Path

from localseek.system import paths
from localseek.system.files import write_new
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


def recover(state: AppState, unsent: str) -> Path | None:
    """Save what a crash would lose, and say where; None when there is nothing to save."""
    if not state.turns and not unsent.strip():
        return None
    name = datetime.now().strftime("%Y-%m-%d %H-%M-%S.%f.md")
    return write_new(paths.folder("recovered") / name, as_markdown(state, unsent))


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
