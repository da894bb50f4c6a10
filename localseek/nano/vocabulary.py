"""The embedded model's tokenizer: trained, written in the released layout, and prompts in it.

A byte-level BPE with DeepSeek-V2's pre-tokenizer, which splits numbers into single digits, and
DeepSeek's special tokens. Needs the `tokenizers` package: training only.
"""

import json
import random
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from localseek.nano import problems

VOCAB_SIZE = 768
BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
USER, ASSISTANT, THINK, END_THINK = "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"
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
# As released with R1: old reasoning is left out, and the reply opens with <think>.
TEMPLATE = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}"
    "{% endif %}{% set ns = namespace(system='') %}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{% set ns.system = ns.system + ('\\n\\n' if ns.system"
    " else '') + message['content'] %}{% endif %}{% endfor %}{{ bos_token }}{{ ns.system }}"
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '<｜User｜>' + message['content'] }}{% elif message['role'] == 'assistant' %}"
    "{% set content = message['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] | trim %}{% endif %}"
    "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"
)


def prompt(question: str, past: tuple[tuple[str, str], ...] = (), system: str = "") -> str:
    """Render a conversation as TEMPLATE does, ready for the reasoning."""
    turns = "".join(f"{USER}{asked}{ASSISTANT}{answered}{EOS}" for asked, answered in past)
    return f"{BOS}{system}{turns}{USER}{question}{ASSISTANT}{THINK}\n"


def completion(problem: problems.Problem) -> str:
    """Render what the model should write after the prompt."""
    return f"{problem.reasoning}\n{END_THINK}\n\n{problem.answer}{EOS}"


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
