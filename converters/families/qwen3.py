"""`Qwen3ForCausalLM` → `qwen3`: R1-0528-Qwen3-8B.

Queries and keys are normalized a head, without biases; heads may be wider or narrower than their
share of the width. llama.cpp turns the same pairs of values as transformers: nothing is permuted.
"""

from __future__ import annotations

from collections.abc import Iterator

from converters.families import dense
from converters.families.dense import Model
from converters.layout import Described, Dropped, Target, whole
from converters.source.checkpoint import Checkpoint
from converters.source.config import Config

ARCHITECTURES = ("Qwen3ForCausalLM",)
GGUF_ARCHITECTURE = "qwen3"
_HEAD_DIM = 128  # what transformers assumes where config.json is silent


def metadata(config: Config, checkpoint: Checkpoint, mtp: bool) -> Described:
    """Return the metadata; there is no MTP layer, so `mtp` changes nothing."""
    model = _read(config)
    return Described(dense.describe(model) | dense.head_lengths(model))


def tensors(config: Config, checkpoint: Checkpoint, mtp: bool) -> Iterator[Target | Dropped]:
    """Yield the targets in file order."""
    model = _read(config)
    yield from dense.ends(model, checkpoint)
    for layer in range(model.n_layer):
        source, block = f"model.layers.{layer}", f"blk.{layer}"
        yield from dense.attention(model, checkpoint, layer, permuted=False)
        for part in ("q", "k"):
            norm = f"{source}.self_attn.{part}_norm.weight"
            yield whole(f"{block}.attn_{part}_norm.weight", norm, model.head_dim)
        yield from dense.feed_forward(f"{source}.mlp", block, "", model.n_embd, model.n_ff)


def _read(config: Config) -> Model:
    dense.refuse_sliding_window(config)
    return dense.read_model(config, _HEAD_DIM, rope_kinds=("default", "linear", "yarn"))
