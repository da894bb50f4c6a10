"""A model's facts read from its file.

Takes a path, gives `Facts`, or raises ModelError for what is no model file. Knows nothing about
machines.
"""

from pathlib import Path

from localseek.gguf.architectures import EMBEDDERS, EYES, KNOWN
from localseek.gguf.draft_file import choose_drafting
from localseek.gguf.info import GGUFInfo, read_info
from localseek.gguf.nextn import holds_only_nextn
from localseek.placing.condensed import condensed, to_plain
from localseek.placing.shape import read_shape
from localseek.store.models.facts import Facts
from localseek.store.models.families import family


def read_facts(path: Path) -> Facts:
    """Read a model's facts; raises ModelError with the reason."""
    return facts_of(read_info(path))


def facts_of(info: GGUFInfo) -> Facts:
    """Give what a list tells of a file."""
    experts, used = info.experts
    obstacle = _obstacle(info)
    drafting = None if obstacle else choose_drafting(info, "auto", "")
    said = " ".join((info.name, str(info.get("general.basename") or ""), info.path.stem))
    return Facts(
        title=info.name,
        architecture=info.architecture,
        family=family(info.architecture, said, experts, info.nextn_layers),
        type=info.type_name,
        size_bytes=info.size_bytes,
        parameters=info.n_params,
        context_length=info.context_length,
        layers=info.block_count,
        experts=experts,
        experts_used=used,
        mtp=info.nextn_layers > 0,
        only_mtp=holds_only_nextn(info),
        files=tuple(str(part) for part in info.parts),
        missing=tuple(str(part) for part in info.missing),
        obstacle=obstacle,
        drafts=drafting is not None and drafting.on,
        shape=to_plain(condensed(read_shape(info, drafting.file))) if drafting else None,
    )


def _obstacle(info: GGUFInfo) -> str:
    """Say why a file cannot answer, in the few words that a table has room for."""
    if info.missing:
        every = len(info.parts) + len(info.missing)
        return f"{len(info.missing)} of {every} parts missing"
    if holds_only_nextn(info):
        return "drafts only"
    if info.architecture == EYES:
        return "only sees, for another model"
    if info.architecture in EMBEDDERS or info.count("pooling_type"):
        return "vectors, no text"
    if info.architecture not in KNOWN:
        return f"llama.cpp does not know {info.architecture or 'its architecture'}"
    if not info.tensors or not 0 < info.block_count <= 512:
        return "holds no layers"
    return ""
