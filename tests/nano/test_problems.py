import random
import re

import pytest

from localseek.nano import problems, steps


def value(expression: str) -> int:
    plain = expression.replace("×", "*").replace("÷", "//")
    assert re.fullmatch(r"[0-9+*/() -]+", plain)
    return eval(plain)


@pytest.mark.parametrize("family", ["add", "add3", "subtract", "multiply", "divide", "expression"])
def test_answers_are_what_python_computes(family):
    rng = random.Random(family)
    for _ in range(500):
        problem = problems.make(rng, family, held_out=False)
        expression, result = problem.answer.split(" = ")
        assert value(expression) == int(result)


def test_remainders_are_what_python_computes():
    rng = random.Random(1)
    for _ in range(500):
        found = re.fullmatch(
            r"(\d+) ÷ (\d) = (\d+) remainder (\d)",
            problems.make(rng, "remainder", held_out=False).answer,
        )
        assert found
        a, b, quotient, rest = map(int, found.groups())
        assert divmod(a, b) == (quotient, rest)
        assert rest > 0


def test_comparisons_are_true():
    rng = random.Random(2)
    for _ in range(500):
        problem = problems.make(rng, "compare", held_out=False)
        a, b = map(int, problem.key.split("?"))
        answer = problem.answer
        if "equal" in answer:
            assert a == b
            continue
        left, word, right = re.search(r"(\d+) is (\w+) than (\d+)", answer).groups()
        truth = int(left) > int(right) if word in ("larger", "greater") else int(left) < int(right)
        assert truth and {int(left), int(right)} == {a, b}


def test_word_problems_count_the_things_that_were_asked_for():
    rng = random.Random(3)
    for _ in range(500):
        problem = problems.make(rng, "word", held_out=False)
        number, things = problem.answer.split(" ", 1)
        assert value(problem.key) == int(number)
        assert things in problem.question.lower()


def test_the_last_step_holds_the_result():
    rng = random.Random(4)
    for _ in range(500):
        a, b, digit = rng.randrange(10_000), rng.randrange(10_000), rng.randint(1, 9)
        assert steps.add_columns(a, b)[-1].endswith(f" {a + b}")
        ending = re.compile(rf"(^|[ =])-?{abs(a - b)}$")
        assert ending.search(steps.subtract(a, b)[-1])
        assert steps.divide(a, digit)[-1] == f"remainder {a % digit}"
        short = b % 100
        assert re.search(rf"[ =0]{a % 1000 * short}$", steps.multiply(a % 1000, short)[-1])


def test_training_and_evaluation_share_no_problem():
    rng = random.Random(5)
    train = {problems.make(rng, f, held_out=False).key for f in problems.FAMILIES * 300}
    held = {problems.make(rng, f, held_out=True).key for f in problems.FAMILIES * 50}
    assert not train & held
    assert len(held) > 300
