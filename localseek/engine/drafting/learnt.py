"""What drafting has learnt of a model: the part of it that holds for the next start, as plain data.

Takes a controller's times and acceptance, gives what JSON can hold, and back. Knows nothing about
files or models.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localseek.engine.drafting.acceptance import MIDDLES, Acceptance, Position
from localseek.engine.drafting.costs import GROWN, RECENT, Costs, Part
from localseek.engine.drafting.worth import Worth
from localseek.options import MAX_DEPTH

FORMAT = 1
LONGEST_SLEEP = 1024  # tokens; drafts that were hopeless are tried again sooner than in one process
REMEMBERED = 4.0  # trials, at most, that acceptance counts for: the next text may be another
SINGLE = ("first", "next", "catch_up", "plain", "change")  # parts of a step beside verifying
POSITION = ("trials", "accepted", "guess")


@dataclass(frozen=True)
class Learnt:
    """What a controller knows that holds for the next start, too.

    `ages`: tokens since each depth was timed. `purse`: seconds of the common clock that may be lost
    to tries. `compared`: the price of hidden rows is known. `naps`: in a row. `sleep_left`: tokens
    for which drafts are hopeless yet.
    """

    costs: Costs
    acceptance: Acceptance
    ages: tuple[int, ...]
    purse: float
    compared: bool
    naps: int
    sleep_left: int

    @property
    def drafts(self) -> bool:
        """Tell whether drafts were made at last, or would be."""
        worth = Worth()
        worth.look_up(self.costs)
        return not self.naps or worth.best(0, self.acceptance)[0] > 0


def to_plain(found: Mapping[int, Learnt]) -> dict[str, Any]:
    """Give what JSON can hold of what was learnt, by the number of sequences."""
    return {"format": FORMAT, "sequences": {str(n): _facts(one) for n, one in found.items()}}


def from_plain(data: Any) -> dict[int, Learnt]:
    """Give what was learnt by the number of sequences; nothing if these are no such facts."""
    try:
        if data["format"] != FORMAT:
            return {}
        return {int(count): _learnt(facts) for count, facts in data["sequences"].items()}
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError):
        return {}  # of another version, or damaged: learning starts over


def _facts(learnt: Learnt) -> dict[str, Any]:
    costs = learnt.costs
    return {
        "verify": [_part_facts(part, costs.speed) for part in costs.verify],
        **{name: _part_facts(getattr(costs, name), costs.speed) for name in SINGLE},
        "positions": [_position_facts(at) for at in learnt.acceptance.positions],
        "ages": learnt.ages,
        "purse": learnt.purse * costs.speed,
        "compared": learnt.compared,
        "naps": learnt.naps,
        "sleep_left": learnt.sleep_left,
    }


def _part_facts(part: Part, speed: float) -> list[Any]:
    recent = [seconds * speed for seconds in part.recent]
    return [part.seconds * speed, part.count, part.trust, recent]


def _position_facts(at: Position) -> dict[str, Any]:
    return {
        **{name: getattr(at, name) for name in POSITION},
        "shares": [share * at.unit for share in at.parts],
        "bins": [at.bin_trials, at.bin_accepted],
    }


def _learnt(facts: Any) -> Learnt:
    """Make a controller's knowledge; raises ValueError and its like for what cannot be one."""
    costs, acceptance = Costs(), Acceptance(MAX_DEPTH)
    _expect(len(facts["verify"]) == len(costs.verify))
    costs.verify = [_part(part) for part in facts["verify"]]
    for name in SINGLE:
        setattr(costs, name, _part(facts[name]))
    _expect(costs.decoding() > 0)
    _expect(len(facts["positions"]) == MAX_DEPTH)
    acceptance.positions = [_position(at) for at in facts["positions"]]
    ages = tuple(int(_number(age)) for age in facts["ages"])
    _expect(len(ages) == len(costs.verify))
    naps, sleep_left = (int(_number(facts[name])) for name in ("naps", "sleep_left"))
    return Learnt(
        costs, acceptance, ages, _number(facts["purse"]), bool(facts["compared"]), naps,
        min(sleep_left, LONGEST_SLEEP),
    )  # fmt: skip


def _part(facts: Any) -> Part:
    """Make a part whose times are those of the machine at its usual speed.

    What was measured often counts as just often enough to tell the machine's speed by it.
    """
    seconds, count, trust = (_number(value) for value in facts[:3])
    _expect(seconds > 0 or count == 0)
    part = Part(seconds, min(int(count), GROWN + 1), min(int(trust), GROWN + 1))
    part.recent.extend(_number(one) for one in facts[3])
    _expect(len(part.recent) == min(part.count, RECENT) and min(part.recent, default=1) > 0)
    return part


def _position(facts: Any) -> Position:
    at = Position()
    at.trials, at.accepted, at.guess = (_number(facts[name]) for name in POSITION)
    _expect(at.accepted <= at.trials and at.trials + at.guess > 0)
    if at.trials > REMEMBERED:
        at.accepted *= REMEMBERED / at.trials
        at.trials = REMEMBERED
    at.parts, at.unit = [_number(share) for share in facts["shares"]], 1.0
    at.bin_trials, at.bin_accepted = ([_number(one) for one in row] for row in facts["bins"])
    lists = (at.parts, at.bin_trials, at.bin_accepted)
    _expect(all(len(one) == len(MIDDLES) for one in lists))
    _expect(min(at.bin_trials) > 0)
    return at


def _number(value: Any) -> float:
    _expect(isinstance(value, int | float) and math.isfinite(value) and value >= 0)
    return float(value)


def _expect(fits: bool) -> None:
    if not fits:
        raise ValueError
