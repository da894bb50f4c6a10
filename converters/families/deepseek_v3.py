"""DeepSeek V3, V3-0324, V3.1, R1, Prover-V2 (`DeepseekV3ForCausalLM`) → `deepseek2`.

Sigmoid router with a selection bias and groups scored by their best two experts, which llama.cpp
reproduces exactly, and one multi-token-prediction (MTP) layer after the trunk. llama.cpp's own
converter drops that layer; here it becomes `blk.N.nextn.*`, as the `deepseek2` runtime reads it.
What it shares with V2 is in deepseek2.py; V3.2 builds on this module.
"""

from __future__ import annotations

from collections.abc import Iterator

from converters.errors import ConvertError
from converters.families import deepseek2
from converters.families.deepseek2 import Model
from converters.layout import Described, Dropped, Target, whole
from converters.source.checkpoint import Checkpoint
from converters.source.config import Config

ARCHITECTURES = ("DeepseekV3ForCausalLM",)
GGUF_ARCHITECTURE = "deepseek2"


def metadata(config: Config, checkpoint: Checkpoint, mtp: bool) -> Described:
    """Return the metadata, with one block more when the MTP layer is kept."""
    model = read(config, checkpoint, mtp)
    deepseek2.refuse_lite_depths(config, model)
    return describe(config, model, mtp)


def tensors(config: Config, checkpoint: Checkpoint, mtp: bool) -> Iterator[Target | Dropped]:
    """Yield the trunk and then the MTP layer, or its tensors as dropped."""
    yield from all_layers(config, checkpoint, read(config, checkpoint, mtp))


def describe(config: Config, model: Model, mtp: bool) -> Described:
    """Return a model's metadata with groups of experts; `mtp` says whether its layer was wanted."""
    groups, warnings = deepseek2.usable_groups(config, model)
    if mtp and not model.mtp and _declared(config):
        warnings = (*warnings, "the checkpoint holds no MTP layer: the file will have none")
    return deepseek2.describe(model, groups, warnings)


def all_layers(config: Config, checkpoint: Checkpoint, model: Model) -> Iterator[Target | Dropped]:
    """Yield a model's trunk and then the MTP layer, or its tensors as dropped."""
    yield from deepseek2.trunk(model, checkpoint)
    if model.mtp:
        yield from _mtp_layer(model, checkpoint)
        return
    prefix = f"model.layers.{model.n_layer}."
    for name in checkpoint.tensors:
        if _declared(config) and name.startswith(prefix):
            yield Dropped(name, "the MTP layer was not asked for")


def _declared(config: Config) -> int:
    return config.count("num_nextn_predict_layers", 0, least=0)


def read(config: Config, checkpoint: Checkpoint, mtp: bool) -> Model:
    """Read the dimensions and decide whether there is an MTP layer to keep."""
    config.choice("topk_method", ("noaux_tc",), "noaux_tc")
    layers = _declared(config)
    if layers > 1:
        raise ConvertError(
            f"{config.origin}: num_nextn_predict_layers {layers} is not supported: "
            "llama.cpp runs one MTP layer"
        )
    trunk = config.count("num_hidden_layers")
    # Some exports keep the key and leave the layer out, so the tensors decide.
    present = f"model.layers.{trunk}.eh_proj.weight" in checkpoint.tensors
    keep = mtp and layers == 1 and present
    if keep and not config.has("q_lora_rank"):
        raise ConvertError(
            "llama.cpp runs an MTP layer only with q_lora_rank: convert with --mtp drop"
        )
    return deepseek2.read_model(config, mtp=keep, router="sigmoid")


def _mtp_layer(model: Model, checkpoint: Checkpoint) -> Iterator[Target | Dropped]:
    """Yield the MTP layer: a decoder layer, and what joins it to the trunk."""
    layer = model.n_layer
    source, block = f"model.layers.{layer}", f"blk.{layer}.nextn"
    hidden = model.n_embd
    yield whole(f"{block}.eh_proj.weight", f"{source}.eh_proj.weight", hidden, 2 * hidden)
    yield whole(f"{block}.enorm.weight", f"{source}.enorm.weight", hidden)
    yield whole(f"{block}.hnorm.weight", f"{source}.hnorm.weight", hidden)
    norm = f"{source}.shared_head.norm.weight"
    yield whole(f"{block}.shared_head_norm.weight", norm, hidden)
    yield from deepseek2.layer_tensors(model, checkpoint, layer)
    shared = (
        ("embed_tokens", f"{source}.embed_tokens.weight", "model.embed_tokens.weight"),
        ("shared_head_head", f"{source}.shared_head.head.weight", "lm_head.weight"),
    )
    for name, copy, main in shared:
        if copy not in checkpoint.tensors:
            continue
        if main in checkpoint.tensors and checkpoint.same_bytes(copy, main):
            yield Dropped(copy, f"equal to {main}, which the runtime falls back to")
        else:
            yield whole(f"{block}.{name}.weight", copy, model.n_vocab, hidden)
