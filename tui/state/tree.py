"""The turns of a conversation as a tree, of which one branch is shown.

Takes the shown turns and all others, gives both anew: a turn put in, a branch cut or changed, a
saved conversation unfolded. Turns with the same parent are variants. Pure; knows nothing about
Textual or databases.
"""

from collections.abc import Iterable, Sequence

from localseek.store.history.records import Message
from tui.state.views import Phase, TurnView

Turns = tuple[TurnView, ...]
Branches = tuple[Turns, Turns]  # what is shown, all others
PHASES: dict[str, Phase] = {"stop": "done", "length": "done", "failed": "failed"}


def _age(turn: TurnView) -> tuple[bool, int]:
    """Order turns by when they were made: those of the history (negative numbers) come first."""
    return turn.id > 0, abs(turn.id)


def variants(turns: Turns, others: Turns, turn: TurnView) -> list[TurnView]:
    """Give the turns that follow what this one follows, itself among them, oldest first."""
    found = [one for one in (*turns, *others) if one.parent == turn.parent]
    return sorted(found, key=_age)


def cut_after(turns: Turns, others: Turns, parent: int | None) -> Branches:
    """Show the branch up to a turn; None: nothing of it."""
    count = next((n for n, turn in enumerate(turns, 1) if turn.id == parent), 0)
    return turns[:count], (*others, *turns[count:])


def place(turns: Turns, others: Turns, new: TurnView) -> Branches:
    """Put a turn in after its parent, and show it."""
    shown, hidden = cut_after(turns, others, new.parent)
    return (*shown, new), hidden


def switched(turns: Turns, others: Turns, number: int) -> Branches:
    """Show the branch through a turn, on to the newest that followed."""
    known = {turn.id: turn for turn in (*turns, *others)}
    way = [known[number]]
    while (parent := way[0].parent) is not None:
        way.insert(0, known[parent])
    while following := [turn for turn in known.values() if turn.parent == way[-1].id]:
        way.append(max(following, key=_age))
    shown = {turn.id for turn in way}
    return tuple(way), tuple(turn for turn in known.values() if turn.id not in shown)


def from_history(messages: Sequence[Message], leaf: int | None) -> Branches:
    """Give the turns of a saved conversation, shown up to `leaf`.

    A turn has its answer's number, made negative, so that no new turn can have the same. A prompt
    that was never answered is left out.
    """
    prompts = {one.id: one for one in messages if one.role == "user"}
    first_of: dict[int, int] = {}  # the first turn of each prompt
    turns: list[TurnView] = []
    for answer in messages:
        if answer.role != "assistant" or answer.parent not in prompts:
            continue
        prompt = prompts[answer.parent]
        turns.append(_turn(prompt, answer, first_of.get(prompt.id)))
        first_of.setdefault(prompt.id, -answer.id)
    if not turns:
        return (), ()
    known = {turn.id for turn in turns}
    if leaf in prompts:  # it was left at a prompt without an answer
        leaf = prompts[leaf].parent
    if leaf is None or -leaf not in known:
        return switched((), tuple(turns), max(turns, key=_age).id)
    shown, others = switched((), tuple(turns), -leaf)
    return cut_after(shown, others, -leaf)


def _turn(prompt: Message, answer: Message, again: int | None) -> TurnView:
    stats = answer.stats
    still = ("Another window is still writing this answer.",) if not answer.finish_reason else ()
    return TurnView(
        id=-answer.id,
        prompt=prompt.content,
        phase=PHASES.get(answer.finish_reason, "stopped"),
        reply=answer.reply,
        parent=None if prompt.parent is None else -prompt.parent,
        again=again,
        notices=still,
        tokens=stats.generated_tokens if stats else 0,
        reasoning_tokens=stats.reasoning_tokens if stats else 0,
        thought_s=thought(answer) if answer.reasoning else None,
    )


def thought(answer: Message) -> float:
    """Give how long a saved answer's reasoning took: its share of the tokens at their speed."""
    stats = answer.stats
    if stats is None or not stats.decode_tps:
        return 0.0
    return stats.reasoning_tokens / stats.decode_tps


def numbers(turns: Iterable[TurnView]) -> list[int]:
    """Give the turns' numbers."""
    return [turn.id for turn in turns]
