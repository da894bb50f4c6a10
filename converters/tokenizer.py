"""Tokenizer files of a checkpoint → the `tokenizer.*` metadata of a GGUF file.

Takes tokenizer.json (byte-level BPE) and tokenizer_config.json, gives tokens, types, merges,
special ids, the pre-tokenizer's name and the chat template. The name comes from the splitting
patterns themselves, and BOS is added or not as Hugging Face does it: llama.cpp's converter gets
both wrong for some DeepSeek files (it hashes token ids, and trusts a ByteLevel post-processor).
Does not know the model.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, TypeGuard

from gguf import TokenType

from converters.checkpoint import read_json
from converters.errors import ConvertError
from converters.layout import Value

# Splitting patterns → the name under which llama.cpp knows them (src/llama-vocab.cpp). A pattern
# is given by its first characters, or as a hash where a character class of 600 characters follows.
_DEEPSEEK_LLM = (
    "[\r\n]",
    "sha256:38fd0b5eb7e66ecf",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    "\\s+$",
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
_PRE_NAMES = {_DEEPSEEK_LLM: "deepseek-llm", _DEEPSEEK_V3: "deepseek-v3"}
_LONG_PATTERN = 200  # characters from which a pattern is compared by its hash

# Special tokens: key in tokenizer_config.json and name in GGUF.
_SPECIAL = (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))


def tokenizer_metadata(folder: Path, n_vocab: int, config: dict[str, Any]) -> dict[str, Value]:
    """Read a folder's tokenizer files; `config` is config.json, asked where they are silent.

    Raises ConvertError for a tokenizer other than byte-level BPE, patterns that llama.cpp does
    not know, or more tokens than the model has embeddings.
    """
    tokenizer = read_json(folder / "tokenizer.json")
    settings: dict[str, Any] = {}
    if (folder / "tokenizer_config.json").is_file():
        settings = read_json(folder / "tokenizer_config.json")
    where = str(folder / "tokenizer.json")
    model = tokenizer.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        raise ConvertError(f"{where} holds no byte-level BPE, the only kind that is supported")
    added = _added_tokens(tokenizer, where)
    tokens, types = _token_list(model, added, n_vocab, where)
    metadata: dict[str, Value] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre_tokenizer_name(tokenizer.get("pre_tokenizer"), where),
        "tokenizer.ggml.tokens": tuple(tokens),
        "tokenizer.ggml.token_type": tuple(types),
        "tokenizer.ggml.merges": tuple(_merges(model, where)),
    }
    ids = {text: token for token, text in enumerate(tokens)}
    for key, name in _SPECIAL:
        token = _special_id(key, settings, config, ids)
        if token is not None and token < n_vocab:
            metadata[f"tokenizer.ggml.{name}_token_id"] = token
    metadata["tokenizer.ggml.add_bos_token"] = _adds("bos", tokenizer, settings, where)
    metadata["tokenizer.ggml.add_eos_token"] = _adds("eos", tokenizer, settings, where)
    return metadata | _chat_templates(folder, settings)


def pre_tokenizer_name(pre_tokenizer: Any, where: str) -> str:
    """Return llama.cpp's name for the splitting patterns."""
    steps = []
    if isinstance(pre_tokenizer, dict):
        steps = _objects(
            pre_tokenizer.get("pretokenizers", [pre_tokenizer]), f"{where}: pretokenizers"
        )
    signature: list[str] = []
    for step in steps:
        kind = step.get("type")
        if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
            pattern = step.get("pattern")
            signature.append(_short(str(pattern.get("Regex") if _is_object(pattern) else pattern)))
        elif kind == "Digits" and step.get("individual_digits"):
            signature.append("digits:1")
        elif kind != "ByteLevel" or step.get("use_regex", True) or step.get("add_prefix_space"):
            signature.append(f"{kind}?")
    name = _PRE_NAMES.get(tuple(signature))
    if name is None:
        patterns = json.dumps([pattern[:40] for pattern in signature])
        raise ConvertError(f"{where}: llama.cpp has no name for the pre-tokenizer {patterns}")
    return name


def _short(pattern: str) -> str:
    if len(pattern) < _LONG_PATTERN:
        return pattern
    return "sha256:" + hashlib.sha256(pattern.encode()).hexdigest()[:16]


def _added_tokens(tokenizer: dict[str, Any], where: str) -> dict[int, dict[str, Any]]:
    added: dict[int, dict[str, Any]] = {}
    for entry in _objects(tokenizer.get("added_tokens"), f"{where}: added_tokens"):
        token, text = entry.get("id"), entry.get("content")
        if type(token) is not int or token < 0 or not isinstance(text, str):
            raise ConvertError(f"{where} has a broken added token: {entry!r}")
        added[token] = entry
    return added


