"""What is on the screen as a file: for the user's own export, and after a crash.

Takes the state, gives records as the history has them, so that both are exported alike. Knows
nothing about Textual.
"""

import time
from datetime import datetime
from pathlib import Path

from localseek.store.history.export import as_json, as_markdown
from localseek.store.history.records import Message, Saved, title_of
from localseek.system import paths
from localseek.system.files import write_new
from tui.state.views import AppState, TurnView


def write(state: AppState, path: Path) -> Path:
    """Write the conversation to a new file: .json with all variants, else Markdown.

    Raises LocalseekError.
    """
    saved, branch, others = records(state)
    if path.suffix == ".json":
        return write_new(path, as_json(saved, [*branch, *others]) + "\n")
    return write_new(path, as_markdown(saved, branch))


def recover(state: AppState, unsent: str) -> Path | None:
    """Save what a crash would lose, and say where; None when there is nothing to save.

    Nothing of a temporary conversation is saved, as was promised.
    """
    if state.conversation.temporary or not (state.turns or unsent.strip()):
        return None
    saved, branch, _ = records(state)
    text = as_markdown(saved, branch)
    if unsent.strip():
        text += f"\n## Not sent\n\n{unsent}\n"
    name = datetime.now().strftime("%Y-%m-%d %H-%M-%S.%f.md")
    return write_new(paths.folder("recovered") / name, text)


def records(state: AppState) -> tuple[Saved, list[Message], list[Message]]:
    """Give the conversation, the messages of the branch that is shown, and all others."""
    numbers = {turn.id: place for place, turn in enumerate((*state.turns, *state.others))}
    view, now = state.conversation, time.time()
    title = view.title or (title_of(state.turns[0].prompt) if state.turns else "localseek")
    branch = [one for turn in state.turns for one in _messages(turn, numbers, state)]
    others = [one for turn in state.others for one in _messages(turn, numbers, state)]
    known = {one.id for one in branch}
    others = list({one.id: one for one in others if one.id not in known}.values())
    leaf = branch[-1].id if branch else None
    saved = Saved(
        view.number or 0, title, view.system, state.model.name, now, now, False, False, leaf,
        len(branch) + len(others), dict(view.settings),
    )  # fmt: skip
    return saved, branch, others


def _messages(turn: TurnView, numbers: dict[int, int], state: AppState) -> tuple[Message, Message]:
    first = numbers.get(turn.again, numbers[turn.id]) if turn.again else numbers[turn.id]
    parent = None if turn.parent is None else 2 * numbers[turn.parent] + 2
    prompt = Message(2 * first + 1, parent, "user", turn.prompt)
    reply, model = turn.reply, state.model.name
    answer = Message(
        2 * numbers[turn.id] + 2, prompt.id, "assistant", reply.answer, reply.reasoning, model,
        reply.finish_reason, reply.error, reply.stats,
    )  # fmt: skip
    return prompt, answer
