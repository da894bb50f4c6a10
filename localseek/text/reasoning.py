"""Reasoning apart from the answer, in a text that streams in pieces.

Takes pieces of generated text cut anywhere, gives (kind, text) pairs in which no `<think>` tag
remains. Knows nothing about models; whether the template has already opened `<think>` is told.
"""

from typing import Literal

OPEN, CLOSE = "<think>", "</think>"
Kind = Literal["reasoning", "answer"]


def held_back(text: str, tag: str) -> int:
    """Give how many characters at the end of `text` may be the beginning of `tag`."""
    for length in range(min(len(tag) - 1, len(text)), 0, -1):
        if tag.startswith(text[-length:]):
            return length
    return 0


class Splitter:
    """Splits one reply. Call `feed` for each piece and `finish` at the end.

    A reply begins in reasoning when its prompt ended in `<think>`; otherwise a `<think>` that
    comes before any other text opens it. White space around the reasoning belongs to neither.
    Only the first `</think>` counts: later tags are the answer's own text.
    """

    def __init__(self, opened: bool) -> None:
        self._state: Literal["start", "reasoning", "answer"] = "reasoning" if opened else "start"
        self._text = ""
        self._begun = False  # text of the present kind was already given

    @property
    def decided(self) -> bool:
        """Tell whether enough text has come to know where it belongs."""
        return self._state != "start"

    @property
    def kind(self) -> Kind:
        """Give the kind that the next text is taken for."""
        return "reasoning" if self._state == "reasoning" else "answer"

    def feed(self, text: str) -> list[tuple[Kind, str]]:
        """Take a piece, give what can be told for sure."""
        self._text += text
        found: list[tuple[Kind, str]] = []
        if self._state == "start" and not self._decide_start():
            return found
        if self._state == "reasoning":
            before, tag, after = self._text.partition(CLOSE)
            if not tag:
                keep = held_back(self._text, CLOSE)
                ready = self._text[: len(self._text) - keep]
                # White space is held until more reasoning follows it.
                ready = ready.rstrip()
                self._text = self._text[len(ready) :]
                return [*found, *self._given("reasoning", ready)]
            found += self._given("reasoning", before.rstrip())
            self._state, self._text, self._begun = "answer", after, False
        ready, self._text = self._text, ""
        return [*found, *self._given("answer", ready)]

    def finish(self) -> list[tuple[Kind, str]]:
        """Give what was held back; an unclosed `<think>` leaves everything reasoning."""
        kind: Kind = "reasoning" if self._state == "reasoning" else "answer"
        rest, self._text = self._text, ""
        return self._given(kind, rest.rstrip() if kind == "reasoning" else rest)

    def _decide_start(self) -> bool:
        stripped = self._text.lstrip()
        if stripped.startswith(OPEN):
            self._state, self._text = "reasoning", stripped[len(OPEN) :]
        elif OPEN.startswith(stripped):
            return False
        else:
            self._state = "answer"
        return True

    def _given(self, kind: Kind, text: str) -> list[tuple[Kind, str]]:
        if not self._begun:
            text = text.lstrip()
        if not text:
            return []
        self._begun = True
        return [(kind, text)]
