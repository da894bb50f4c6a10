"""The depth controller against simulated machines and texts; `best_rate` is computed, not run."""

from dataclasses import replace

import pytest
from fakes.drafting import (
    BARE,
    CODE,
    DENSE,
    FAR,
    FLAT,
    GPU_EXPERTS,
    MACHINES,
    NANO,
    NOTHING,
    PROSE,
    SPARSE,
    TEXTS,
    Simulation,
    Text,
    best_rate,
)  # fmt: skip

from localseek.engine.drafting.acceptance import Acceptance
from localseek.engine.drafting.depth import STALE, DepthController
from localseek.engine.drafting.draft_counter import DraftCounter
from localseek.engine.drafting.draft_policy import FixedDepth
from localseek.engine.drafting.shared_depth import SharedDepth
from localseek.engine.drafting.times import Times


def simulation(machine, seed=1, **changes):
    policy = DepthController(compares=machine.row > 0, settling=len(machine.changing))
    return Simulation(policy, replace(machine, **changes), seed)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("machine", MACHINES)
def test_the_rate_is_that_of_the_best_fixed_depth(machine, text):
    rates = []
    for seed in range(4):
        run = simulation(MACHINES[machine], seed)
        run.run(TEXTS[text], 500)
        rates.append(run.run(TEXTS[text], 1500))
    best = best_rate(MACHINES[machine], TEXTS[text])
    assert sum(rates) / len(rates) > 0.94 * best


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("machine", MACHINES)
def test_interruptions_of_other_programs_do_not_mislead_it(machine, text):
    noise = 0.1
    fair = best_rate(MACHINES[machine], TEXTS[text]) / (1 + noise + 0.02 * 2.5)
    rates = []
    for seed in range(4):
        run = simulation(MACHINES[machine], seed, noise=noise)
        run.run(TEXTS[text], 500)
        rates.append(run.run(TEXTS[text], 1500))
    assert sum(rates) / len(rates) > 0.94 * fair


@pytest.mark.parametrize("machine", [DENSE, SPARSE, GPU_EXPERTS])
def test_a_draft_layer_that_knows_when_it_is_wrong_beats_every_fixed_depth(machine):
    run, text = simulation(machine), replace(PROSE, sure=0.8)
    run.run(text, 500)
    assert run.run(text, 2000) > 1.02 * best_rate(machine, text)


def test_the_first_answer_already_gains():
    assert simulation(DENSE).run(CODE, 200) > 0.85 * best_rate(DENSE, CODE)
    assert simulation(SPARSE).run(NOTHING, 200) > 0.93


@pytest.mark.parametrize("machine", [SPARSE, GPU_EXPERTS])
def test_drafting_stops_within_64_tokens_after_the_text_has_turned(machine):
    run = simulation(machine)
    run.run(CODE, 1000)
    assert sum(run.depths[-50:]) > 40
    run.run(NOTHING, 64)
    before = len(run.depths)
    run.run(NOTHING, 128)
    assert sum(run.depths[before:]) < 16  # tries


@pytest.mark.parametrize("machine", [DENSE, SPARSE, GPU_EXPERTS])
def test_drafting_begins_again_within_64_tokens_after_the_text_has_turned(machine):
    run = simulation(machine)
    run.run(NOTHING, 1000)
    assert sum(run.depths[-100:]) < 10
    run.run(CODE, 64)
    assert run.run(CODE, 64) > 0.8 * best_rate(machine, CODE)


def test_a_machine_that_slows_down_as_a_whole_changes_nothing():
    run = simulation(DENSE)
    run.run(NANO, 500)
    run.slowness = 2.5
    run.run(NANO, 64)
    assert run.run(NANO, 1000) > 0.965 * best_rate(DENSE, NANO) / run.slowness


@pytest.mark.parametrize("interrupted", [0, 1, 3, 5, 6])
def test_a_first_try_that_was_interrupted_is_made_again(interrupted):
    run = simulation(DENSE)
    for number in range(8):
        run.slowness = 20.0 if interrupted <= number <= interrupted + 2 else 1.0
        run.step(CODE)
    run.slowness = 1.0
    run.run(CODE, 600)
    assert run.run(CODE, 1000) > 0.955 * best_rate(DENSE, CODE)


def real(machine):
    """A machine whose plain step takes 10 ms, so that thinking is not free beside it."""
    times = {"first": machine.first / 100, "next": machine.next / 100}
    verify = tuple(seconds / 100 for seconds in machine.verify)
    return replace(machine, verify=verify, catch_up=machine.catch_up / 100, **times)


def blind_share(run, text, tokens):
    """Run a text; give the share of its steps that looked at no probability."""
    seen = []
    learn = run.policy.learn
    run.policy.learn = lambda step: (seen.append(not run.policy.weighs), learn(step))
    run.run(text, tokens)
    run.policy.learn = learn
    return sum(seen) / len(seen)


def test_probabilities_are_seldom_looked_at_where_they_decide_nothing():
    run = simulation(real(SPARSE))
    run.run(CODE, 500)
    sure = replace(PROSE, sure=0.8)
    assert blind_share(run, replace(NANO, acceptance=(0.99, 0.01, 0.01, 0.01)), 2000) > 0.7
    run.run(sure, 300)
    assert blind_share(run, sure, 2000) < 0.2, "there they do"


def test_steps_without_thinking_end_when_drafts_are_refused():
    run = simulation(real(SPARSE))
    run.run(Text((0.99, 0.01, 0.01, 0.01)), 1000)
    run.run(NOTHING, 64)
    before = len(run.depths)
    run.run(NOTHING, 128)
    assert sum(run.depths[before:]) < 16  # tries


