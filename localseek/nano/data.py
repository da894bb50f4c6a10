"""Training texts of the embedded model: problems as token ids, in groups of like length.

Takes a seed and the weight of each family, gives lists of samples. Needs `tokenizers`; knows
nothing about the model.
"""

import random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from localseek.nano import phrases, problems, prompts

Sample = tuple[list[int], int]  # token ids, and how many of them are the prompt
GROUP_TOKENS = 2048
POOL_STEPS = 8


def sample(rng: random.Random, tokenizer: Tokenizer, family: str, held_out: bool) -> Sample:
    """Make one training text: a problem, sometimes after earlier turns or a system prompt."""
    problem = problems.make(rng, family, held_out)
    past: list[tuple[str, str]] = []
    if rng.random() < 0.12:
        for _ in range(rng.randint(1, 3)):
            earlier = problems.make(rng, rng.choice(list(problems.MAKERS)), held_out=False)
            past.append((earlier.question, earlier.answer))
    system = rng.choice(phrases.SYSTEM) if rng.random() < 0.06 else ""
    prompt = tokenizer.encode(prompts.prompt(problem.question, tuple(past), system)).ids
    return prompt + tokenizer.encode(prompts.completion(problem)).ids, len(prompt)


def padded(samples: list[Sample]) -> tuple[Tensor, Tensor]:
    """Stack samples: tokens [n, length] and a mask of the tokens to be predicted."""
    length = max(len(ids) for ids, _ in samples)
    tokens = torch.zeros(len(samples), length, dtype=torch.long)
    mask = torch.zeros(len(samples), length, dtype=torch.bool)
    for row, (ids, prompt) in enumerate(samples):
        tokens[row, : len(ids)] = torch.tensor(ids)
        mask[row, prompt : len(ids)] = True
    return tokens, mask


def groups(
    step: int, tokenizer: Tokenizer, weights: dict[str, float], budget: int, ranks: int
) -> list[list[list[Sample]]]:
    """Give each rank's groups for a step; all steps of a pool come from one sorted draw."""
    rng = random.Random(f"train/{step // POOL_STEPS}")
    samples: list[Sample] = []
    left = budget * POOL_STEPS
    while left > 0:
        family = rng.choices(list(weights), list(weights.values()))[0]
        samples.append(sample(rng, tokenizer, family, held_out=False))
        left -= len(samples[-1][0])
    samples.sort(key=lambda pair: len(pair[0]))
    made: list[list[Sample]] = [[]]
    for one in samples:
        if made[-1] and len(one[0]) * (len(made[-1]) + 1) > GROUP_TOKENS:
            made.append([])
        made[-1].append(one)
    rng.shuffle(made)
    mine = made[step % POOL_STEPS :: POOL_STEPS]
    return [mine[rank::ranks] for rank in range(ranks)]
