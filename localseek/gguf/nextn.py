"""The multi-token prediction (NextN) layers of a GGUF file: are they whole, can llama.cpp draft?

Takes a file's facts, gives the first problem in words, or nothing. A file that claims layers which
are not there is refused: llama.cpp would abort. Layers that are there but that it cannot draft with
are an obstacle only: the model runs without drafts (llama.cpp 0.3.36: the `graph_mtp` of each file
in src/models, llm_arch_supports_rs_rollback). Does not know how drafting works.
"""

from localseek.gguf.info import GGUFInfo

PARTS = ("eh_proj", "enorm", "hnorm")
# Architectures whose NextN layer llama.cpp has a graph for.
WITH_GRAPH = frozenset({
    "bailingmoe3", "cohere2moe", "deepseek2", "deepseek32", "deepseek4", "glm-dsa", "glm4moe",
    "hy_v3", "mimo2", "nemotron_h_moe", "qwen35", "qwen35moe", "qwen3next", "step35",
})  # fmt: skip
SEVERAL = frozenset({"hy_v3", "mimo2", "step35"})  # of whose NextN layers the first can draft alone
UNRETRACTABLE = frozenset({"qwen3next"})  # recurrent, without snapshots to go back to
OWN_NORM = frozenset({"bailingmoe3", "nemotron_h_moe"})  # their layer must bring its last norm


def holds_only_nextn(info: GGUFInfo) -> bool:
    """Tell whether a file holds NextN layers for another file's trunk."""
    return info.nextn_layers > 0 and not any(t.name.startswith("blk.0.") for t in info.tensors)


def nextn_problem(info: GGUFInfo) -> str:
    """Name what is wrong with the NextN layers that a file claims."""
    layers, nextn = info.block_count, info.nextn_layers
    if nextn > 0 and nextn >= layers:
        return f"it claims {nextn} multi-token prediction layers of {layers}"
    names = {tensor.name for tensor in info.tensors}
    for layer in range(layers - nextn, layers):
        for part in PARTS:
            if f"blk.{layer}.nextn.{part}.weight" not in names:
                return (
                    f"it claims a multi-token prediction layer (nextn_predict_layers {nextn}), "
                    f"but blk.{layer}.nextn.{part}.weight is not there"
                )
    return ""


def draft_obstacle(info: GGUFInfo) -> str:
    """Say why llama.cpp cannot draft with the NextN layers that a file has, "" if it can."""
    kind = info.architecture
    if kind not in WITH_GRAPH:
        return f"llama.cpp does not run the NextN layer of {kind} models"
    if kind in UNRETRACTABLE:
        return f"llama.cpp cannot take rejected drafts back in {kind} models"
    if info.nextn_layers > 1 and kind not in SEVERAL:
        return f"it has {info.nextn_layers} NextN layers, and llama.cpp drafts with one"
    layer = info.block_count - info.nextn_layers
    if kind == "mimo2" and not _has(info, f"blk.{layer}.attn_qkv.weight"):
        return "llama.cpp drafts with a joint attn_qkv only, and its NextN layer has none"
    if kind == "deepseek2":
        return _latent_obstacle(info, layer)
    if kind == "deepseek4":
        return _v4_obstacle(info, layer)
    if kind in OWN_NORM and not _has(info, f"blk.{layer}.nextn.shared_head_norm.weight"):
        return f"its NextN layer lacks blk.{layer}.nextn.shared_head_norm.weight"
    return ""


def _latent_obstacle(info: GGUFInfo, layer: int) -> str:
    if not info.count("attention.key_length_mla"):
        return "its attention is stored in the old way, without attn_k_b and attn_v_b"
    if not info.count("attention.q_lora_rank"):
        return "llama.cpp drafts with compressed queries only (attention.q_lora_rank)"
    if info.count("leading_dense_block_count") > layer or not _has(
        info, f"blk.{layer}.ffn_gate_inp.weight"
    ):
        return "llama.cpp drafts with a layer of experts only, and its NextN layer is dense"
    if info.get("deepseek2.attention.temperature_scale"):
        return "llama.cpp does not draft where attention has a temperature"
    return ""


def _v4_obstacle(info: GGUFInfo, layer: int) -> str:
    ratios = info.array("deepseek4.attention.compress_ratios")
    if len(ratios) > layer and ratios[layer]:
        return f"its NextN layer compresses {ratios[layer]} to 1, and llama.cpp drafts with none"
    if info.count("hash_layer_count") > layer:
        return "its NextN layer is routed by hash"
    if info.count("attention.key_length") == info.count("attention.indexer.key_length"):
        # llama.cpp makes a rotation for the keys of an empty cache then, and divides by zero.
        return "llama.cpp cannot draft where heads are as wide as the indexer's"
    return ""


def _has(info: GGUFInfo, name: str) -> bool:
    return any(tensor.name == name for tensor in info.tensors)
