"""The MTP layer that a GGUF file lacks, taken from the checkpoint that the model was released in.

Takes an open GGUF file and the checkpoint's folder, of which the shards with that layer suffice.
Gives the layer's tensors as the model's family describes them, and the metadata that changes.
Everything that the family and the file both say about the model must agree.
Does not know types, nor what becomes of the file's own tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from converters.errors import ConvertError
from converters.families import Family, find_family
from converters.layout import Dropped, Metadata, Target, Value
from converters.planning.origin import source_fingerprint
from converters.planning.plan import check_sources
from converters.source.checkpoint import Checkpoint
from converters.source.config import Config
from converters.source.gguf_source import GGUFFile
from converters.source.source import Source
from converters.types.mixtures import Shape

_COUNTS = ("block_count", "nextn_predict_layers")  # what changes with the layer


@dataclass(frozen=True)
class DraftLayer:
    """A layer to add: tensors to write, copies to leave out, metadata to replace."""

    targets: tuple[Target, ...]
    metadata: Metadata
    dropped: tuple[Dropped, ...] = ()
    warnings: tuple[str, ...] = ()


def take_draft_layer(model: GGUFFile, folder: Path) -> DraftLayer:
    """Make the MTP layer in `folder` part of the open `model`; raise ConvertError if it can't be.

    Afterwards the layer's stored tensors are among those of `model`, which closes their files.
    """
    with Checkpoint(folder, partial=True) as checkpoint:
        config = Config(checkpoint.read_json("config.json"))
        family = find_family(config)
        described = family.metadata(config, checkpoint, True)
        if not described.values.get("nextn_predict_layers"):
            raise ConvertError(_no_layer(checkpoint))
        _check_agreement(model, family, described.values, folder)
        trunk = int(str(described.values["block_count"])) - 1
        every = list(family.tensors(config, checkpoint, True))
        targets = [
            one
            for one in every
            if isinstance(one, Target) and Shape(one.name, one.shape).layer == trunk
        ]
        prefix = _stored_prefix(targets, trunk)
        dropped = [
            one for one in every if isinstance(one, Dropped) and one.source.startswith(prefix)
        ]
        layer = _part(checkpoint, prefix)
        for target in targets:
            _check_there(checkpoint, target)
        check_sources(layer, targets, dropped)
        origin = source_fingerprint(checkpoint)
        model.take_over(checkpoint, layer.tensors)
    metadata = {f"{model.architecture}.{key}": described.values[key] for key in _COUNTS}
    metadata["localseek.mtp.fingerprint"] = origin
    return DraftLayer(tuple(targets), metadata, tuple(dropped), described.warnings)


def _no_layer(checkpoint: Checkpoint) -> str:
    if checkpoint.missing:
        return (
            f"{checkpoint.folder} lacks {len(set(checkpoint.missing.values()))} shards, the one "
            "with the MTP layer among them: its index names them, download the last ones"
        )
    return f"{checkpoint.folder} holds no MTP layer: give the checkpoint that the model came in"


def _check_agreement(model: GGUFFile, family: Family, values: Metadata, folder: Path) -> None:
    """Raise ConvertError unless file and checkpoint are one model, the MTP layer apart."""
    if model.architecture != family.GGUF_ARCHITECTURE:
        raise ConvertError(
            f"{model.path} is a {model.architecture} model, {folder} becomes a "
            f"{family.GGUF_ARCHITECTURE} one: give the checkpoint that the file came from"
        )
    prefix = f"{model.architecture}."
    if model.get(prefix + "nextn_predict_layers"):
        raise ConvertError(f"{model.path} has an MTP layer already: there is nothing to add")
    if any(name.endswith(".attn_kv_b.weight") for name in model.tensors):
        raise ConvertError(
            f"{model.path} has attn_kv_b tensors, a layout before latent attention was kept "
            "compressed, which the MTP layer cannot join: convert the checkpoint instead"
        )
    expected: dict[str, Value] = {**values, "block_count": int(str(values["block_count"])) - 1}
    del expected["nextn_predict_layers"]
    for key, value in expected.items():
        found = model.get(prefix + key)
        if found is not None and not _same(found, value):
            raise ConvertError(
                f"{prefix}{key} is {found} in {model.path.name} and {value} in {folder}: these are "
                "two models"
            )
    embedding = model.tensors.get("token_embd.weight")
    table = (values.get("vocab_size"), values.get("embedding_length"))
    if embedding is None or embedding.shape != table:
        shape = list(embedding.shape) if embedding else "missing"
        raise ConvertError(
            f"token_embd.weight is {shape} in {model.path.name} and {list(table)} in {folder}: "
            "these are two models"
        )


def _same(found: object, value: Value) -> bool:
    if isinstance(found, float) and isinstance(value, float):
        return math.isclose(found, value, rel_tol=1e-6)  # stored as float32
    return found == value


def _stored_prefix(targets: Iterable[Target], layer: int) -> str:
    """Return what the names of the layer's stored tensors begin with."""
    joint = next(one for one in targets if one.name == f"blk.{layer}.nextn.eh_proj.weight")
    return joint.pieces[0].source.removesuffix("eh_proj.weight")


def _part(checkpoint: Checkpoint, prefix: str) -> Source:
    """Return the layer's stored tensors as a source that only tells their headers."""
    part = Source()
    part.tensors = {
        name: tensor for name, tensor in checkpoint.tensors.items() if name.startswith(prefix)
    }
    return part


def _check_there(checkpoint: Checkpoint, target: Target) -> None:
    for piece in target.pieces:
        if shard := checkpoint.missing.get(piece.source):
            raise ConvertError(
                f"{piece.source} is in {shard}, which is not in {checkpoint.folder}: download it"
            )