def test_where_drafts_can_never_pay_the_draft_layer_sleeps_through_many_answers():
    run = simulation(BARE)
    run.run(CODE, 300)
    assert run.policy.hopeless and run.policy.asleep
    before = len(run.depths)
    for _ in range(3):
        assert not run.policy.start()
        run.run(CODE, 300)
    assert sum(run.depths[before:]) == 0
    run.run(CODE, 900)
    assert 0 < sum(run.depths[before:]) < 16, "it was tried again"
    assert run.policy.hopeless and run.policy.asleep


def test_a_draft_layer_that_is_only_bad_knows_the_next_prompt_until_it_has_failed_often():
    run = simulation(FLAT)
    run.until_asleep(NOTHING)
    assert not run.policy.hopeless and run.policy.asleep
    assert run.policy.start() and not run.policy.asleep
    run.run(NOTHING, 3000)
    run.step(NOTHING)
    run.until_asleep(NOTHING)
    assert not run.policy.start()
    run.run(CODE, 200)
    assert run.policy.start(), "drafts pay again"


@pytest.mark.parametrize("text", TEXTS)
def test_drafts_that_win_only_over_steps_with_hidden_rows_are_not_made(text):
    run = simulation(FAR)
    run.run(TEXTS[text], 300)
    assert run.run(TEXTS[text], 3000) > 0.97 * best_rate(FAR, TEXTS[text])
    assert best_rate(FAR, PROSE) == 1.0


def test_a_fixed_depth_is_kept():
    run = Simulation(FixedDepth(3), DENSE)
    run.run(NOTHING, 50)
    assert set(run.depths) == {3}
    assert not FixedDepth(0).begin(1)


def test_acceptance_of_unknown_positions_is_guessed_from_those_before():
    acceptance = Acceptance(4)
    for _ in range(100):
        acceptance.at(1).learn(0.5, accepted=False)
    assert acceptance.mean(1) < 0.01
    assert acceptance.mean(2) == pytest.approx(acceptance.mean(1))
    for _ in range(20):
        acceptance.at(1).learn(0.99, accepted=True)
    assert acceptance.given(1, 0.99) > 0.95
    assert acceptance.given(1, 0.6) < 0.05


def test_tokens_of_a_step_are_those_accepted_in_a_row_and_one_more():
    acceptance = Acceptance(4)
    for turn in range(400):
        acceptance.at(1).count(turn % 2 == 0)
        acceptance.at(2).count(turn % 4 == 0)
    first, second = acceptance.mean(1), acceptance.mean(2)
    assert acceptance.tokens(0) == 1.0
    assert acceptance.tokens(2) == pytest.approx(1 + first + first * second)
    assert acceptance.tokens(3, certain_after=1) == pytest.approx(1 + 3 * first)


def sampled(part, times, seconds, count=20, in_use=True):
    for _ in range(count):
        times.learn(part, seconds, in_use)


def test_times_are_told_from_the_speed_of_the_whole_machine():
    times = Times()
    sampled(times.verify[0], times, 1.0)
    sampled(times.verify[1], times, 1.5, in_use=False)
    sampled(times.verify[0], times, 2.0)
    assert times.speed == pytest.approx(2.0, rel=0.15)
    assert times.verifying(1) / times.verifying(0) == pytest.approx(1.5, rel=0.15)
    assert times.verifying(3) > times.verifying(2) > times.verifying(1)  # extrapolated


def test_a_part_that_was_interrupted_while_it_was_young_is_soon_right():
    times = Times()
    for seconds in (9.0, 9.0, 1.0, 1.0):
        times.learn(times.verify[1], seconds, in_use=False)
    assert times.verify[1].seconds == pytest.approx(1.0)
    assert times.speed == 1.0


def test_tries_and_small_parts_do_not_move_the_clock_of_the_machine():
    times = Times()
    sampled(times.verify[0], times, 1.0)
    sampled(times.verify[1], times, 1.5, in_use=False)
    sampled(times.first, times, 0.1, in_use=False)
    sampled(times.verify[1], times, 6.0, in_use=False)
    sampled(times.first, times, 0.3, in_use=False)
    assert times.speed == pytest.approx(1.0, rel=0.02)
    assert times.verifying(1) == pytest.approx(6.0)
    assert times.step(2) == pytest.approx(times.verifying(2) + 0.6)


def test_a_greater_depth_never_costs_less():
    times = Times()
    for part, seconds in zip(times.verify, (1.0, 9.0, 1.2), strict=False):
        times.learn(part, seconds, in_use=False)
    assert times.verifying(1) == pytest.approx(times.verifying(2))


def test_drafts_are_counted_by_position():
    counter = DraftCounter()
    for drafted, accepted in ((0, 0), (2, 1), (2, 2), (1, 0)):
        counter.count(drafted, accepted)
    stats = counter.stats()
    assert (stats.steps, stats.drafted, stats.accepted) == (4, 5, 3)
    assert stats.accepted_by_position == [0.6667, 0.5]
    assert (stats.mean_depth, stats.tokens_per_step) == (1.25, 1.75)
    assert DraftCounter().stats() is None


def test_what_is_hopeless_for_fewer_sequences_is_not_tried_for_more():
    for first, then, known in ((1, 3, True), (3, 1, False)):
        shared = SharedDepth(DepthController)
        Simulation(shared.of(first), BARE).run(CODE, 300)
        assert shared.of(first).hopeless
        assert shared.of(then).hopeless is shared.of(then).asleep is known
        assert shared.of(then).acceptance is shared.of(first).acceptance
        Simulation(shared.of(then), BARE).run(CODE, 2 * STALE)
        assert shared.of(then).hopeless, "it was tried again, and is so still"
