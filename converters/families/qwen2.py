"""`Qwen2ForCausalLM` → `qwen2`: R1-Distill-Qwen 1.5B to 32B.

Queries, keys and values have biases; llama.cpp turns the same pairs of values as transformers
here, so nothing is permuted. Sliding windows are refused: the architecture has none in llama.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator

from converters.families import dense
from converters.families.dense import Model
from converters.layout import Described, Dropped, Target, whole
from converters.source.checkpoint import Checkpoint
from converters.source.config import Config

ARCHITECTURES = ("Qwen2ForCausalLM",)
GGUF_ARCHITECTURE = "qwen2"


def metadata(config: Config, checkpoint: Checkpoint, mtp: bool) -> Described:
    """Return the metadata; there is no MTP layer, so `mtp` changes nothing."""
    return Described(dense.describe(_read(config)))


def tensors(config: Config, checkpoint: Checkpoint, mtp: bool) -> Iterator[Target | Dropped]:
    """Yield the targets in file order."""
    model = _read(config)
    yield from dense.ends(model, checkpoint)
    rows = {"q": model.n_head, "k": model.n_head_kv, "v": model.n_head_kv}
    for layer in range(model.n_layer):
        source, block = f"model.layers.{layer}", f"blk.{layer}"
        yield from dense.attention(model, checkpoint, layer, permuted=False)
        for part, heads in rows.items():
            bias = f"{source}.self_attn.{part}_proj.bias"
            yield whole(f"{block}.attn_{part}.bias", bias, heads * model.head_dim)
        yield from dense.feed_forward(f"{source}.mlp", block, "", model.n_embd, model.n_ff)


def _read(config: Config) -> Model:
    dense.refuse_sliding_window(config)
    model = dense.read_model(config, rope_kinds=("default", "linear", "yarn"))
    dense.require_even_heads(config, model)
    return model
