"""Tokens sampled with drafts come from the model's own distribution: many seeds, chi-square."""

import math
from collections import Counter
from collections.abc import Iterator

import pytest

from localseek.engine.decoding.decoder import Decoder, Outcome
from localseek.engine.drafting.draft import Drafter
from localseek.engine.drafting.draft_policy import DepthPolicy, FixedDepth, Step
from localseek.engine.llama import Context, Model, Sampler, SamplerOptions

SEEDS = 1200  # in each of two samples that are compared
TOKENS = 4
RARE = 10  # times in both samples together; rarer tokens are counted as one
FAR = 3.3  # standard deviations; one of 2,000 fair samples is as far off


class Choosy(FixedDepth):
    """Drafts three tokens and verifies those that the layer was sure of, as automatic depth may."""

    weighs = True

    def __init__(self, depth: int) -> None:
        super().__init__(depth)
        self.kept: Counter[int] = Counter()

    def keep(self, probabilities: list[float]) -> int:
        for count, probability in enumerate(probabilities):
            if probability < 0.9:
                return count
        return len(probabilities)

    def learn(self, step: Step) -> None:
        self.kept[step.verified] += 1


@pytest.fixture(scope="module")
def decoder(nano_gguf) -> Iterator[Decoder]:
    model = Model(str(nano_gguf), load_mtp=True)
    target = Context(model, 256, 1, hidden=True)
    drafter = Drafter(model, target, 1)
    yield Decoder(model, target, drafter)
    drafter.close()
    target.close()
    model.close()


def sampled(decoder: Decoder, policy: DepthPolicy, seeds: range, temperature: float = 3.0):
    """Count the tokens at each of the first positions over many seeds."""
    text = "<｜begin▁of▁sentence｜><｜User｜>What is 348 + 257?<｜Assistant｜><think>\n"
    prompt = decoder.model.tokenize(text)
    decoder.policy = policy
    found = [Counter() for _ in range(TOKENS)]
    accepted = 0
    for seed in seeds:
        sampler = Sampler(decoder.model, SamplerOptions(temperature, seed))
        outcome, tokens = Outcome(), []
        for group in decoder.generate(
            prompt, sampler, TOKENS, lambda: False, lambda *_: None, outcome
        ):
            tokens += group
        sampler.close()
        for at, token in enumerate([*tokens, *[-1] * TOKENS][:TOKENS]):  # -1: it has ended
            found[at][token] += 1
        accepted += outcome.drafts.tokens - outcome.drafts.steps
    return found, accepted


def deviation(one: Counter[int], other: Counter[int]) -> float:
    """Give how far chi-square of two samples is from what one source gives, in deviations.

    The cube root of chi-square over its degrees of freedom is nearly normal (Wilson and Hilferty,
    1931).
    """
    both = one + other
    common = [token for token, count in both.items() if count >= RARE]
    rows = [(one[token], other[token]) for token in common]
    rest = (one.total() - sum(a for a, _ in rows), other.total() - sum(b for _, b in rows))
    rows += [rest] if sum(rest) else []
    if len(rows) < 2:
        return 0.0
    share = one.total() / both.total()
    square = sum(
        (a - share * (a + b)) ** 2 / (share * (a + b))
        + (b - (1 - share) * (a + b)) ** 2 / ((1 - share) * (a + b))
        for a, b in rows
    )
    spread = 2 / (9 * (len(rows) - 1))
    return ((square / (len(rows) - 1)) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)


@pytest.fixture(scope="module")
def plain(decoder):
    found, _ = sampled(decoder, FixedDepth(0), range(SEEDS))
    assert len(found[2]) > 10, "there is something to tell apart"
    return found


@pytest.mark.parametrize("policy", [FixedDepth(2), Choosy(3)], ids=["depth 2", "choosy"])
def test_drafts_do_not_change_what_is_sampled(decoder, plain, policy):
    drafted, accepted = sampled(decoder, policy, range(SEEDS, 2 * SEEDS))
    assert accepted > SEEDS / 10, "drafts had a part in it"
    for one, other in zip(plain, drafted, strict=True):
        assert deviation(one, other) < FAR
    if isinstance(policy, Choosy):
        assert min(policy.kept[count] for count in range(3)) > 0, "drafts were cut short"


def test_another_distribution_would_be_noticed(decoder, plain):
    other, _ = sampled(decoder, FixedDepth(2), range(SEEDS, 2 * SEEDS), temperature=2.5)
    assert max(deviation(a, b) for a, b in zip(plain, other, strict=True)) > FAR


def test_the_same_seeds_give_the_same_tokens_with_drafts(decoder):
    seeds = range(40)
    found, drafted = (sampled(decoder, FixedDepth(depth), seeds)[0] for depth in (0, 2))
    for one, other in zip(found, drafted, strict=True):
        assert (one - other).total() <= 2  # rounding moves the edges between tokens a little
