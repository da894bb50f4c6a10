"""A conversation longer than the context: its oldest turns are left out, whole.

Takes messages and a count of tokens, gives the messages to show. The history is gone through turn
by turn, and cut where it was too long at that turn, then by a quarter of the context more than it
had to be: the next turns begin alike and find themselves in the cache. Nothing is remembered, so
that a retry, a branch and a new engine cut at the same place. Knows nothing about templates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from localseek.engine.decoding.thinking import ANSWER_TOKENS, ENOUGH
from localseek.options import Message, Request

SHARE = 4  # 1/SHARE of the context is free after a cut, and as much is the reply's


@dataclass(frozen=True, slots=True)
class Overhead:
    """Tokens that a template adds: around the last prompt with what comes first, and to a turn."""

    fixed: int
    turn: int


@dataclass(frozen=True, slots=True)
class Cut:
    """What of a conversation is shown; `moved` if it was the last prompt that left more out."""

    messages: tuple[Message, ...]
    left_out: int  # turns
    moved: bool

    def notice(self, n_ctx: int) -> str:
        """Say what is left out."""
        turns = "oldest turn is" if self.left_out == 1 else f"{self.left_out:,} oldest turns are"
        return (
            f"The conversation has outgrown the context of {n_ctx:,} tokens: "
            f"its {turns} left out from here on."
        )


def reply_room(n_ctx: int, request: Request, thinks: bool) -> int:
    """Give the tokens of a context that are kept for the reply to a request.

    A quarter of them at most, of a model that reasons half; with a budget for reasoning what that
    needs, half at most.
    """
    limit = n_ctx if request.max_tokens is None else request.max_tokens
    if request.think_budget is None:
        return min(limit, n_ctx // 2 if thinks and request.think is not False else n_ctx // SHARE)
    # A token has a byte at least: ENOUGH takes fewer tokens than it has bytes, about a third.
    needed = request.think_budget + len(ENOUGH) // 2 + ANSWER_TOKENS
    return min(limit, needed, n_ctx // 2)


def split_turns(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """Give the messages that are always shown, and the turns: prompts and the replies to them."""
    always = [message for message in messages if message.role == "system"]
    turns: list[list[Message]] = []
    before = ""
    for message in messages:
        if message.role == "system":
            continue
        if not turns or (message.role == "user" and before == "assistant"):
            turns.append([])
        turns[-1].append(message)
        before = message.role
    return always, turns


def without(messages: Sequence[Message], count: int) -> tuple[Message, ...]:
    """Give the messages without those of the first `count` turns."""
    gone = {id(message) for turn in split_turns(messages)[1][:count] for message in turn}
    return tuple(message for message in messages if id(message) not in gone)


def first_shown(
    prompts: Sequence[int], turns: Sequence[int], n_ctx: int, reply: int
) -> tuple[int, int]:
    """Give the first turn that is shown with the last prompt, and with the one before.

    `prompts` are the tokens of each turn's prompt with all that the template adds, `turns` what
    the turn takes in later prompts. The turn before a prompt stays if it fits at all.
    """
    most = n_ctx - reply
    goal = most - n_ctx // SHARE
    first = before = 0
    for turn, prompt in enumerate(prompts):
        before = first
        used = prompt + sum(turns[first:turn])
        if used <= most:
            continue
        while used > goal and first < turn - 1:
            used -= turns[first]
            first += 1
        if used > most and first < turn:
            first = turn
    return first, before


class Trimmer:
    """Cuts conversations to a context; counts the tokens of each message once."""

    def __init__(self, count: Callable[[str], int], n_ctx: int, thinks: bool) -> None:
        self._count, self.n_ctx, self.thinks = count, n_ctx, thinks
        self._known: dict[str, int] = {}  # of the last conversation's messages

    def cut(self, request: Request, overhead: Callable[[], Overhead]) -> Cut:
        """Leave turns out until the rest and the reply fit, by the sum of the messages' tokens.

        The last turn is always shown. `overhead` is asked for where there is a history only.
        """
        messages = request.messages
        turns = split_turns(messages)[1]
        if len(turns) < 2:
            return Cut(messages, 0, False)
        texts = {message.content for turn in turns for message in turn}
        self._known = {
            text: self._known[text] if text in self._known else self._count(text) for text in texts
        }
        added = overhead()
        whole = [added.turn + self._tokens(turn) for turn in turns]
        prompts = [
            added.fixed + self._tokens([one for one in turn if one.role == "user"])
            for turn in turns
        ]
        reply = reply_room(self.n_ctx, request, self.thinks)
        first, before = first_shown(prompts, whole, self.n_ctx, reply)
        return Cut(without(messages, first), first, first > before)

    def _tokens(self, messages: Sequence[Message]) -> int:
        return sum(self._known[message.content] for message in messages)
