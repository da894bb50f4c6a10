"""Generated tokens to deltas: bytes to text, reasoning apart, stop strings, grouped over time.

A fast model does not drown its reader in messages. Knows nothing about models or pipes.
"""

import codecs
import time
from collections.abc import Callable, Iterable
from itertools import accumulate

from localseek.events import AnswerDelta, AnswerWithdrawn, Event, ReasoningDelta
from localseek.text.reasoning import CLOSE, Splitter
from localseek.text.stopping import StopFilter

FLUSH_SECONDS = 0.02  # deltas are grouped over this time
CLOSING = CLOSE.encode()


class TextStream:
    """Tokens to deltas: bytes to text, reasoning apart, stop strings, grouped over time."""

    def __init__(
        self, send: Callable[[Event], None], opened: bool, stops: tuple[str, ...],
        closed: bool = False, space: bool = False, shaped: bool = False, begun: bool = False,
    ) -> None:  # fmt: skip
        """Begin a reply; see `Splitter` for what is told of its prompt and its shape."""
        self._send = send
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._stops, self._stop = stops, StopFilter(stops)
        self._splitter = Splitter(opened, closed, space, shaped, begun)
        self._all_tokens = 0
        self._waiting: list[tuple[str, str]] = []
        self._tokens, self._flushed = 0, time.monotonic()
        self.reasoning_tokens = 0
        self._end = b""  # of the reasoning so far, where a closing tag may have begun

    @property
    def stopped(self) -> bool:
        """Tell whether a stop string has ended the text."""
        return self._stop.stopped

    @property
    def stops(self) -> bool:
        """Tell whether a stop string is watched for."""
        return self._stop.watches

    @property
    def reasoning(self) -> bool:
        """Tell whether the next text is taken for reasoning."""
        return self._splitter.kind == "reasoning"

    def feed(self, pieces: list[bytes]) -> None:
        """Take the bytes of new tokens."""
        if not self._splitter.decided:
            for piece in pieces:
                self._read([piece])
        else:
            self._read(pieces)
        now = time.monotonic()
        if now - self._flushed >= FLUSH_SECONDS:
            self._flush()
            self._flushed = now

    def _read(self, pieces: list[bytes]) -> None:
        if self.reasoning:
            self.reasoning_tokens += self._count_reasoning(pieces)
        self._tokens += len(pieces)
        self._all_tokens += len(pieces)
        text = self._decode(b"".join(pieces))
        if text:
            self._take(self._splitter.feed(text))

    def _count_reasoning(self, pieces: list[bytes]) -> int:
        """Give how many of these tokens come before the end of the closing tag."""
        before = len(self._end)
        text = self._end + b"".join(pieces)
        at = text.find(CLOSING)
        if at < 0:
            self._end = text[1 - len(CLOSING) :]
            return len(pieces)
        end = at + len(CLOSING) - before
        lengths = accumulate(map(len, pieces))
        return 1 + sum(length < end for length in lengths)

    def finish(self) -> None:
        """Give everything that was held back."""
        if not self.stopped:
            self._take(self._splitter.feed(self._decode(b"", True)))
            self._take(self._splitter.finish())
            self._waiting.append(("answer", self._stop.finish()))
        self._flush()

    def _take(self, parts: Iterable[tuple[str, str]]) -> None:
        """Queue new text; stop strings end the answer, never the reasoning."""
        for kind, text in parts:
            if kind == "withdrawn":
                self._withdraw()
                continue
            self._waiting.append((kind, self._stop.feed(text) if kind == "answer" else text))

    def _withdraw(self) -> None:
        """Say that all of the answer so far was reasoning."""
        self._waiting.append(("answer", self._stop.finish()))
        self._flush()
        self._stop = StopFilter(self._stops)
        self.reasoning_tokens = self._all_tokens
        self._send(AnswerWithdrawn())

    def _flush(self) -> None:
        for kind in ("reasoning", "answer"):
            text = "".join(text for of, text in self._waiting if of == kind)
            if text:
                make = ReasoningDelta if kind == "reasoning" else AnswerDelta
                self._send(make(text, self._tokens))
                self._tokens = 0
        self._waiting = []
