"""What drafting has learnt of a model: the part of it that holds for the next start, as plain data.

Takes a controller's times and acceptance, gives what JSON can hold, and back. Knows nothing about
files or models.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localseek.engine.drafting.acceptance import Acceptance, Position, rates
from localseek.engine.drafting.times import RECENT, Part, Times
from localseek.options import MAX_DEPTH

FORMAT = 2
REMEMBERED = 4.0  # trials, at most, that acceptance counts for: the next text may be another
SINGLE = ("first", "next", "plain")  # parts of a step beside verifying


@dataclass(frozen=True)
class Learnt:
    """What a controller knows that holds for the next start, too.

    `ages`: tokens since each depth was timed. `naps`: in a row. `sleep_left`: tokens for which
    drafts are hopeless yet. `compared`: the price of hidden rows is known.
    """

    times: Times
    acceptance: Acceptance
    ages: tuple[int, ...]
    naps: int
    sleep_left: int
    compared: bool

    @property
    def drafts(self) -> bool:
        """Tell whether drafts were made at last, or would be."""
        plain, *drafting = rates(self.times, self.acceptance)
        return not self.naps or max(drafting, default=0.0) > plain


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
    times = learnt.times
    return {
        "verify": [_part_facts(part, times.speed) for part in times.verify],
        **{name: _part_facts(getattr(times, name), times.speed) for name in SINGLE},
        "positions": [[at.trials, at.accepted] for at in learnt.acceptance.positions],
        "ages": learnt.ages,
        "naps": learnt.naps,
        "sleep_left": learnt.sleep_left,
        "compared": learnt.compared,
    }


def _part_facts(part: Part, speed: float) -> list[float]:
    return [part.seconds * speed, part.count]


def _learnt(facts: Any) -> Learnt:
    """Make a controller's knowledge; raises ValueError and its like for what cannot be one."""
    times, acceptance = Times(), Acceptance(MAX_DEPTH)
    _expect(len(facts["verify"]) == len(facts["ages"]) == len(times.verify))
    times.verify = [_part(part) for part in facts["verify"]]
    for name in SINGLE:
        setattr(times, name, _part(facts[name]))
    _expect(times.verify[0].count > 0 and len(facts["positions"]) == MAX_DEPTH)
    acceptance.positions = [_position(at) for at in facts["positions"]]
    naps, sleep_left, *ages = (
        int(_number(one)) for one in (facts["naps"], facts["sleep_left"], *facts["ages"])
    )
    return Learnt(times, acceptance, tuple(ages), naps, sleep_left, bool(facts["compared"]))


def _part(facts: Any) -> Part:
    seconds, count = (_number(value) for value in facts)
    _expect(seconds > 0 or count == 0)
    part = Part(seconds, min(int(count), RECENT))
    part.recent.extend([seconds] * part.count)
    return part


def _position(facts: Any) -> Position:
    at = Position()
    trials, accepted = (_number(value) for value in facts)
    _expect(accepted <= trials)
    at.trials = min(trials, REMEMBERED)
    at.accepted = accepted * at.trials / trials if trials else 0.0
    at.guesses = 0.0 if trials >= REMEMBERED else at.guesses
    return at


def _number(value: Any) -> float:
    _expect(isinstance(value, int | float) and math.isfinite(value) and value >= 0)
    return float(value)


def _expect(fits: bool) -> None:
    if not fits:
        raise ValueError
