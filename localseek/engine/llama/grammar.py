"""A grammar over tokens, through llama.cpp: what may come next, and what has come.

Takes GBNF that was checked (`localseek.grammar.check`): llama.cpp's reader and matcher may hang or
die on what was not. Knows nothing about where an answer begins.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import llama_cpp.llama_cpp as lib
import numpy as np

from localseek.engine.llama.candidates import Candidates
from localseek.errors import UsageError

if TYPE_CHECKING:
    from localseek.engine.llama import Model

# White space that may come before the first character: models put some after their reasoning.
START = "localseek-start ::= [ \\t\\n]{0,8} root\n"
MAX_SECONDS = 5.0  # of processor time for one token; sane grammars take milliseconds


class Grammar:
    """A grammar at some place of a text; raises UsageError when llama.cpp refuses it."""

    def __init__(self, model: "Model", text: str) -> None:
        self._one = Candidates(1)
        self._nothing = np.zeros(1, np.float32)
        grammar = (START + text).encode("utf-8", "replace")
        self.handle = lib.llama_sampler_init_grammar(model.vocab, grammar, b"localseek-start")
        if not self.handle:
            raise UsageError(
                "llama.cpp does not take the grammar.",
                "Does it name a <token> that this model does not have?",
            )

    def allows(self, token: int) -> bool:
        """Tell whether a token may come next; an ending one where the text may end."""
        self._one.fill(self._nothing, np.array([token], np.int32))
        _limited(lambda: lib.llama_sampler_apply(self.handle, self._one.pointer))
        return bool(self._one.logits[0] == 0.0)

    def mask(self, candidates: Candidates) -> None:
        """Set the logits of all candidates that may not come next to minus infinity."""
        _limited(lambda: lib.llama_sampler_apply(self.handle, candidates.pointer))

    def accept(self, token: int) -> None:
        """Go on over a token that is allowed and does not end the text."""
        _limited(lambda: lib.llama_sampler_accept(self.handle, token))

    def reset(self) -> None:
        """Go back to the beginning."""
        lib.llama_sampler_reset(self.handle)

    def close(self) -> None:
        """Free the grammar."""
        if self.handle:
            lib.llama_sampler_free(self.handle)
            self.handle = None


def _limited(work: Callable[[], None]) -> None:
    """Do some work; raises UsageError if it shows that the next might take for ever."""
    started = time.thread_time()
    work()
    if time.thread_time() - started > MAX_SECONDS:
        raise UsageError(
            "The grammar can be read in so many ways that a token takes too long to check.",
            "Let its alternatives begin differently.",
        )
