"""Top-1 agreement of two GGUF files of the embedded model, over the first one's own answers.

`python tests/reference/compare_types.py nano-F32.gguf nano-Q8_0.gguf [--count N]`: the first model
answers held-out problems greedily; both then read the whole texts, and every generated position
is compared. Run by hand.
"""

from __future__ import annotations

import argparse

from localseek.engine.decoder import Decoder, Outcome
from localseek.engine.llama import Batch, Context, Model, Sampler
from localseek.nano import prompts
from localseek.nano.evaluate import held_out

CONTEXT = 2048


def answers(path: str, prompts: list[str]) -> list[tuple[list[int], int]]:
    """Return the tokens of each prompt and its greedy answer, and how many are the prompt's."""
    model = Model(path, load_mtp=False)
    context = Context(model, CONTEXT, threads=1)
    decoder, found = Decoder(model, context, None, 0), []
    for prompt in prompts:
        tokens = model.tokenize(prompt)
        sampler = Sampler(model.n_vocab, 0.0, 0, 1.0, 0.0, 1.0, 0)
        steps = decoder.generate(
            tokens, sampler, 1000, lambda: False, lambda _done, _cached: None, Outcome()
        )
        found.append((tokens + [token for step in steps for token in step], len(tokens)))
        sampler.close()
    context.close()
    model.close()
    return found


def choices(path: str, texts: list[tuple[list[int], int]]) -> list[int]:
    """Return the likeliest token at every generated position of every text."""
    model = Model(path, load_mtp=False)
    context = Context(model, CONTEXT, threads=1, n_batch=1024)
    batch, found = Batch(1024), []
    for tokens, prompt in texts:
        context.trim(0)
        batch.fill(tokens, 0, outputs="all")
        context.decode(batch)
        found += [context.best(row) for row in range(prompt - 1, len(tokens))]
    context.close()
    model.close()
    return found


def main() -> None:
    """Read the command line, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--count", type=int, default=200)
    args = parser.parse_args()
    asked = [prompts.prompt(p.question) for p in held_out(args.count, "agreement")]
    texts = answers(args.first, asked)
    one, two = choices(args.first, texts), choices(args.second, texts)
    same = sum(a == b for a, b in zip(one, two, strict=True))
    print(f"top-1 agreement: {same} of {len(one)} positions, {same / len(one):.3%}")


if __name__ == "__main__":
    main()
