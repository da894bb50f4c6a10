"""A draft layer that sleeps and wakes in the middle of answers: the text never depends on it."""

import pytest

from localseek.engine.decoding.decoder import Decoder, Outcome
from localseek.engine.drafting.draft import Drafter
from localseek.engine.drafting.draft_policy import FixedDepth
from localseek.engine.llama import Context, Model, Sampler, SamplerOptions
from localseek.nano import prompts

from .naps import Alternating
from .several import Group, Task, alone

QUESTION = "What is 348 + 257?"


@pytest.fixture(scope="module")
def decoder(nano_gguf):
    model = Model(str(nano_gguf), load_mtp=True)
    target = Context(model, 1024, 1, hidden=True)
    decoder = Decoder(model, target, Drafter(model, target, 1))
    yield decoder
    for closing in (decoder.drafter, target, model):
        closing.close()


def answer(decoder: Decoder, prompt: list[int]) -> tuple[list[int], Outcome]:
    sampler, outcome = Sampler(decoder.model, SamplerOptions()), Outcome()
    steps = decoder.generate(prompt, sampler, 300, lambda: False, lambda *_: None, outcome)
    found = [token for step in steps for token in step]
    sampler.close()
    return found, outcome


@pytest.fixture(scope="module")
def turns(decoder):
    """Two prompts, the second one a turn later, and what is answered without drafts."""
    tokenize = decoder.model.tokenize
    first = tokenize(prompts.prompt(QUESTION))
    decoder.policy = FixedDepth(0)
    said = answer(decoder, first)[0]
    second = first + said + tokenize(prompts.prompt("62 * 17"))
    answers = [said, answer(decoder, second)[0]]
    decoder.forget()
    return [first, second], answers


@pytest.mark.parametrize(("depth", "drafting", "sleeping"), [(1, 1, 1), (2, 3, 5), (4, 7, 40)])
def test_naps_in_an_answer_change_no_token(decoder, turns, depth, drafting, sleeping):
    policy = decoder.policy = Alternating(depth, drafting, sleeping)
    for prompt, wanted in zip(*turns, strict=True):
        assert answer(decoder, prompt)[0] == wanted
    assert policy.naps > 2 and policy.compared == 2
    assert policy.accepted_after > 0 or drafting == 1, "drafts are right again after a nap"
    decoder.forget()


def test_a_layer_that_slept_through_the_end_of_an_answer_costs_one_token_of_the_next(
    decoder, turns
):
    (first, second), answers = turns
    decoder.policy = Alternating(1, 5, 1000)
    assert answer(decoder, first)[0] == answers[0]
    found, outcome = answer(decoder, second)
    assert found == answers[1]
    held = len(first) + len(answers[0])
    assert held - 1 <= outcome.cached <= held
    decoder.forget()


def test_naps_among_several_sequences_change_no_token(nano_gguf):
    model = Model(str(nano_gguf), load_mtp=True)
    tasks = [Task(question, 120) for question in ("981 * 87", "9163 / 7", "7 - 9000", "Hello")]
    wanted, policies = [alone(model, task) for task in tasks], []

    def make() -> Alternating:
        policies.append(Alternating(2, 4, 6))
        return policies[-1]

    with Group(model, 3, make) as group:
        for task in tasks:
            group.add(task)
            group.run(steps=7)
        group.run()
        assert [told.text for told in group.told] == wanted
    assert sum(policy.naps for policy in policies) > 5
    assert sum(policy.accepted_after for policy in policies) > 10
    model.close()
