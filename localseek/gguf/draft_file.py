"""The file that drafts for a model: a multi-token prediction (NextN) layer in a file of its own.

Takes a model's facts and what the user said, gives the other file's facts, checked: llama.cpp
compares nothing of the two, and would abort or draft nonsense. V4's layer comes so, because it has
other weights than the trunk where streams join. Knows nothing about engines.
"""

from dataclasses import dataclass
from pathlib import Path

from localseek.errors import ModelError, UsageError
from localseek.gguf.header import StoredArray, read_header
from localseek.gguf.info import SPLIT_NAME, GGUFInfo, is_later_part, read_info
from localseek.gguf.nextn import draft_obstacle, holds_only_nextn
from localseek.gguf.runnable import check_runnable
from localseek.options import Mtp

SEPARATE = ("deepseek4",)  # whose NextN layer is looked for beside the model
TOKENS = "tokenizer.ggml.tokens"


@dataclass(frozen=True)
class Drafting:
    """Whether a model drafts, with another file's layer or its own, and what to tell the user."""

    on: bool
    file: GGUFInfo | None = None
    notice: str = ""


def choose_drafting(info: GGUFInfo, mtp: Mtp, asked: str) -> Drafting:
    """Decide whether a model drafts; raises ModelError and UsageError as `find_draft_file` does."""
    if mtp == "off":
        return Drafting(False)
    file, notice = find_draft_file(info, asked)
    if file is not None or not info.nextn_layers:
        return Drafting(file is not None, file, notice)
    obstacle = draft_obstacle(info)
    return Drafting(not obstacle, notice=f"No drafts: {obstacle}." if obstacle else "")


def find_draft_file(info: GGUFInfo, asked: str) -> tuple[GGUFInfo | None, str]:
    """Give the file that drafts for `info` and, when nobody named it, a notice.

    `asked` is what --draft-model names; "" looks beside the model for a file whose name has `mtp`
    in it. Raises ModelError for a file that does not fit, UsageError for one that is not needed.
    """
    if asked:
        return _named(info, Path(asked).expanduser()), ""
    if info.nextn_layers or info.architecture not in SEPARATE:
        return None, ""
    fitting = [one for path in _beside(info.path) if (one := _fitting(info, path))]
    best = max((_likeness(info.path, one.path) for one in fitting), default=0)
    chosen = [one for one in fitting if _likeness(info.path, one.path) == best]
    if len(chosen) == 1:
        return chosen[0], f"{chosen[0].path.name}, beside the model, drafts for it."
    if chosen:
        names = ", ".join(one.path.name for one in chosen)
        return None, f"No drafts: {names} could all draft. Name one with --draft-model."
    return None, ""


def _named(info: GGUFInfo, path: Path) -> GGUFInfo:
    if info.nextn_layers:
        raise UsageError(
            f"{info.path.name} has a multi-token prediction layer of its own.",
            "Leave --draft-model out.",
        )
    if not path.is_file():
        raise ModelError(f"There is no file {path}.", "--draft-model is the path of a GGUF file.")
    draft = read_info(path)
    check_runnable(draft, alone=False)
    problem = _misfit(info, draft) or draft_obstacle(draft)
    if problem:
        raise ModelError(
            f"{path} cannot draft for {info.path.name}: {problem}.",
            "Make it from the same checkpoint: localseek convert CHECKPOINT OUT.gguf --mtp only",
        )
    return draft


def _beside(model: Path) -> list[Path]:
    return sorted(
        path
        for path in model.parent.glob("*.gguf")
        if "mtp" in path.name.lower() and path != model and not is_later_part(path)
    )


def _fitting(info: GGUFInfo, path: Path) -> GGUFInfo | None:
    """Give a found file's facts, None for one that cannot draft for the model."""
    try:
        draft = read_info(path)
        check_runnable(draft, alone=False)
        if _misfit(info, draft) or draft_obstacle(draft):
            return None
        same_norm = _bytes(info, "output_norm.weight") == _bytes(draft, "output_norm.weight")
    except ModelError:  # nobody asked for it
        return None
    return draft if same_norm else None


def _likeness(model: Path, draft: Path) -> int:
    """Give the number of characters with which both names begin, `mtp` left out."""
    match = SPLIT_NAME.match(model.name)
    stem = (match["stem"] if match else model.stem).lower()
    other = draft.stem.lower()
    for mark in ("mtp-", "-mtp", "mtp_", "_mtp", ".mtp", "mtp"):
        other = other.replace(mark, "")
    same = (a == b for a, b in zip(stem, other, strict=False))
    return next((n for n, equal in enumerate(same) if not equal), min(len(stem), len(other)))


def _misfit(info: GGUFInfo, draft: GGUFInfo) -> str:
    """Name what keeps a file from drafting for a model, "" when nothing does."""
    if not holds_only_nextn(draft):
        return "it is a whole model, not a multi-token prediction layer"
    if draft.architecture != info.architecture:
        return f"it is for {draft.architecture} models, not {info.architecture}"
    trunk = draft.block_count - draft.nextn_layers
    if trunk != info.block_count:
        return f"it is for a model of {trunk} layers, not {info.block_count}"
    for key in ("embedding_length", "hyper_connection.count"):
        if draft.count(key) != info.count(key):
            return f"its {key} is {draft.count(key)}, the model's {info.count(key)}"
    for name in ("token_embd.weight", "output.weight"):
        shape, wanted = _shape(draft, name), _shape(info, name)
        if shape != wanted:
            return f"its {name} has the shape {shape}, the model's {wanted}"
    if _texts(draft) != _texts(info):
        return "it has other tokens than the model"
    return ""


def _bytes(info: GGUFInfo, name: str) -> bytes:
    """Give a tensor as stored, b"" when it is not there."""
    for part in info.parts:
        for tensor in read_header(part).tensors:
            if tensor.name == name:
                with part.open("rb") as file:
                    file.seek(tensor.offset)
                    return file.read(tensor.size_bytes)
    return b""


def _shape(info: GGUFInfo, name: str) -> tuple[int, ...] | None:
    return next((tensor.shape for tensor in info.tensors if tensor.name == name), None)


def _texts(info: GGUFInfo) -> object:
    tokens = info.metadata.get(TOKENS)
    return tokens.read_raw_texts() if isinstance(tokens, StoredArray) else tokens
