"""How a tokenizer splits text before it merges → the name under which llama.cpp knows it.

Takes a parsed tokenizer.json, gives `tokenizer.ggml.pre`. The name comes from the patterns
themselves, whether whole words skip the merges, and whether BOS is added, never from the release:
llama.cpp's converter hashes the ids of a sample text and knows only the vocabularies it lists.
The runtime has the patterns built in by name (src/llama-vocab.cpp), and normalizes nothing.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from converters.errors import ConvertError
from converters.source.json_values import is_object, objects

# A pattern is given by its first characters, or as a hash where a character class of 600 characters
# follows.
_DEEPSEEK_LLM = (
    "[\r\n]",
    "sha256:38fd0b5eb7e66ecf",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    "\\s+$",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
    "digits:1",
)
_DEEPSEEK_CODER = (
    "[\r\n]",
    "\\s?\\p{L}+",
    "\\s?\\p{P}+",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
    "digits:1",
)
_DEEPSEEK_V3 = (
    "\\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
    "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*"
    "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
)
_ENGLISH = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
_REST = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
_QWEN2 = (_ENGLISH + "|\\p{N}" + _REST,)
_LLAMA3 = (_ENGLISH + "|\\p{N}{1,3}" + _REST,)
_LONG_PATTERN = 200  # characters from which a pattern is compared by its hash

_PLAIN_NAMES: dict[tuple[str, ...], str] = {
    _DEEPSEEK_LLM: "deepseek-llm",
    _DEEPSEEK_CODER: "deepseek-coder",
    _DEEPSEEK_V3: "deepseek-v3",
    _QWEN2: "qwen2",
    _LLAMA3: "smaug-bpe",  # Llama 3's patterns without its shortcut past the merges
}
_SHORTCUT_NAMES: dict[tuple[str, ...], str] = {_LLAMA3: "llama-bpe"}

_NFC_WARNING = (
    "the tokenizer composes accents that are characters of their own (NFC), llama.cpp does not: "
    "text with such accents gets other tokens than in the original"
)


def pre_tokenizer_name(tokenizer: dict[str, Any], adds_bos: bool, where: str) -> str:
    """Return llama.cpp's name for the splitting; raise ConvertError if it has none."""
    signature = _signature(tokenizer.get("pre_tokenizer"), where)
    model = tokenizer.get("model")
    shortcut = is_object(model) and bool(model.get("ignore_merges"))
    name = (_SHORTCUT_NAMES if shortcut else _PLAIN_NAMES).get(signature)
    if name is None:
        patterns = json.dumps([pattern[:40] for pattern in signature])
        how = " with ignore_merges" if shortcut else ""
        raise ConvertError(f"{where}: llama.cpp has no name for the pre-tokenizer {patterns}{how}")
    # One splitting, two names: R1-Distill-Qwen differs from Qwen2 by the BOS that it adds.
    return "deepseek-r1-qwen" if name == "qwen2" and adds_bos else name


def normalizer_warnings(normalizer: Any, where: str) -> tuple[str, ...]:
    """Return what the runtime will not do to a text; raise ConvertError where that matters more."""
    steps = [normalizer] if is_object(normalizer) else []
    if is_object(normalizer) and normalizer.get("type") == "Sequence":
        steps = objects(normalizer.get("normalizers"), f"{where}: normalizers")
    kinds = {str(step.get("type")) for step in steps}
    if unknown := sorted(kinds - {"NFC"}):
        raise ConvertError(f"{where}: llama.cpp has no normalizer {unknown[0]}")
    return (_NFC_WARNING,) if kinds else ()


def _signature(pre_tokenizer: Any, where: str) -> tuple[str, ...]:
    steps = []
    if is_object(pre_tokenizer):
        steps = objects(
            pre_tokenizer.get("pretokenizers", [pre_tokenizer]), f"{where}: pretokenizers"
        )
    signature: list[str] = []
    for step in steps:
        kind = step.get("type")
        if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
            pattern = step.get("pattern")
            signature.append(_short(str(pattern.get("Regex") if is_object(pattern) else pattern)))
        elif kind == "Digits" and step.get("individual_digits"):
            signature.append("digits:1")
        elif kind != "ByteLevel" or step.get("use_regex", True) or step.get("add_prefix_space"):
            signature.append(f"{kind}?")
    return tuple(signature)


def _short(pattern: str) -> str:
    if len(pattern) < _LONG_PATTERN:
        return pattern
    return "sha256:" + hashlib.sha256(pattern.encode()).hexdigest()[:16]
