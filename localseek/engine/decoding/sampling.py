"""From what a request says of sampling to a sampler for it.

Takes the request's values, else what the model's file recommends, else defaults. Knows nothing
about decoding.
"""

import math
import secrets
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from localseek.engine.decoding.constraint import AnswerSampler
from localseek.engine.decoding.guide import Guides
from localseek.engine.llama import Model, Sampler, SamplerOptions
from localseek.errors import UsageError
from localseek.options import Request, Sampling

DEFAULTS = {"temperature": 0.6, "top_p": 0.95}  # DeepSeek's own recommendation for R1
RECOMMENDED = {  # where a GGUF carries what its publisher recommends
    "temperature": "general.sampling.temp", "top_p": "general.sampling.top_p",
    "top_k": "general.sampling.top_k", "min_p": "general.sampling.min_p",
    "xtc_probability": "general.sampling.xtc_probability",
    "xtc_threshold": "general.sampling.xtc_threshold",
    "repeat_penalty": "general.sampling.penalty_repeat",
    "repeat_last_n": "general.sampling.penalty_last_n",
}  # fmt: skip


def make_sampler(
    model: Model, guides: Guides, request: Request, opened: bool, may_open: bool, closing: str
) -> Sampler:
    """Make a request's sampler; it must be closed. Raises UsageError for a wrong token or grammar.

    `opened` when the prompt ends inside `<think>`, `may_open` when the model may begin so itself;
    `closing` is how it ends a reasoning.
    """
    sampling = request.sampling
    options = sampler_options(model, sampling)
    biases = _biases(model, sampling.logit_bias)
    if not sampling.shaped and not biases:
        return Sampler(model, options)
    guide = guides.guide(sampling) if sampling.shaped else None
    return AnswerSampler(
        model, options, guide, biases, opened=opened, may_open=may_open, closing=closing
    )


def sampler_options(model: Model, sampling: Sampling) -> SamplerOptions:
    """Give the request's values, else the file's, else ours, else what does nothing."""
    chosen: dict[str, Any] = {}
    for field in fields(SamplerOptions):
        if field.name == "seed":
            continue
        value = getattr(sampling, field.name)
        if value is None and field.name in RECOMMENDED:
            value = _number(model.metadata(RECOMMENDED[field.name]))
        if value is None:
            value = DEFAULTS.get(field.name)
        if value is not None:
            chosen[field.name] = int(value) if isinstance(field.default, int) else float(value)
    seed = secrets.randbits(32) if sampling.seed is None else sampling.seed & 0xFFFFFFFF
    return SamplerOptions(seed=seed, **chosen)


def _number(text: str | None) -> float | None:
    """Read a number of the file's; None where there is none."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _biases(model: Model, given: Iterable[tuple[int | str, float | None]]) -> dict[int, float]:
    """Give biases by token number; minus infinity for never."""
    found: dict[int, float] = {}
    for named, bias in given:
        token = named if isinstance(named, int) else _only_token(model, named)
        if not 0 <= token < model.n_vocab:
            raise UsageError(
                f"There is no token {token}.", f"The model has 0 to {model.n_vocab - 1:,}."
            )
        found[token] = found.get(token, 0.0) + (-math.inf if bias is None else bias)
    return found


def _only_token(model: Model, text: str) -> int:
    """Give the token that a text is; raises UsageError unless it is one."""
    tokens = model.tokenize(text)
    if len(tokens) != 1:
        pieces = ", ".join(
            f"{model.piece(token).decode(errors='replace')!r} ({token})" for token in tokens[:8]
        )
        raise UsageError(
            f"{text!r} is {len(tokens)} tokens of this model: {pieces}.",
            "--logit-bias takes one token, by its text or its number.",
        )
    return tokens[0]
