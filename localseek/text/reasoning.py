"""Reasoning apart from the answer, in a text that streams in pieces.

Takes pieces of generated text cut anywhere, gives (kind, text) pairs in which no tag of the
reasoning remains. Knows nothing about models; how the prompt ended is told.
"""

from typing import Literal

OPEN, CLOSE = "<think>", "</think>"
BREAKS, SPACES = "\r\n", "\r\n\t "
QUOTES = ("`", "'", '"')
Kind = Literal["reasoning", "answer", "withdrawn"]


def held_back(text: str, tag: str) -> int:
    """Give how many characters at the end of `text` may be the beginning of `tag`."""
    for length in range(min(len(tag) - 1, len(text)), 0, -1):
        if tag.startswith(text[-length:]):
            return length
    return 0


class Splitter:
    """Splits one reply. Call `feed` for each piece and `finish` at the end.

    A reply begins in reasoning when its prompt ended in `<think>`; otherwise a `<think>` that
    comes before any other text opens it. White space around the reasoning belongs to neither, line
    breaks after `</think>` neither, all other white space is the answer's own. Only the first
    `</think>` counts: later tags are the answer's own text.

    A model that was told not to reason (its prompt ended in `</think>`) may reason all the same
    and then write `</think>`. What came before is given as the answer, since most such answers are
    just that; ("withdrawn", "") then says that all of it was reasoning. A tag in quotes is text.
    """

    def __init__(
        self, opened: bool, closed: bool = False, space: bool = False, shaped: bool = False,
        begun: bool = False,
    ) -> None:  # fmt: skip
        """Begin. `space`: one space before the first word belongs to the template.

        `shaped`: a grammar holds the answer, which lets a model put white space before it. `begun`:
        the reply goes on within a text, whose beginning was split already.
        """
        self._state: Literal["start", "reasoning", "answer"] = "start"
        if opened or begun:
            self._state = "reasoning" if opened else "answer"
        self._text = ""
        self._begun = begun  # text of the present kind was already given
        self._breaks = SPACES if shaped else BREAKS
        # What may go before the answer's first character.
        self._skipped = self._breaks if closed or shaped else ""
        self._watched = closed  # for a lone closing tag
        self._space = space
        self._last = ""  # character of the answer

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
            if not self._begun and not self._drop_second_tag():
                return found
            before, tag, after = self._text.partition(CLOSE)
            if not tag:
                keep = held_back(self._text, CLOSE)
                ready = self._text[: len(self._text) - keep]
                # White space is held until more reasoning follows it.
                ready = ready.rstrip()
                self._text = self._text[len(ready) :]
                return [*found, *self._reasoned(ready)]
            found += self._reasoned(before.rstrip())
            self._answer_begins(after)
        return [*found, *self._answered(final=False)]

    def finish(self) -> list[tuple[Kind, str]]:
        """Give what was held back; an unclosed `<think>` leaves everything reasoning."""
        if self._state != "reasoning":
            return self._answered(final=True)
        rest, self._text = self._text, ""
        return self._reasoned(rest.rstrip())

    def _decide_start(self) -> bool:
        stripped = self._text.lstrip()
        if stripped.startswith(OPEN):
            self._state, self._text, self._watched = "reasoning", stripped[len(OPEN) :], False
        elif OPEN.startswith(stripped):
            return False
        else:
            self._state = "answer"
        return True

    def _drop_second_tag(self) -> bool:
        """Leave out a `<think>` where one was opened already; False while it may still come."""
        stripped = self._text.lstrip()
        if stripped.startswith(OPEN):
            self._text = stripped[len(OPEN) :]
            return True
        return not OPEN.startswith(stripped)

    def _answer_begins(self, text: str) -> None:
        self._state, self._text, self._begun = "answer", text, False
        self._skipped, self._watched, self._space = self._breaks, False, False

    def _reasoned(self, text: str) -> list[tuple[Kind, str]]:
        if not self._begun:
            text = text.lstrip()
        if not text:
            return []
        self._begun = True
        return [("reasoning", text)]

    def _answered(self, final: bool) -> list[tuple[Kind, str]]:
        """Give what is sure of the answer; all that is left if it is `final`."""
        found: list[tuple[Kind, str]] = []
        if self._watched:
            at = self._text.find(CLOSE)
            while at >= 0 and (self._last + self._text)[: at + len(self._last)].endswith(QUOTES):
                at = self._text.find(CLOSE, at + 1)
            if at >= 0:
                found += self._given(self._text[:at])
                found += [("withdrawn", "")] if self._begun else []
                self._answer_begins(self._text[at + len(CLOSE) :])
        keep = held_back(self._text, CLOSE) if self._watched and not final else 0
        ready = self._text[: len(self._text) - keep]
        self._text = self._text[len(ready) :]
        return [*found, *self._given(ready)]

    def _given(self, text: str) -> list[tuple[Kind, str]]:
        if not self._begun:
            text = text.lstrip(self._skipped) if self._skipped else text
            if self._space and text:
                text, self._space = text.removeprefix(" "), False
        if not text:
            return []
        self._begun, self._last = True, text[-1]
        return [("answer", text)]
