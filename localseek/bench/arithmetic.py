"""Ask the embedded model held-out problems and count exact answers, through the real engine.

`python -m localseek.bench.arithmetic MODEL.gguf` prints a table by family, the acceptance of
drafts, and some wrong answers in full. An answer is right only if every character of it is.
"""

import argparse
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from localseek import Engine
from localseek.events import Failed
from localseek.nano import problems
from localseek.options import LoadOptions, Request, Sampling
from localseek.text.conversation import Reply, Transcript


@dataclass
class Score:
    """What came of an evaluation: right and asked by family, drafts, and the misses."""

    right: dict[str, int] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    drafted: int = 0
    accepted: int = 0
    tokens: int = 0
    misses: list[tuple[problems.Problem, Reply]] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Give the share of exact answers, 0..1."""
        return sum(self.right.values()) / max(1, sum(self.asked.values()))

    @property
    def acceptance(self) -> float:
        """Give the share of first drafts that were accepted, 0..1 (NaN when none was made)."""
        return self.accepted / self.drafted if self.drafted else float("nan")

    def family(self, name: str) -> float:
        """Give one family's share of exact answers, 0..1."""
        return self.right[name] / self.asked[name]


def held_out(count: int, seed: str) -> list[problems.Problem]:
    """Give `count` held-out problems, spread evenly over the families."""
    rng = random.Random(seed)
    names = [problems.FAMILIES[i % len(problems.FAMILIES)] for i in range(count)]
    return [problems.make(rng, name, held_out=True) for name in names]


def evaluate(engine: Engine, asked: list[problems.Problem], max_tokens: int = 1000) -> Score:
    """Ask every problem at temperature 0; raises RuntimeError when the engine fails."""
    score = Score()
    for problem in asked:
        messages = Transcript().messages(problem.question)
        request = Request(messages, Sampling(temperature=0.0), max_tokens=max_tokens)
        reply = Reply()
        for event in engine.generate(request):
            if isinstance(event, Failed):
                raise RuntimeError(event.message)
            reply = reply.after(event)
        right = reply.answer == problem.answer
        score.asked[problem.family] = score.asked.get(problem.family, 0) + 1
        score.right[problem.family] = score.right.get(problem.family, 0) + right
        if not right:
            score.misses.append((problem, reply))
        if reply.stats:
            score.tokens += reply.stats.generated_tokens
            draft = reply.stats.draft
            if draft and draft.accepted_by_position:
                score.drafted += draft.steps
                score.accepted += round(draft.accepted_by_position[0] * draft.steps)
    return score


def main() -> int:
    """Read the command line, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", default="evaluation")
    parser.add_argument("--mtp", choices=("auto", "off"), default="auto")
    parser.add_argument("--misses", type=int, default=5, help="wrong answers to print in full")
    args = parser.parse_args()
    mtp: Literal["auto", "off"] = args.mtp
    with Engine.of(LoadOptions(str(args.model), mtp=mtp)) as engine:
        engine.load()
        score = evaluate(engine, held_out(args.count, args.seed))
    for family, asked in score.asked.items():
        print(f"{family:12} {score.right[family]:4} of {asked:4}  {score.family(family):7.1%}")
    total = sum(score.asked.values())
    print(f"{'all':12} {sum(score.right.values()):4} of {total:4}  {score.share:7.1%}")
    if score.drafted:
        print(f"first drafts accepted: {score.acceptance:.1%} of {score.drafted}")
    for problem, reply in score.misses[: args.misses]:
        print(f"\n{problem.question!r}: {reply.answer!r}, expected {problem.answer!r}")
        print(reply.reasoning)
    return 0


if __name__ == "__main__":
    sys.exit(main())
