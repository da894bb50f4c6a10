"""Agreement of GGUF files of the embedded model with a reference file, position by position.

`python tests/reference/compare_types.py nano-F32.gguf nano-Q8_0.gguf [MORE.gguf …] [--count N]`:
the first model answers held-out problems greedily; every model then reads the whole texts, and at
every generated position its distribution is compared with the first one's. Prints the share of
positions with the same likeliest token and the mean Kullback-Leibler divergence KL(first ‖ other)
in nats, over the whole vocabulary at temperature 1. Run by hand.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from localseek.bench.arithmetic import held_out
from localseek.engine.decoding.decoder import Decoder, Outcome
from localseek.engine.llama import Batch, Context, Model, Sampler, SamplerOptions
from localseek.nano import prompts

CONTEXT = 2048
Floats = npt.NDArray[np.float32]
Text = tuple[list[int], int]  # tokens of a prompt and its answer, and how many are the prompt's


@dataclass(frozen=True)
class Agreement:
    """How near a model is to the first one over all generated positions."""

    same: int  # positions with the same likeliest token
    positions: int
    kl_nats: float  # mean KL(first ‖ other)

    def __str__(self) -> str:
        share = self.same / self.positions
        return (
            f"top-1 agreement {self.same} of {self.positions} positions, {share:.3%}; "
            f"mean KL {self.kl_nats:.3e} nats"
        )


def answers(path: Path, asked: list[str]) -> list[Text]:
    """Return each prompt with its greedy answer."""
    model = Model(str(path), load_mtp=False)
    context = Context(model, CONTEXT, threads=1)
    decoder, found = Decoder(model, context, None), []
    for prompt in asked:
        tokens = model.tokenize(prompt)
        sampler = Sampler(model, SamplerOptions())
        steps = decoder.generate(
            tokens, sampler, 1000, lambda: False, lambda _done, _cached: None, Outcome()
        )
        found.append((tokens + [token for step in steps for token in step], len(tokens)))
        sampler.close()
    context.close()
    model.close()
    return found


def log_probabilities(path: Path, texts: list[Text]) -> Floats:
    """Return log p [positions, vocabulary] at every generated position of every text."""
    model = Model(str(path), load_mtp=False)
    context = Context(model, CONTEXT, threads=1, n_batch=1024)
    batch, found = Batch(1024), []
    for tokens, prompt in texts:
        context.trim(0)
        batch.fill(tokens, 0, outputs=len(tokens))
        context.decode(batch)
        rows = context.logits(len(tokens))[prompt - 1 :].copy()
        rows -= rows.max(axis=1, keepdims=True)
        found.append(rows - np.log(np.exp(rows).sum(axis=1, keepdims=True)))
    context.close()
    model.close()
    return np.concatenate(found).astype(np.float32)


def compare(first: Floats, other: Floats) -> Agreement:
    """Compare two models' log probabilities [positions, vocabulary]."""
    same = int((first.argmax(axis=1) == other.argmax(axis=1)).sum())
    divergence = (np.exp(first.astype(np.float64)) * (first - other)).sum(axis=1)
    return Agreement(same, len(first), float(divergence.mean()))


def texts_of(path: Path, count: int) -> list[Text]:
    """Return the texts that every comparison reads: `count` held-out problems, answered."""
    return answers(path, [prompts.prompt(p.question) for p in held_out(count, "agreement")])


def main() -> None:
    """Read the command line, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("others", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=200)
    args = parser.parse_args()
    texts = texts_of(args.first, args.count)
    first = log_probabilities(args.first, texts)
    for path in args.others:
        agreement = compare(first, log_probabilities(path, texts))
        print(f"{path.name}: {path.stat().st_size:,} bytes, {agreement}")


if __name__ == "__main__":
    main()