def _token_list(
    model: dict[str, Any], added: dict[int, dict[str, Any]], n_vocab: int, where: str
) -> tuple[list[str], list[int]]:
    """Lay the vocabulary out by id, gaps filled with `[PADn]` up to the embedding's rows."""
    vocab = model.get("vocab")
    if not isinstance(vocab, dict):
        raise ConvertError(f"{where} holds no vocabulary")
    tokens = [f"[PAD{token}]" for token in range(n_vocab)]
    types = [int(TokenType.UNUSED)] * n_vocab
    for text, token in vocab.items():
        if type(token) is not int or not 0 <= token < n_vocab:
            raise ConvertError(f"{where}: token {text!r} has the id {token!r}, of {n_vocab}")
        tokens[token], types[token] = text, int(TokenType.NORMAL)
    for token, entry in added.items():
        if token >= n_vocab:
            raise ConvertError(
                f"{where}: token {entry['content']!r} has the id {token}, of {n_vocab}"
            )
        text = entry["content"]
        control = bool(entry.get("special")) or _looks_special(text)
        types[token] = int(TokenType.CONTROL if control else TokenType.USER_DEFINED)
        # llama.cpp matches user-defined tokens in the plain text, where ▁ stands for a space.
        tokens[token] = text if control else text.replace("▁", " ")
    _refuse_repeated(tokens, where)
    return tokens, types


def _refuse_repeated(tokens: list[str], where: str) -> None:
    """Raise ConvertError for a text that two ids share: llama.cpp would abort on the file."""
    ids: dict[str, int] = {}
    for token, text in enumerate(tokens):
        # llama.cpp reads texts up to a zero byte, and makes up different ones for empty texts.
        seen = text.partition("\0")[0] or f"[EMPTY_{token}]"
        first = ids.setdefault(seen, token)
        if first != token:
            raise ConvertError(
                f"{where}: the tokens {first} and {token} have the same text {seen!r}"
            )


def _looks_special(text: str) -> bool:
    """Say whether a token is a control token by its looks, as DeepSeek leaves some unmarked."""
    pairs = (("<|", "|>"), ("<｜", "｜>"))
    return text == "<pad>" or any(text.startswith(a) and text.endswith(b) for a, b in pairs)


def _merges(model: dict[str, Any], where: str) -> list[str]:
    """Return merges as "left right"; a space inside a part is written as its byte-level sign."""
    merges: list[str] = []
    stored = model.get("merges") or []
    if not isinstance(stored, list):
        raise ConvertError(f"{where}: merges is no list: download it again")
    for merge in stored:
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if (
            not isinstance(parts, list)
            or len(parts) != 2
            or not all(isinstance(part, str) for part in parts)
        ):
            raise ConvertError(f"{where} has a broken merge: {merge!r}")
        merges.append(" ".join(part.replace(" ", "Ġ") for part in parts))
    return merges


def _is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _objects(value: Any, what: str) -> list[dict[str, Any]]:
    """Return a list of JSON objects, empty for null; raise ConvertError for anything else."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(map(_is_object, value)):
        raise ConvertError(f"{what} is no list of objects: download it again")
    return value


def _content(entry: Any) -> str | None:
    if isinstance(entry, dict):
        entry = entry.get("content")
    return entry if isinstance(entry, str) else None


def _special_id(
    key: str, settings: dict[str, Any], config: dict[str, Any], ids: dict[str, int]
) -> int | None:
    """Find a special token by its text in tokenizer_config.json, then by id in config.json."""
    text = _content(settings.get(f"{key}_token"))
    if text is not None and text in ids:
        return ids[text]
    token = config.get(f"{key}_token_id")
    if isinstance(token, list) and token:
        token = token[0]
    return token if type(token) is int and token >= 0 else None


def _adds(key: str, tokenizer: dict[str, Any], settings: dict[str, Any], where: str) -> bool:
    """Say whether Hugging Face puts the token around a text.

    The Llama classes build the post-processor anew from add_bos_token (default true) and
    add_eos_token (default false); other classes keep the one in tokenizer.json.
    """
    explicit = settings.get(f"add_{key}_token")
    if isinstance(explicit, bool):
        return explicit
    if str(settings.get("tokenizer_class", "")).startswith("LlamaTokenizer"):
        return key == "bos"
    text = _content(settings.get(f"{key}_token"))
    post = tokenizer.get("post_processor") or {}
    if not _is_object(post):
        raise ConvertError(f"{where}: post_processor is no object: download it again")
    for step in _objects(post.get("processors", [post]), f"{where}: processors"):
        if step.get("type") != "TemplateProcessing":
            continue
        single = _objects(step.get("single"), f"{where}: single")
        if single:
            special = single[0 if key == "bos" else -1].get("SpecialToken")
            return text is not None and _is_object(special) and special.get("id") == text
    return False


def _chat_templates(folder: Path, settings: dict[str, Any]) -> dict[str, Value]:
    """Read the template from chat_template.jinja or tokenizer_config.json, a text or a list."""
    template: Any = settings.get("chat_template")
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            template = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ConvertError(f"cannot read {path}: {error}") from error
    if isinstance(template, str):
        return {"tokenizer.chat_template": template}
    found: dict[str, Value] = {}
    names: list[str] = []
    for entry in _objects(template, f"{folder / 'tokenizer_config.json'}: chat_template"):
        name, text = entry.get("name"), entry.get("template")
        if not isinstance(name, str) or not isinstance(text, str):
            raise ConvertError(f"{folder / 'tokenizer_config.json'} has a broken chat_template")
        if name == "default":
            found["tokenizer.chat_template"] = text
        else:
            names.append(name)
            found[f"tokenizer.chat_template.{name}"] = text
    if names:
        found["tokenizer.chat_templates"] = tuple(names)
    return found
