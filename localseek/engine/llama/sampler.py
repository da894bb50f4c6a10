"""How the next token is chosen: llama.cpp's sampler chain in its standard order and names.

Every token is sampled from the target's own logits, one output row after the other, so drafts
change neither the tokens nor the state of the chain's random generator.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import llama_cpp.llama_cpp as lib

if TYPE_CHECKING:
    from localseek.engine.llama import Context


class Sampler:
    """llama.cpp's chain in its standard order: penalties, top-k, top-p, min-p, temperature."""

    def __init__(
        self, n_vocab: int, temperature: float, top_k: int, top_p: float, min_p: float,
        repeat_penalty: float, seed: int,
    ) -> None:  # fmt: skip
        # Nothing but the likeliest token is asked for: no need to copy and sort all candidates.
        self.greedy = temperature <= 0 and repeat_penalty == 1.0
        parameters = lib.llama_sampler_chain_default_params()
        parameters.no_perf = True
        self.handle = lib.llama_sampler_chain_init(parameters)
        add = lib.llama_sampler_chain_add
        if repeat_penalty != 1.0:
            add(
                self.handle,
                lib.llama_sampler_init_penalties(n_vocab, 64, repeat_penalty, 0.0, 0.0),
            )
        if temperature <= 0:
            add(self.handle, lib.llama_sampler_init_greedy())
            return
        if top_k > 0:
            add(self.handle, lib.llama_sampler_init_top_k(top_k))
        if top_p < 1:
            add(self.handle, lib.llama_sampler_init_top_p(top_p, 1))
        if min_p > 0:
            add(self.handle, lib.llama_sampler_init_min_p(min_p, 1))
        add(self.handle, lib.llama_sampler_init_temp(temperature))
        add(self.handle, lib.llama_sampler_init_dist(seed))

    def sample(self, context: "Context", row: int) -> int:
        """Choose and accept a token from a row of the last decode: -1 is its only output row,
        others count from 0 where all rows are output rows.
        """
        if self.greedy:
            return context.likeliest(max(row, 0))
        return int(lib.llama_sampler_sample(self.handle, context.handle, row))

    def accept(self, tokens: Sequence[int]) -> None:
        """Take tokens of the prompt into account, for penalties."""
        for token in tokens:
            lib.llama_sampler_accept(self.handle, token)

    def close(self) -> None:
        """Free the chain."""
        if self.handle:
            lib.llama_sampler_free(self.handle)
            self.handle = None
