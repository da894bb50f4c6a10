"""Sampled text keeps the target's own distribution, however many tokens are drafted."""

from collections import Counter

import pytest

from localseek.engine.decoding.decoder import Decoder, Outcome
from localseek.engine.drafting.depth import DepthController
from localseek.engine.drafting.draft import Drafter
from localseek.engine.drafting.draft_policy import FixedDepth
from localseek.engine.llama import Context, Model, Sampler, SamplerOptions
from localseek.nano import prompts

SEEDS = 400
TOKENS = 4
TEMPERATURE = 4.0  # nano is so sure that only then drafts are both accepted and rejected


@pytest.fixture
def models(nano_gguf):
    model = Model(str(nano_gguf), load_mtp=True)
    plain, target = Context(model, 256, 1), Context(model, 256, 1, hidden=True)
    drafter = Drafter(model, target, 1)
    yield Decoder(model, plain, None), Decoder(model, target, drafter)
    for closing in (drafter, plain, target, model):
        closing.close()


def texts(decoder: Decoder, seeds: range) -> list[tuple[int, ...]]:
    prompt = decoder.model.tokenize(prompts.prompt("348 + 257"))
    found = []
    for seed in seeds:
        sampler = Sampler(
            decoder.model, SamplerOptions(temperature=TEMPERATURE, top_k=20, seed=seed)
        )
        steps = decoder.generate(
            prompt, sampler, TOKENS, lambda: False, lambda _done, _cached: None, Outcome()
        )
        found.append(tuple(token for step in steps for token in step))
        sampler.close()
    return found


def chi_square(first: Counter, second: Counter) -> tuple[float, int]:
    """Give chi-square of two samples, rare values together, and its freedoms."""
    kinds = [kind for kind in first | second if first[kind] + second[kind] >= 10]
    pairs = [(first[kind], second[kind]) for kind in kinds]
    rest = (first.total() - sum(a for a, _ in pairs), second.total() - sum(b for _, b in pairs))
    pairs += [rest] if sum(rest) else []
    ratio = (second.total() / first.total()) ** 0.5
    return sum((a * ratio - b / ratio) ** 2 / (a + b) for a, b in pairs), len(pairs) - 1


def test_the_same_seeds_give_the_same_texts_at_every_depth(models):
    plain, drafting = models
    expected = texts(plain, range(24))
    assert len(set(expected)) > 8
    for policy in (FixedDepth(1), FixedDepth(4), DepthController()):
        drafting.policy = policy
        found = texts(drafting, range(24))
        # Rounding moves the edges between tokens a little: it may change one text, not several.
        assert sum(a == b for a, b in zip(found, expected, strict=True)) >= 22


def test_other_seeds_give_the_same_distribution(models):
    plain, drafting = models
    drafting.policy = FixedDepth(2)
    expected, drafted = texts(plain, range(SEEDS)), texts(drafting, range(SEEDS, 2 * SEEDS))
    for position in range(TOKENS):
        value, freedoms = chi_square(
            Counter(text[position] for text in expected if len(text) > position),
            Counter(text[position] for text in drafted if len(text) > position),
        )
        # One in a million by the Wilson-Hilferty approximation; seeds are fixed anyway.
        limit = freedoms * (1 - 2 / (9 * freedoms) + 4.75 * (2 / (9 * freedoms)) ** 0.5) ** 3
        assert freedoms > 2
        assert value < limit
