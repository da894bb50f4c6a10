"""The MTP layer of DeepSeek V4 as a `deepseek4` file of its own: what `--mtp only` writes.

llama.cpp keeps one set of weights that join the streams before the output (`output_hc_*`), and the
MTP layer's differ from the trunk's, so it cannot stand in the trunk's file without drafting with
the wrong ones. The file has the layer as the block after the trunk's, with the embedding, the final
norm and the output matrix that it shares with the trunk (convert_hf_to_gguf.py --mtp writes it so).
"""

from __future__ import annotations

from collections.abc import Iterator

from converters.errors import ConvertError
from converters.families.deepseek_v4 import Model, describe, hyper_head, layer_tensors, read_model
from converters.layout import Described, Dropped, Piece, Target, whole
from converters.source.checkpoint import Checkpoint
from converters.source.config import Config

ARCHITECTURES: tuple[str, ...] = ()  # found through deepseek_v4.DRAFT_MODULE
GGUF_ARCHITECTURE = "deepseek4"

_SHARED = {"embed.weight", "norm.weight", "head.weight"}


def metadata(config: Config, checkpoint: Checkpoint, mtp: bool) -> Described:
    """Return the metadata: the trunk's, with a block more."""
    model = _read(config, checkpoint)
    values = describe(model, model.n_layer + 1) | {"nextn_predict_layers": 1}
    return Described(values)


def tensors(config: Config, checkpoint: Checkpoint, mtp: bool) -> Iterator[Target | Dropped]:
    """Yield the MTP layer and what it shares with the trunk; the rest is left out."""
    model = _read(config, checkpoint)
    table = (model.n_vocab, model.n_embd)
    yield whole("token_embd.weight", "embed.weight", *table)
    yield from layer_and_joint(model, checkpoint)
    yield whole("output_norm.weight", "norm.weight", model.n_embd)
    yield whole("output.weight", "head.weight", *table)
    for name in checkpoint.tensors:
        ours = name.startswith("mtp.0.") or name in _SHARED
        if not ours and not name.endswith(".scale"):
            yield Dropped(name, "the trunk goes into a file of its own")


def layer_and_joint(model: Model, checkpoint: Checkpoint) -> Iterator[Target | Dropped]:
    """Yield what the checkpoint stores under `mtp.0`."""
    source, block, hidden = "mtp.0", f"blk.{model.n_layer}", model.n_embd
    square = (hidden, hidden)
    # The embedding's half comes first, as in V3's one matrix.
    halves = (
        Piece(f"{source}.e_proj.weight", square),
        Piece(f"{source}.h_proj.weight", square, column=hidden),
    )
    yield Target(f"{block}.nextn.eh_proj.weight", (hidden, 2 * hidden), halves)
    yield whole(f"{block}.nextn.enorm.weight", f"{source}.enorm.weight", hidden)
    yield whole(f"{block}.nextn.hnorm.weight", f"{source}.hnorm.weight", hidden)
    yield whole(f"{block}.nextn.shared_head_norm.weight", f"{source}.norm.weight", hidden)
    yield from layer_tensors(model, checkpoint, source, block, model.n_layer)
    yield from hyper_head(model, f"{source}.")


def _read(config: Config, checkpoint: Checkpoint) -> Model:
    model = read_model(config)
    if model.n_nextn != 1 or "mtp.0.e_proj.weight" not in checkpoint.tensors:
        raise ConvertError("the checkpoint has no MTP layer, or several: --mtp only needs one")
    if model.ratios[model.n_layer]:
        raise ConvertError(f"{config.origin}: llama.cpp runs an uncompressed MTP layer only")
    if model.n_embd % 256:  # whole blocks of every type, for its halves stand side by side
        raise ConvertError(f"{config.origin}: --mtp only needs a hidden_size that 256 divides")
    return model
