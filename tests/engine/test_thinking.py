"""The budget for reasoning, with nano, whose reasoning for this product takes about 200 tokens."""

import pytest

from localseek import Engine
from localseek.engine.decoding.thinking import ENOUGH, Bounds
from localseek.events import Finished
from localseek.options import LoadOptions

from .conftest import ask, text_of

PRODUCT = "Calculate 981 * 87"
LAST_WORDS = ENOUGH.strip()


@pytest.mark.parametrize("budget", [0, 1, 20])
def test_reasoning_over_its_budget_is_closed_and_an_answer_follows(engine, budget):
    events = list(engine.generate(ask(PRODUCT, think_budget=budget, max_tokens=200)))
    reasoning, answer = text_of(events)
    assert reasoning.endswith(LAST_WORDS)
    assert answer.strip()
    stats = events[-1].stats
    assert budget <= stats.reasoning_tokens < budget + 60
    assert stats.reasoning_tokens < stats.generated_tokens <= 200


def test_the_text_before_the_closing_words_is_the_models_own(engine, clear):
    whole = text_of(list(engine.generate(ask(clear(PRODUCT)))))[0]
    cut = text_of(list(engine.generate(ask(PRODUCT, think_budget=40))))[0]
    own = cut.removesuffix(LAST_WORDS).rstrip()
    assert own and whole.startswith(own)


def test_reasoning_within_its_budget_is_left_alone(engine, clear):
    free = list(engine.generate(ask(clear(PRODUCT))))
    used = free[-1].stats.reasoning_tokens
    for budget in (used, 4000):
        bound = list(engine.generate(ask(PRODUCT, think_budget=budget)))
        assert text_of(bound) == text_of(free)
        assert bound[-1].stats.generated_tokens == free[-1].stats.generated_tokens


def test_a_small_limit_leaves_room_for_the_answer(engine):
    events = list(engine.generate(ask(PRODUCT, think_budget=4000, max_tokens=120)))
    reasoning, answer = text_of(events)
    assert reasoning.endswith(LAST_WORDS) and answer.strip()
    assert isinstance(events[-1], Finished)
    assert events[-1].stats.generated_tokens <= 120


def test_a_later_answer_is_not_touched_by_an_earlier_budget(engine):
    expected = text_of(list(engine.generate(ask(PRODUCT))))
    list(engine.generate(ask(PRODUCT, think_budget=5)))
    assert text_of(list(engine.generate(ask(PRODUCT)))) == expected


@pytest.mark.parametrize(
    ("budget", "limit", "most"),
    [(None, 100, None), (50, 4000, 50), (4000, 4000, 3724), (4000, 100, 55), (10, 26, 0)],
)
def test_the_answer_keeps_a_quarter_of_a_small_limit(budget, limit, most):
    assert Bounds(limit, budget).reasoning(closing=20) == most


def test_the_closing_words_are_as_short_as_the_limit_demands():
    closings = [[0] * 20, [0] * 3, [0]]
    lengths = [len(Bounds(limit, 9).closing(closings)) for limit in (100, 27, 26, 5, 3, 2, 1)]
    assert lengths == [20, 20, 20, 3, 1, 1, 0]
    assert Bounds(100, None).closing(closings) == []


@pytest.mark.parametrize("budget", [0, 1, 50])
def test_the_smallest_limits_are_kept_to_and_an_answer_begins_from_two_tokens_on(engine, budget):
    for limit in (*range(1, 11), 24):
        events = list(engine.generate(ask(PRODUCT, think_budget=budget, max_tokens=limit)))
        stats = events[-1].stats
        assert events[-1].reason == "length" and stats.generated_tokens == limit
        assert bool(text_of(events)[1]) == (limit > 1) or limit < 6  # white space comes first


@pytest.mark.parametrize("words", [200, 214, 216, 218, 220])
def test_reasoning_is_closed_before_the_end_of_the_context(nano_gguf, home, words):
    with Engine.of(LoadOptions(str(nano_gguf), ctx=256, threads=1)) as engine:
        engine.load()
        events = list(engine.generate(ask("5 " * (words // 2), think_budget=4000)))
        stats = events[-1].stats
        assert stats.prompt_tokens + stats.generated_tokens <= 256
        assert text_of(events)[1].strip()
