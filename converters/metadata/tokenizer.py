"""Tokenizer files of a checkpoint → the `tokenizer.*` metadata of a GGUF file.

Takes tokenizer.json (byte-level BPE) and tokenizer_config.json, gives tokens, types, merges,
special ids, and the chat template, always the checkpoint's own. BOS is added or not as Hugging Face
does it: llama.cpp's converter trusts a ByteLevel post-processor, which says nothing of it.
Does not know the model; how text is split is known in pre_tokenizer.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gguf import TokenType

from converters.errors import ConvertError
from converters.layout import Described, Value
from converters.metadata.pre_tokenizer import normalizer_warnings, pre_tokenizer_name
from converters.source.checkpoint import read_json
from converters.source.json_values import is_object, objects

# Special tokens: key in tokenizer_config.json and name in GGUF.
_SPECIAL = (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))


def tokenizer_metadata(folder: Path, n_vocab: int, config: dict[str, Any]) -> Described:
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
    if not is_object(model) or model.get("type", "BPE") != "BPE" or model.get("byte_fallback"):
        raise ConvertError(f"{where} holds no byte-level BPE, the only kind that is supported")
    added = _added_tokens(tokenizer, where)
    tokens, types = _token_list(model, added, n_vocab, where)
    adds_bos = _adds("bos", tokenizer, settings, where)
    metadata: dict[str, Value] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre_tokenizer_name(tokenizer, adds_bos, where),
        "tokenizer.ggml.tokens": tuple(tokens),
        "tokenizer.ggml.token_type": tuple(types),
        "tokenizer.ggml.merges": tuple(_merges(model, where)),
    }
    ids = {text: token for token, text in enumerate(tokens)}
    for key, name in _SPECIAL:
        token = _special_id(key, settings, config, ids)
        if token is not None and token < n_vocab:
            metadata[f"tokenizer.ggml.{name}_token_id"] = token
    ends = _further_ends(metadata.get("tokenizer.ggml.eos_token_id"), folder, config, n_vocab)
    if ends:
        metadata["tokenizer.ggml.eot_token_id"] = ends[0]
    if len(ends) > 1:  # llama.cpp has no key for more; localseek reads this one
        metadata["localseek.eos_token_ids"] = tuple(ends)
    metadata["tokenizer.ggml.add_bos_token"] = adds_bos
    metadata["tokenizer.ggml.add_eos_token"] = _adds("eos", tokenizer, settings, where)
    metadata |= _chat_templates(folder, settings)
    return Described(metadata, normalizer_warnings(tokenizer.get("normalizer"), where))


def _added_tokens(tokenizer: dict[str, Any], where: str) -> dict[int, dict[str, Any]]:
    added: dict[int, dict[str, Any]] = {}
    for entry in objects(tokenizer.get("added_tokens"), f"{where}: added_tokens"):
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
        raise ConvertError(f"{where}: merges is not a list: download it again")
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


def _further_ends(
    eos: Value | None, folder: Path, config: dict[str, Any], n_vocab: int
) -> list[int]:
    """Return the ends of generation beside the tokenizer's EOS, at which Hugging Face stops too.

    Both config.json and generation_config.json may list some.
    """
    named: list[Any] = []
    for values in (config, _generation_config(folder)):
        ids = values.get("eos_token_id")
        named += ids if isinstance(ids, list) else [ids]
    found = [token for token in named if type(token) is int and 0 <= token < n_vocab]
    return [token for token in dict.fromkeys(found) if token != eos]


def _generation_config(folder: Path) -> dict[str, Any]:
    """Return generation_config.json; an empty one where it cannot be read, as `sampling` tells."""
    try:
        return read_json(folder / "generation_config.json")
    except ConvertError:
        return {}


def _adds(key: str, tokenizer: dict[str, Any], settings: dict[str, Any], where: str) -> bool:
    """Say whether Hugging Face puts the token around a text.

    The Llama classes build the post-processor again from add_bos_token (default true) and
    add_eos_token (default false); other classes keep the one in tokenizer.json, whatever these
    settings say (transformers 4.48, which the releases were made for).
    """
    if str(settings.get("tokenizer_class", "")).startswith("LlamaTokenizer"):
        explicit = settings.get(f"add_{key}_token")
        return explicit if isinstance(explicit, bool) else key == "bos"
    text = _content(settings.get(f"{key}_token"))
    post = tokenizer.get("post_processor") or {}
    if not is_object(post):
        raise ConvertError(f"{where}: post_processor is not an object: download it again")
    for step in objects(post.get("processors", [post]), f"{where}: processors"):
        if step.get("type") != "TemplateProcessing":
            continue
        single = objects(step.get("single"), f"{where}: single")
        if single:
            special = single[0 if key == "bos" else -1].get("SpecialToken")
            return text is not None and is_object(special) and special.get("id") == text
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
    for entry in objects(template, f"{folder / 'tokenizer_config.json'}: chat_template"):
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
