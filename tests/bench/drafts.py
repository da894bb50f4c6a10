"""Time decoding with and without drafts: plain, each fixed depth, automatic; in turns.

Takes GGUF files with an MTP layer (trunks.py makes some), prints tokens a second of plain decoding
and the others as ratios to it: medians of the ratios of answers to one question in turns. Times are
those of the wall clock, or with `--cpu` those that the process computed: on a machine with other
work to do, only these can be compared. Run by hand:

    python tests/bench/drafts.py --threads 2 FOLDER/*.gguf
"""

import argparse
import statistics
import time
from pathlib import Path

from localseek.engine.decoding.decoder import Decoder, Outcome
from localseek.engine.drafting.depth import DepthController
from localseek.engine.drafting.draft import Drafter
from localseek.engine.drafting.draft_policy import DepthPolicy, FixedDepth
from localseek.engine.llama import Context, Model, Sampler, SamplerOptions
from localseek.nano import prompts

QUESTIONS = ("981 * 87", "4077 + 3098 + 617", "(512 - 77) * 6", "9163 / 7", "347 * 28")
CONTEXT, LIMIT, PROMPT = 1024, 400, 900  # tokens


class Bench:
    """One file, loaded without and with its MTP layer."""

    def __init__(self, path: Path, threads: int, clock: str) -> None:
        self.clock = time.process_time if clock == "cpu" else time.perf_counter
        plain, drafting = Model(str(path), load_mtp=False), Model(str(path), load_mtp=True)
        self.plain = Decoder(plain, Context(plain, CONTEXT, threads), None)
        target = Context(drafting, CONTEXT, threads, hidden=True)
        self.drafting = Decoder(drafting, target, Drafter(drafting, target, threads))
        self.policies: dict[str, DepthPolicy | None] = {"plain": None, "auto": DepthController()}
        self.policies |= {str(depth): FixedDepth(depth) for depth in range(1, 5)}
        self.outcomes: dict[str, Outcome] = {}

    def run(self, name: str, question: str) -> tuple[float, list[int]]:
        """Answer a question; give decoded tokens a second and the tokens."""
        policy = self.policies[name]
        decoder = self.drafting if policy else self.plain
        decoder.policy = policy or FixedDepth(0)
        prompt = decoder.model.tokenize(prompts.prompt(question))
        sampler = Sampler(decoder.model, SamplerOptions())
        outcome = self.outcomes[name] = Outcome()
        steps = decoder.generate(
            prompt, sampler, LIMIT, lambda: False, lambda _done, _cached: None, outcome
        )
        found = list(next(steps))
        started = self.clock()
        for step in steps:
            found += step
        seconds = self.clock() - started
        sampler.close()
        return (len(found) - 1) / seconds, found

    def read(self, name: str, round_number: int) -> float:
        """Read a long prompt that nothing of is cached; give tokens a second."""
        policy = self.policies[name]
        decoder = self.drafting if policy else self.plain
        decoder.policy = policy or FixedDepth(0)
        text = f"{round_number}" + " 12 + 34 = 46," * PROMPT
        prompt = decoder.model.tokenize(text)[:PROMPT]
        sampler = Sampler(decoder.model, SamplerOptions())
        outcome, started = Outcome(), self.clock()
        next(decoder.generate(prompt, sampler, 1, lambda: False, lambda *_: None, outcome))
        sampler.close()
        return outcome.read / (self.clock() - started)


def ratio(some: list[float], others: list[float]) -> float:
    """Give the median of the ratios of figures that were taken in turns."""
    return statistics.median(a / b for a, b in zip(some, others, strict=True))


def main() -> None:
    """Time each file and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=len(QUESTIONS))
    parser.add_argument("--cpu", action="store_const", const="cpu", default="wall", dest="clock")
    arguments = parser.parse_args()
    for path in arguments.files:
        bench = Bench(path, arguments.threads, arguments.clock)
        speeds: dict[str, list[float]] = {name: [] for name in bench.policies}
        reading: dict[str, list[float]] = {"plain": [], "1": []}
        for number in range(arguments.rounds):
            for question in QUESTIONS[: arguments.questions]:
                texts = set()
                for name in bench.policies:
                    speed, tokens = bench.run(name, question)
                    speeds[name].append(speed)
                    texts.add(tuple(tokens))
                assert len(texts) == 1, "the texts differ"
            for name, found in reading.items():
                found.append(bench.read(name, number))
        ratios = {name: ratio(found, speeds["plain"]) for name, found in speeds.items()}
        best = max((name for name in ratios if name != "auto"), key=lambda name: ratios[name])
        print(f"{path.stem}: plain {statistics.median(speeds['plain']):.0f} tok/s, " + ", ".join(
            f"{name} {ratios[name]:.2f}" for name in sorted(ratios) if name != "plain"
        ) + f"; auto {ratio(speeds['auto'], speeds[best]):.3f} of {best}")  # fmt: skip
        with_mtp = statistics.median(reading["1"]) / statistics.median(reading["plain"])
        print(f"  prompts at {with_mtp:.2f} of {statistics.median(reading['plain']):.0f} tok/s")
        for name, outcome in bench.outcomes.items():
            if stats := outcome.drafts.stats():
                print(f"  {name}: {stats.accepted_by_position}, mean depth {stats.mean_depth}")


if __name__ == "__main__":
    main()
