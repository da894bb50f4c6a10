"""A sampler that holds the answer to a grammar and to biases, and leaves the reasoning free.

Follows the reply's bytes to know where the answer begins: after the first `</think>`, or at once
where nothing was opened. Takes rows of logits, gives tokens, one row after the other, so from the
same logits drafts give the same tokens here too. Knows nothing about how a grammar was made.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from localseek.engine.decoding.guide import Guide
from localseek.engine.llama import Candidates, Context, Floats, Model, Sampler
from localseek.engine.llama import SamplerOptions as Options
from localseek.errors import EngineError
from localseek.text.reasoning import CLOSE, OPEN, held_back

OPEN_BYTES, CLOSE_BYTES = OPEN.encode(), CLOSE.encode()
LIKELIEST = 64  # tokens that are tried first when the likeliest is refused
State = Literal["start", "reasoning", "answer"]


class AnswerSampler(Sampler):
    """Samples as `Sampler` does; in the answer only what the grammar allows, with biases added.

    A model that ends its reply within its reasoning is made to close it and answer.
    """

    def __init__(
        self, model: Model, options: Options, guide: Guide | None,
        biases: Mapping[int, float], *, opened: bool, may_open: bool,
        closing: str = f"\n{CLOSE}\n\n",
    ) -> None:  # fmt: skip
        """Begin a reply; `opened` when it begins inside `<think>`, `may_open` when the model may
        open it by itself; `closing` is how it ends a reasoning. `biases` are added to logits;
        minus infinity forbids a token.
        """
        super().__init__(model, options)
        self._guide = guide
        self._biases = np.array(list(biases.values()), np.float32)
        self._biased = np.array(list(biases), np.int64)
        self._candidates = Candidates(model.n_vocab)
        self._closing = closing
        self._state: State = "reasoning" if opened else "start" if may_open else "answer"
        self._text = b""  # of the state, as far as tags are concerned
        self._forced: deque[int] = deque()
        self._begun = False

    def sample(self, context: Context, row: int) -> int:
        """Choose and accept a token, as `Sampler` does; raises EngineError when none fits."""
        rows = row + 1 or 1
        self._begun = True
        token = self._choose(context.logits(rows)[rows - 1])
        super().accept([token])
        return token

    def accept(self, tokens: Sequence[int]) -> None:
        """Take tokens that were not sampled: the prompt's, or words that close the reasoning."""
        super().accept(tokens)
        if self._begun and CLOSE_BYTES in b"".join(map(self.model.piece, tokens)):
            self._answer_begins()

    def _choose(self, logits: Floats) -> int:
        if not self._forced and self._state == "reasoning":
            token = self._draw(logits)
            if token not in self.model.stops and self._reason(token):
                return token
            self._force(CLOSE)
        if not self._forced:
            return self._answer(logits)
        token = self._forced.popleft()
        if self._state == "reasoning":
            self._reason(token)
        elif self._state == "start":
            self._start(token)
        return token

    def _answer(self, logits: Floats) -> int:
        """Give a token of the answer, or of the tag that opens a reasoning before it."""
        token = self._draw(self._with_biases(logits))
        if self._guide is not None:
            if not self._guide.allows(token):
                if self._state == "start" and self._begins_tag(token):
                    self._start(token)
                    if self._state == "start":
                        self._force(OPEN)
                    return token
                token = self._draw_fitting(logits)
            if token not in self.model.ends:
                self._guide.accept(token)
        if self._state == "start":
            self._start(token)
        return token

    def _with_biases(self, logits: Floats) -> Floats:
        if not self._biases.size:
            return logits
        biased = logits.copy()
        np.add.at(biased, self._biased, self._biases)
        return biased

    def _draw(self, logits: Floats) -> int:
        if self.greedy:
            return int(logits.argmax())
        self._candidates.fill(logits)
        return self.draw(self._candidates)

    def _draw_fitting(self, logits: Floats) -> int:
        """Choose among the tokens that the grammar allows, as if there were no others."""
        assert self._guide is not None  # asked only where there is one
        biased = self._with_biases(logits)
        if self.greedy:
            for token in _descending(biased, LIKELIEST):
                if biased[token] > -np.inf and self._guide.allows(token):
                    return token
        allowed = self._guide.mask()
        chosen = np.where(allowed, biased, -np.inf).astype(np.float32)
        if np.isfinite(chosen).any():
            return self._draw(chosen)
        for token in self.model.ends:
            if allowed[token]:  # the text is whole, and all that could follow is forbidden
                return token
        raise EngineError(
            "No token of the model fits the grammar at this place of the answer.",
            "Look at the grammar, and at --logit-bias.",
        )

    def _force(self, tag: str) -> None:
        """Let the rest of a tag come next, whatever the model wants."""
        begun = held_back(self._text.decode("latin-1"), tag)
        lead, tail = self._closing.split(CLOSE) if tag == CLOSE else ("", "\n")
        if begun or not self._text:
            lead = ""
        self._forced.extend(self.model.tokenize(f"{lead}{tag[begun:]}{tail}"))

    def _reason(self, token: int) -> bool:
        """Go on within the reasoning; False if the token would begin the answer as well."""
        text = self._text + self.model.piece(token)
        before, tag, after = text.partition(CLOSE_BYTES)
        if tag and after.strip():
            return False
        self._text = text[-len(CLOSE) :]
        if tag:
            self._answer_begins()
        return True

    def _begins_tag(self, token: int) -> bool:
        """Tell whether a token begins, goes on with or ends a `<think>` before any other text."""
        text = (self._text + self.model.piece(token)).lstrip()
        return bool(text) and (text.startswith(OPEN_BYTES) or OPEN_BYTES.startswith(text))

    def _start(self, token: int) -> None:
        """Go on where `<think>` may still come."""
        text = (self._text + self.model.piece(token)).lstrip()
        if text.startswith(OPEN_BYTES):
            self._state, self._text = "reasoning", text[len(OPEN_BYTES) :]
        elif OPEN_BYTES.startswith(text):
            self._text = text
        else:
            self._state, self._text = "answer", b""

    def _answer_begins(self) -> None:
        self._state, self._text = "answer", b""
        self._forced.clear()
        if self._guide is not None:
            self._guide.reset()


def _descending(logits: Floats, count: int) -> list[int]:
    """Give the likeliest tokens, the first first."""
    count = min(count, len(logits))
    likeliest = np.argpartition(-logits, count - 1)[:count]
    return [int(token) for token in likeliest[np.argsort(-logits[likeliest], kind="stable")]]
