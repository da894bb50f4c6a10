"""Facts of models as a GGUF header would give them, from dimensions alone: no file is written."""

from pathlib import Path

from localseek.gguf.head import GGML_TYPES
from localseek.gguf.header import Tensor
from localseek.gguf.info import GGUFInfo
from localseek.placing.shape import ModelShape, read_shape


def latent_info(
    *, layers: int = 61, embd: int = 7168, experts: int = 256, used: int = 8, ff: int = 2048,
    dense: int = 3, heads: int = 128, nextn: int = 1, kind: str = "Q4_K",
) -> GGUFInfo:  # fmt: skip
    """A deepseek2 file; the defaults are DeepSeek-V3's config.json."""
    blocks = {name: (block, size) for name, block, size in GGML_TYPES.values()}
    tensors: list[Tensor] = []

    def add(name: str, shape: tuple[int, ...], type_name: str = "Q8_0") -> None:
        count = 1
        for extent in shape:
            count *= extent
        block, size = blocks[type_name]
        tensors.append(Tensor(name, shape, type_name, 0, count // block * size))

    add("token_embd.weight", (embd, 129280), kind)
    add("output_norm.weight", (embd,), "F32")
    add("output.weight", (embd, 129280), "Q6_K")
    for index in range(layers + nextn):
        b = f"blk.{index}."
        add(b + "attn_q_a.weight", (embd, 1536))
        add(b + "attn_q_b.weight", (1536, heads * 192))
        add(b + "attn_kv_a_mqa.weight", (embd, 576))
        add(b + "attn_k_b.weight", (128, 512, heads))
        add(b + "attn_v_b.weight", (512, 128, heads))
        add(b + "attn_output.weight", (heads * 128, embd))
        if index < dense:
            for part in ("gate", "up", "down"):
                add(b + f"ffn_{part}.weight", (embd, ff * 9))
            continue
        add(b + "ffn_gate_inp.weight", (embd, experts), "F32")
        for part in ("gate", "up", "down"):
            add(b + f"ffn_{part}_exps.weight", (embd, ff, experts), kind)
            add(b + f"ffn_{part}_shexp.weight", (embd, ff))
    counts = {
        "block_count": layers + nextn, "context_length": 163840, "embedding_length": embd,
        "attention.head_count": heads, "attention.head_count_kv": 1, "attention.key_length": 576,
        "attention.value_length": 512, "attention.key_length_mla": 192,
        "attention.value_length_mla": 128, "feed_forward_length": ff * 9,
        "expert_feed_forward_length": ff, "expert_count": experts, "expert_used_count": used,
        "expert_shared_count": 1, "nextn_predict_layers": nextn, "vocab_size": 129280,
    }  # fmt: skip
    metadata = {f"deepseek2.{key}": value for key, value in counts.items()}
    metadata |= {"general.architecture": "deepseek2", "general.name": "V3"}
    return GGUFInfo(Path("v3.gguf"), (), (), 0, 3, metadata, tuple(tensors))


def latent_shape(**dimensions: object) -> ModelShape:
    return read_shape(latent_info(**dimensions))  # type: ignore[arg-type]  # one of the names above
