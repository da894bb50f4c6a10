"""A grammar over a model's tokens, through llguidance: what may come next, and what has come.

Takes a schema or a grammar as the user wrote it, follows an answer token by token. Special tokens
never fit, ending ones where the text may end. Knows nothing about where an answer begins, or how a
token is chosen.
"""

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from localseek.engine.llama import Model
from localseek.errors import EngineError, UsageError
from localseek.options import Sampling
from localseek.text.grammars import NO_WAY_ON, compiled, limits, readable
from localseek.text.reasoning import CLOSE, OPEN

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

SPECIAL = b"\xff"  # llguidance's mark: no text contains this byte
TAGS = (OPEN.encode(), CLOSE.encode())


class Guides:
    """Makes guides for one model, whose tokens are read when the first is made."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def guide(self, sampling: Sampling) -> "Guide":
        """Make a guide at the beginning of an answer; raises UsageError if llguidance refuses."""
        from llguidance import LLMatcher  # noqa: PLC0415  # few answers have a form to keep

        text = compiled(sampling.schema, sampling.grammar)
        matcher = LLMatcher(self._tokenizer, text, log_level=0, limits=limits())
        return Guide(matcher, self._model)

    @cached_property
    def _tokenizer(self) -> "LLTokenizer":
        from llguidance import LLTokenizer, TokenizerWrapper  # noqa: PLC0415

        # A token of our own ends a text there: models have any number of them, or none.
        return LLTokenizer(TokenizerWrapper(_Tokens(self._model)), eos_token=self._model.n_vocab)


class _Tokens:
    """A model's tokens in the form that llguidance asks for."""

    def __init__(self, model: Model) -> None:
        self._model = model
        hidden = model.stops | frozenset(model.unseen.tolist())
        pieces = [model.piece(token) for token in range(model.n_vocab)]
        self.tokens = [
            SPECIAL + b"%d" % token if token in hidden or piece in TAGS else piece
            for token, piece in enumerate(pieces)
        ]
        self.tokens.append(SPECIAL + b"end")
        self.eos_token_id, self.bos_token_id = model.n_vocab, None
        self.special_token_ids = [
            token for token, piece in enumerate(self.tokens) if piece.startswith(SPECIAL)
        ]

    def __call__(self, text: bytes) -> list[int]:
        """Tokenize a text as the model would; llguidance demands that this exists."""
        return self._model.tokenize(text.decode("utf-8", "replace"), parse_special=False)


class Guide:
    """A grammar at some place of an answer."""

    def __init__(self, matcher: "LLMatcher", model: Model) -> None:
        """Begin; raises UsageError when the grammar is wrong or too large."""
        self._beginning, self._model = matcher, model
        self._ends = np.array(sorted(model.ends), np.int64)
        self._raise_refusal(matcher)
        self._matcher = matcher.deep_copy()

    def allows(self, token: int) -> bool:
        """Tell whether a token may come next; an ending one where the text may end."""
        if token in self._model.ends:
            allowed = self._matcher.is_accepting()
        else:
            allowed = self._matcher.validate_tokens([token]) == 1
        self._raise_refusal(self._matcher)
        return allowed

    def mask(self) -> NDArray[np.bool_]:
        """Give which tokens may come next, [n_vocab]."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._raise_refusal(self._matcher)
        found = np.unpackbits(bits, bitorder="little")[: self._model.n_vocab].astype(np.bool_)
        found[self._ends] = self._matcher.is_accepting()
        return found

    def accept(self, token: int) -> None:
        """Go on over a token that is allowed and does not end the text."""
        if not self._matcher.consume_token(token):
            self._raise_refusal(self._matcher)
            raise EngineError(f"The grammar does not go on over token {token}.")

    def reset(self) -> None:
        """Go back to the beginning."""
        self._matcher = self._beginning.deep_copy()

    @staticmethod
    def _raise_refusal(matcher: "LLMatcher") -> None:
        if matcher.is_error():
            if NO_WAY_ON in matcher.get_error():
                raise UsageError(
                    "The schema or grammar has no way on from what was written.",
                    "Give each of its rules a way that ends.",
                )
            raise UsageError(
                f"The schema or grammar cannot be followed: {readable(matcher.get_error())}.",
                "Make it smaller or plainer.",
            )
