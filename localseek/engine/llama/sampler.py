"""How the next token is chosen: llama.cpp's sampler chain in its standard order and names.

Every token is sampled from the target's own logits, one output row after the other, so drafts
change neither the tokens nor the state of the chain's random generator.
"""

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import llama_cpp.llama_cpp as lib

if TYPE_CHECKING:
    from localseek.engine.llama import Context, Model
    from localseek.engine.llama.candidates import Candidates

BREAKERS = ("\n", ":", '"', "*")  # text over which DRY sees no repetition, as in llama.cpp


@dataclass(frozen=True, slots=True)
class SamplerOptions:
    """What the chain is made of, under llama.cpp's names; left out, a part does nothing."""

    temperature: float = 0.0  # 0: the likeliest token
    seed: int = 0
    repeat_last_n: int = 64
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64
    top_n_sigma: float = -1.0
    top_k: int = 0
    typical_p: float = 1.0
    top_p: float = 1.0
    min_p: float = 0.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1

    @property
    def remembers(self) -> int:
        """Give how many earlier tokens the penalties look at."""
        told = (self.repeat_penalty, self.frequency_penalty, self.presence_penalty)
        penalties = self.repeat_last_n if told != (1.0, 0.0, 0.0) else 0
        return max(penalties, self.dry_penalty_last_n if self.dry_multiplier else 0)


class Sampler:
    """llama.cpp's chain in its standard order: suppressed tokens, penalties, DRY, top-n-sigma,
    top-k, typical-p, top-p, min-p, XTC, temperature.
    """

    def __init__(self, model: "Model", options: SamplerOptions) -> None:
        self.model, self.options = model, options
        suppressed = _suppressed(model)
        # Nothing but the likeliest token is asked for: no need to copy and sort all candidates.
        self.greedy = options.temperature <= 0 and not (
            suppressed or options.remembers or options.typical_p < 1 or options.xtc_probability
        )
        parameters = lib.llama_sampler_chain_default_params()
        parameters.no_perf = True
        self.handle = lib.llama_sampler_chain_init(parameters)
        for sampler in _chain(model, options, suppressed):
            lib.llama_sampler_chain_add(self.handle, sampler)

    def sample(self, context: "Context", row: int) -> int:
        """Choose and accept a token from a row of the last decode: -1 is its only output row,
        others count from 0 where all rows are output rows.
        """
        if self.greedy:
            return context.likeliest(max(row, 0))
        return int(lib.llama_sampler_sample(self.handle, context.handle, row))

    def chooser(self, context: "Context") -> Callable[[], int]:
        """Make a function that samples from row 0 of a context's last decode, over and over."""
        simple = self.greedy and type(self).sample is Sampler.sample
        return context.first_likeliest() if simple else partial(self.sample, context, 0)

    def draw(self, candidates: "Candidates") -> int:
        """Choose from candidates, which are sorted and cut on the way; nothing is accepted."""
        lib.llama_sampler_apply(self.handle, candidates.pointer)
        return candidates.selected

    def accept(self, tokens: Sequence[int]) -> None:
        """Take tokens into account that were not sampled here, for penalties."""
        if not self.options.remembers:
            return
        for token in tokens[-self.options.remembers :]:
            lib.llama_sampler_accept(self.handle, token)

    def close(self) -> None:
        """Free the chain."""
        if self.handle:
            lib.llama_sampler_free(self.handle)
            self.handle = None


def _chain(model: "Model", options: SamplerOptions, suppressed: Sequence[int]) -> list[Any]:
    """Make the parts of a chain; what an option switches off is left out."""
    parts: list[Any] = []
    if suppressed:
        biases = [lib.llama_logit_bias(token, -math.inf) for token in suppressed]
        never = (lib.llama_logit_bias * len(biases))(*biases)
        parts.append(lib.llama_sampler_init_logit_bias(model.n_vocab, len(never), never))
    penalties = (options.repeat_penalty, options.frequency_penalty, options.presence_penalty)
    if penalties != (1.0, 0.0, 0.0) and options.repeat_last_n:
        parts.append(
            lib.llama_sampler_init_penalties(model.n_vocab, options.repeat_last_n, *penalties)
        )
    if options.dry_multiplier and options.dry_penalty_last_n:
        breakers = (ctypes.c_char_p * len(BREAKERS))(*(text.encode() for text in BREAKERS))
        parts.append(
            lib.llama_sampler_init_dry(
                model.vocab,
                options.dry_multiplier,
                options.dry_base,
                options.dry_allowed_length,
                options.dry_penalty_last_n,
                breakers,
                len(breakers),
            )  # fmt: skip
        )
    if options.top_n_sigma > 0:
        parts.append(lib.llama_sampler_init_top_n_sigma(options.top_n_sigma))
    if options.top_k > 0:
        parts.append(lib.llama_sampler_init_top_k(options.top_k))
    if options.typical_p < 1:
        parts.append(lib.llama_sampler_init_typical(options.typical_p, 0))
    if options.top_p < 1:
        parts.append(lib.llama_sampler_init_top_p(options.top_p, 0))
    if options.min_p > 0:
        parts.append(lib.llama_sampler_init_min_p(options.min_p, 0))
    if options.xtc_probability > 0:
        parts.append(
            lib.llama_sampler_init_xtc(
                options.xtc_probability, options.xtc_threshold, 0, options.seed
            )
        )
    if options.temperature <= 0:
        return [*parts, lib.llama_sampler_init_greedy()]
    parts.append(lib.llama_sampler_init_temp(options.temperature))
    return [*parts, lib.llama_sampler_init_dist(options.seed)]


def _suppressed(model: "Model") -> list[int]:
    """Give the tokens that the model's file says must never be generated."""
    count = ctypes.c_int32()
    found = lib.llama_vocab_get_suppress_tokens(model.vocab, ctypes.byref(count))
    return [int(found[index]) for index in range(count.value)] if found else []
