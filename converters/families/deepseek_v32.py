"""DeepSeek V3.2-Exp, V3.2, V3.2-Speciale (`DeepseekV32ForCausalLM`) → `deepseek32`.

V3 with sparse attention: in every layer, that for MTP included, an indexer scores all earlier
tokens, and a query sees the best of them only. All else is V3's (deepseek_v3.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from converters.errors import ConvertError
from converters.families import deepseek_v3
from converters.families.deepseek2 import Indexer, Model
from converters.layout import Described, Dropped, Target
from converters.source.checkpoint import Checkpoint
from converters.source.config import Config

ARCHITECTURES = ("DeepseekV32ForCausalLM",)
GGUF_ARCHITECTURE = "deepseek32"

_HADAMARD_LEAST = 64  # llama.cpp's smallest rotation of indexer heads (src/llama-kv-cache.cpp)


def metadata(config: Config, checkpoint: Checkpoint, mtp: bool) -> Described:
    """Return the metadata, with one block more when the MTP layer is kept."""
    return deepseek_v3.describe(config, _read(config, checkpoint, mtp), mtp)


def tensors(config: Config, checkpoint: Checkpoint, mtp: bool) -> Iterator[Target | Dropped]:
    """Yield the trunk and then the MTP layer, or its tensors as dropped."""
    yield from deepseek_v3.all_layers(config, checkpoint, _read(config, checkpoint, mtp))


def _read(config: Config, checkpoint: Checkpoint, mtp: bool) -> Model:
    model = deepseek_v3.read(config, checkpoint, mtp)
    if not model.q_lora_rank:
        raise ConvertError(f"{config.origin} lacks q_lora_rank, which the indexer's queries need")
    indexer = Indexer(
        n_head=config.count("index_n_heads"),
        head_size=config.count("index_head_dim"),
        top_k=config.count("index_topk"),
    )
    size = indexer.head_size
    if size < max(_HADAMARD_LEAST, model.qk_rope) or size & (size - 1):
        raise ConvertError(
            f"{config.origin}: index_head_dim {size} is not supported: llama.cpp takes a power of "
            f"two, from {_HADAMARD_LEAST} and from qk_rope_head_dim"
        )
    return replace(model, indexer=indexer)
