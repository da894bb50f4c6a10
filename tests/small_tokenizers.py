"""Small tokenizer files of DeepSeek's kinds, for tests: bytes, seven merges, special tokens.

Gives tokenizer.json and tokenizer_config.json as objects. Splitting patterns are the releases' own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "<｜User｜>{{ message['content'] }}{% elif message['role'] == 'assistant' %}"
    "<｜Assistant｜>{{ message['content'].split('</think>')[-1] }}<｜end▁of▁sentence｜>"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}"
)
_V3_PATTERNS = (
    "\\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
    "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*"
    "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
)

TOKENIZER_CONFIG: dict[str, Any] = {
    "add_bos_token": True, "add_eos_token": False, "tokenizer_class": "LlamaTokenizerFast",
    "bos_token": {"__type": "AddedToken", "content": "<｜begin▁of▁sentence｜>"},
    "eos_token": {"__type": "AddedToken", "content": "<｜end▁of▁sentence｜>"},
    "pad_token": {"__type": "AddedToken", "content": "<｜end▁of▁sentence｜>"},
    "clean_up_tokenization_spaces": False, "model_max_length": 256, "unk_token": None,
    "chat_template": CHAT_TEMPLATE,
}  # fmt: skip


def byte_tokens() -> list[str]:
    """Return the printable sign of every byte, as byte-level BPE writes it."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(moved)) for byte in range(256)]


MERGES = (("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("Ġ", "a"), ("o", "n"), ("e", "r"))


def lay_out_tokenizer(texts: list[str], added: list[tuple[str, bool]], pre: Any) -> dict[str, Any]:
    """Lay out a tokenizer.json; added tokens outside `texts` get the ids after them, in order."""
    vocab = {text: token for token, text in enumerate(texts)}
    ids = vocab | {
        text: len(texts) + n
        for n, text in enumerate(text for text, _ in added if text not in vocab)
    }
    entries = [
        {"id": ids[text], "content": text, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": special}
        for text, special in added
    ]  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": entries,
        "normalizer": {"type": "Sequence", "normalizers": []}, "pre_tokenizer": pre,
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False,
                           "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                    "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "vocab": vocab, "merges": [" ".join(pair) for pair in MERGES]},
    }  # fmt: skip


def split_step(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


BYTE_LEVEL = {
    "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False,
}  # fmt: skip


def v3_tokenizer() -> dict[str, Any]:
    """Return a small tokenizer.json of the V3 kind: BOS 0, EOS 1, pad 2, chat tokens last."""
    special = [BOS, EOS, "<｜▁pad▁｜>"]
    texts = [*special, *byte_tokens(), *("".join(pair) for pair in MERGES)]
    added = [(text, True) for text in special]
    added += [(text, False) for text in ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")]
    steps = [*map(split_step, _V3_PATTERNS), BYTE_LEVEL]
    return lay_out_tokenizer(texts, added, {"type": "Sequence", "pretokenizers": steps})


def v2_tokenizer() -> dict[str, Any]:
    """Return a small tokenizer.json of the V2 kind: BOS and EOS follow the vocabulary."""
    file = Path(__file__).parent / "converters" / "deepseek_llm_pre_tokenizer.json"
    texts = [*byte_tokens(), *("".join(pair) for pair in MERGES)]
    return lay_out_tokenizer(texts, [(BOS, True), (EOS, True)], json.loads(file.read_text()))
