"""Small random DeepSeek-V3.2 checkpoints in the released layout, for tests.

As checkpoints.py makes a V3, with what V3.2 adds: an indexer in every layer (its two large
projections in FP8, its norm with a bias), and all norms stored as F32. Names and dtypes are those
of the release. numpy alone; knows nothing of the converters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
from checkpoints import Dims, Tensors

# index_topk is under the length of the tests' texts, so that the indexer decides what is seen; with
# few heads many scores would be exactly zero, and which of those are best is arbitrary.
INDEXER = {"index_n_heads": 8, "index_head_dim": 64, "index_topk": 12}


def v32_config(dims: Dims, dtype: str = "F8_E4M3", mtp: bool = True) -> dict[str, Any]:
    """Return the config.json of a V3.2-shaped model."""
    values = checkpoints.v3_config(dims, dtype, mtp) | INDEXER
    values |= {"architectures": ["DeepseekV32ForCausalLM"], "model_type": "deepseek_v32"}
    if dtype == "F8_E4M3":
        values["quantization_config"]["scale_fmt"] = "ue8m0"
    return values


def make_v32(
    folder: Path,
    dims: Dims | None = None,
    *,
    dtype: str = "F8_E4M3",
    mtp: bool = True,
    shared_mtp: bool = True,
    shards: int = 1,
    seed: int = 0,
    config: dict[str, Any] | None = None,
) -> Path:
    """Make a DeepSeek-V3.2-shaped checkpoint."""
    dims = dims or Dims()
    tensors = checkpoints.v3_tensors(dims, dtype, seed, mtp, shared_mtp)
    for layer in range(dims.num_hidden_layers + mtp):
        _add_indexer(tensors, dims, dtype, seed, layer)
    _keep_norms_in_f32(tensors)
    values = v32_config(dims, dtype, mtp) | (config or {})
    return checkpoints.write(folder, values, tensors, shards, checkpoints.v3_tokenizer())


def _add_indexer(tensors: Tensors, dims: Dims, dtype: str, seed: int, layer: int) -> None:
    prefix = f"model.layers.{layer}.self_attn.indexer"
    plain = "BF16" if dtype == "F8_E4M3" else dtype
    heads, size, rank = INDEXER["index_n_heads"], INDEXER["index_head_dim"], dims.q_lora_rank
    assert rank
    for name, shape, kind in (
        ("wq_b.weight", (heads * size, rank), dtype),
        ("wk.weight", (size, dims.hidden_size), dtype),
        ("k_norm.weight", (size,), "F32"),
        ("k_norm.bias", (size,), "F32"),
        ("weights_proj.weight", (heads, dims.hidden_size), plain),
    ):
        full = f"{prefix}.{name}"
        tensors.add(full, checkpoints.random_weight(seed, full, *shape), kind)


def _keep_norms_in_f32(tensors: Tensors) -> None:
    for name, (dtype, shape, data) in list(tensors.entries.items()):
        if len(shape) == 1 and dtype == "BF16":
            widened = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
            tensors.entries[name] = ("F32", shape, widened.tobytes())
