"""`LlamaForCausalLM` → `llama`: DeepSeek LLM, Math, Coder, Prover 7B, and R1-Distill-Llama.

llama.cpp turns neighbouring values of a head where transformers turns value i with value i + h/2,
so the rows of queries and keys are dealt out. Coder has linear rope scaling, the distilled models
llama3's, which becomes the tensor rope_freqs.weight.
"""

from __future__ import annotations

from collections.abc import Iterator

from converters.families import dense
from converters.layout import Described, Dropped, Target
from converters.source.checkpoint import Checkpoint
from converters.source.config import Config

ARCHITECTURES = ("LlamaForCausalLM",)
GGUF_ARCHITECTURE = "llama"


def metadata(config: Config, checkpoint: Checkpoint, mtp: bool) -> Described:
    """Return the metadata; there is no MTP layer, so `mtp` changes nothing."""
    model = dense.read_model(config)
    values = dense.describe(model) | dense.head_lengths(model)
    values |= {"vocab_size": model.n_vocab, "rope.dimension_count": model.head_dim}
    return Described(values)


def tensors(config: Config, checkpoint: Checkpoint, mtp: bool) -> Iterator[Target | Dropped]:
    """Yield the targets in file order."""
    model = dense.read_model(config)
    yield from dense.ends(model, checkpoint)
    for layer in range(model.n_layer):
        yield from dense.attention(model, checkpoint, layer, permuted=True)
        source = f"model.layers.{layer}.mlp"
        yield from dense.feed_forward(source, f"blk.{layer}", "", model.n_embd, model.n_ff)
