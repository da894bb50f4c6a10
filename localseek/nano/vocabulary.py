"""The embedded model's tokenizer: trained, and written in the released layout.

A byte-level BPE with DeepSeek-V2's pre-tokenizer, which splits numbers into single digits, and
DeepSeek's special tokens. Needs the `tokenizers` package: training only.
"""

import json
import random
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from localseek.nano import problems
from localseek.nano.prompts import (
    ASSISTANT,
    BOS,
    END_THINK,
    EOS,
    PAD,
    TEMPLATE,
    THINK,
    USER,
)  # fmt: skip

VOCAB_SIZE = 768
CONTROL = (BOS, EOS, PAD, USER, ASSISTANT)

# The five splits of DeepSeek LLM and V2; llama.cpp knows the sequence as `deepseek-llm`. The
# letter class is read from the file beside this one, since it is long.
LETTERS = (Path(__file__).parent / "letters.txt").read_text("utf-8").strip()
SPLITS = (
    "[\r\n]",
    rf"\s?[{LETTERS}]+",
    r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
    r"\s+$",
    "[一-龥ࠀ-一가-퟿]+",
)


def train(samples: int = 30_000, seed: int = 1) -> Tokenizer:
    """Train the tokenizer on problems of every family."""
    rng = random.Random(seed)
    families = list(problems.MAKERS)
    texts = []
    for _ in range(samples):
        made = problems.make(rng, rng.choice(families), held_out=False)
        texts += [made.question, f"{made.reasoning}\n", made.answer]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(split), "isolated") for split in SPLITS),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - 2,
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in CONTROL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tags = [AddedToken(text, special=False, normalized=False) for text in (THINK, END_THINK)]
    tokenizer.add_tokens(tags)
    if tokenizer.get_vocab_size() != VOCAB_SIZE:
        raise ValueError(f"trained {tokenizer.get_vocab_size()} tokens, not {VOCAB_SIZE}")
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
        "tokenizer_class": "LlamaTokenizerFast",
        "chat_template": TEMPLATE,
    }
    text = json.dumps(config, ensure_ascii=False, indent=2)
    (folder / "tokenizer_config.json").write_text(f"{text}\n", "utf-8")
