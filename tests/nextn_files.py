"""Small random GGUF files of other families with NextN layers, for tests.

Names and shapes are those that llama.cpp's loaders ask for: two trunk layers or three, 64 wide,
96 tokens without texts, all in F32. They say nothing; drafting and its caches are what is tested.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

EMBD, FF, EXPERT_FF, EXPERTS, VOCAB, CONTEXT = 64, 96, 32, 4, 96, 256
Shape = tuple[str, tuple[int, ...]]

COMMON: dict[str, Any] = {
    "context_length": CONTEXT, "embedding_length": EMBD, "feed_forward_length": FF,
    "attention.head_count": 2, "attention.head_count_kv": 1, "attention.key_length": 32,
    "attention.value_length": 32, "rope.dimension_count": 16, "rope.freq_base": 10000.0,
    "attention.layer_norm_rms_epsilon": 1e-5, "vocab_size": VOCAB,
}  # fmt: skip
SPARSE: dict[str, Any] = {
    "expert_count": EXPERTS, "expert_used_count": EXPERTS, "expert_feed_forward_length": EXPERT_FF,
    "expert_shared_count": 1, "leading_dense_block_count": 1, "expert_gating_func": 2,
    "expert_weights_norm": True, "expert_weights_scale": 1.0,
}  # fmt: skip
LATENT: dict[str, Any] = {
    "attention.key_length": 48, "attention.key_length_mla": 32, "attention.value_length_mla": 16,
    "attention.q_lora_rank": 32, "attention.kv_lora_rank": 32, "attention.indexer.head_count": 4,
    "attention.indexer.key_length": 64, "attention.indexer.top_k": 4096,
}  # fmt: skip
LINEAR: dict[str, Any] = {
    "ssm.conv_kernel": 4, "ssm.inner_size": 64, "ssm.state_size": 16, "ssm.time_step_rank": 4,
    "ssm.group_count": 2, "full_attention_interval": 3, "rope.dimension_sections": [4, 2, 2, 0],
}  # fmt: skip
WINDOW: dict[str, Any] = {
    "attention.sliding_window": 32, "attention.sliding_window_pattern": [1, 0, 1, 1],
    "rope.dimension_count": 32,
}  # fmt: skip


def attention(qk_norm: bool = False, gated: bool = False) -> Iterator[Shape]:
    yield "attn_q.weight", (EMBD, 128 if gated else 64)
    yield from (("attn_k.weight", (EMBD, 32)), ("attn_v.weight", (EMBD, 32)))
    yield "attn_output.weight", (64, EMBD)
    if qk_norm:
        yield from (("attn_q_norm.weight", (32,)), ("attn_k_norm.weight", (32,)))


def latent_attention() -> Iterator[Shape]:
    yield from (("attn_q_a.weight", (EMBD, 32)), ("attn_q_a_norm.weight", (32,)))
    yield from (("attn_q_b.weight", (32, 64)), ("attn_kv_a_mqa.weight", (EMBD, 48)))
    yield from (("attn_kv_a_norm.weight", (32,)), ("attn_k_b.weight", (16, 32, 2)))
    yield from (("attn_v_b.weight", (32, 16, 2)), ("attn_output.weight", (32, EMBD)))
    yield from (("indexer.k_norm.weight", (64,)), ("indexer.k_norm.bias", (64,)))
    yield from (("indexer.proj.weight", (EMBD, 4)), ("indexer.attn_k.weight", (EMBD, 64)))
    yield "indexer.attn_q_b.weight", (32, 256)


def linear_attention(joint: bool) -> Iterator[Shape]:
    yield from (("attn_qkv.weight", (EMBD, 128)), ("attn_gate.weight", (EMBD, 64)))
    yield from (("ssm_conv1d.weight", (4, 128)), ("ssm_dt.bias", (4,)), ("ssm_a", (4,)))
    if joint:
        yield "ssm_ba.weight", (EMBD, 8)
    else:
        yield from (("ssm_beta.weight", (EMBD, 4)), ("ssm_alpha.weight", (EMBD, 4)))
    yield from (("ssm_norm.weight", (16,)), ("ssm_out.weight", (64, EMBD)))


def dense() -> Iterator[Shape]:
    yield from (("ffn_gate.weight", (EMBD, FF)), ("ffn_up.weight", (EMBD, FF)))
    yield "ffn_down.weight", (FF, EMBD)


def experts(bias: bool = True, gated: bool = False) -> Iterator[Shape]:
    yield "ffn_gate_inp.weight", (EMBD, EXPERTS)
    if bias:
        yield "exp_probs_b.bias", (EXPERTS,)
    for part, (rows, columns) in {
        "gate": (EMBD, EXPERT_FF), "up": (EMBD, EXPERT_FF), "down": (EXPERT_FF, EMBD)
    }.items():  # fmt: skip
        yield f"ffn_{part}_exps.weight", (rows, columns, EXPERTS)
        yield f"ffn_{part}_shexp.weight", (rows, columns)
    if gated:
        yield "ffn_gate_inp_shexp.weight", (EMBD,)


def layer(kind: str, index: int) -> Iterator[Shape]:
    """Give the tensors of a layer without its number."""
    second = "post_attention_norm" if kind in ("glm4moe", "qwen35", "qwen3next") else "ffn_norm"
    yield from (("attn_norm.weight", (EMBD,)), (f"{second}.weight", (EMBD,)))
    if kind == "glm-dsa":
        yield from latent_attention()
    elif kind in ("qwen35", "qwen3next") and index < 2:
        yield from linear_attention(joint=kind == "qwen3next")
    else:
        gated = kind in ("qwen35", "qwen3next")
        yield from attention(qk_norm=gated or kind == "hy_v3", gated=gated)
    if kind == "qwen3next":
        yield from experts(bias=False, gated=True)
    elif kind in ("qwen35", "hy_v3", "step35") or index == 0:
        yield from dense()
    else:
        yield from experts(bias=kind == "glm4moe")


EXTRA: dict[str, dict[str, Any]] = {
    "glm4moe": SPARSE, "glm-dsa": SPARSE | LATENT, "qwen35": LINEAR, 
    "qwen3next": LINEAR | SPARSE | {"expert_shared_feed_forward_length": EXPERT_FF},
    "hy_v3": {"expert_feed_forward_length": 32, "rope.dimension_count": 32},
    "step35": WINDOW | {"expert_feed_forward_length": 32},
}  # fmt: skip
TRUNK = 3


def write_nextn(path: Path, kind: str, nextn: int = 1) -> Path:
    """Write a file of an architecture with `nextn` layers after three of the trunk."""
    writer = gguf.GGUFWriter(path, kind)
    counts = {"block_count": TRUNK + nextn, "nextn_predict_layers": nextn}
    for key, value in (COMMON | EXTRA[kind] | counts).items():
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
        add.get(type(value), writer.add_array)(f"{kind}.{key}", value)
    writer.add_string("tokenizer.ggml.model", "no_vocab")
    shapes = {"token_embd.weight": (EMBD, VOCAB), "output_norm.weight": (EMBD,)}
    shapes["output.weight"] = (EMBD, VOCAB)
    for index in range(TRUNK + nextn):
        shapes |= {f"blk.{index}.{name}": shape for name, shape in layer(kind, index)}
        if index >= TRUNK:
            own = f"blk.{index}.nextn."
            shapes[f"{own}eh_proj.weight"] = (2 * EMBD, EMBD)
            for name in ("enorm", "hnorm", "shared_head_norm"):
                shapes[f"{own}{name}.weight"] = (EMBD,)
    rng = np.random.default_rng(3)
    for name, shape in shapes.items():
        values = rng.standard_normal(tuple(reversed(shape)), dtype=np.float32)
        if name.endswith("norm.weight"):
            values = 1 + np.float32(0.1) * values
        elif name.endswith("ssm_a"):  # the logarithm of a decay: a state that grows ends in NaN
            values = -np.abs(values)
        elif name != "token_embd.weight":
            values /= np.float32(np.sqrt(shape[0]))
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
