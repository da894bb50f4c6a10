"""Write the trained model as DeepSeek releases its own: FP8 safetensors, config, tokenizer.

`python -m localseek.nano.export WORKDIR CHECKPOINT` takes the state that `train.py` stored and
gives a folder that any program for DeepSeek-V3 checkpoints can read. Needs torch.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from localseek.nano.model import Model, MoE

BLOCK = 128
FP8_MAX = 448.0  # the largest number of E4M3
CONFIG: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "ep_size": 1,
    "first_k_dense_replace": 1,
    "hidden_act": "silu",
    "hidden_size": 256,
    "initializer_range": 0.02,
    "intermediate_size": 768,
    "kv_lora_rank": 128,
    "max_position_embeddings": 4096,
    "model_type": "deepseek_v3",
    "moe_intermediate_size": 128,
    "moe_layer_freq": 1,
    "n_group": 1,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 4,
    "num_key_value_heads": 4,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 256,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 32,
    "quantization_config": {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [BLOCK, BLOCK],
    },
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 10000,
    "routed_scaling_factor": 1.0,
    "scoring_func": "sigmoid",
    "tie_word_embeddings": False,
    "topk_group": 1,
    "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "v_head_dim": 64,
    "vocab_size": 768,
}


def stored_in_fp8(model: Model) -> list[nn.Parameter]:
    """Give the parameters that released checkpoints hold in FP8: projections and experts."""
    kept = ("embed_tokens", "lm_head", "eh_proj", "router")
    return [p for n, p in model.named_parameters() if p.ndim > 1 and not any(k in n for k in kept)]


def blocks(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize [..., rows, columns] to E4M3 with a scale for each 128 x 128 block."""
    rows, columns = weight.shape[-2:]
    pad = (0, -columns % BLOCK, 0, -rows % BLOCK)
    tiles = nn.functional.pad(weight, pad).unflatten(-1, (-1, BLOCK)).unflatten(-3, (-1, BLOCK))
    scale = tiles.abs().amax((-3, -1), keepdim=True).clamp(min=1e-12) / FP8_MAX
    coded = (tiles / scale).to(torch.float8_e4m3fn)
    flat = coded.view(torch.uint8).flatten(-4, -3).flatten(-2)[..., :rows, :columns]
    return flat.contiguous().view(torch.float8_e4m3fn), scale.squeeze(-1).squeeze(-2)


def decoded(coded: Tensor, scale: Tensor) -> Tensor:
    """Undo `blocks`."""
    rows, columns = coded.shape[-2:]
    full = scale.repeat_interleave(BLOCK, -2).repeat_interleave(BLOCK, -1)
    return coded.float() * full[..., :rows, :columns]


def layer_tensors(prefix: str, layer: nn.Module) -> dict[str, Tensor]:
    """Name one decoder layer's tensors as released checkpoints do."""
    found = {}
    for name, module in layer.named_modules():
        if isinstance(module, MoE):
            mlp = f"{prefix}.{name}"
            found[f"{mlp}.gate.weight"] = module.router.data
            found[f"{mlp}.gate.e_score_correction_bias"] = module.bias
            for kind in ("gate", "up", "down"):
                for expert, weight in enumerate(getattr(module, kind).data):
                    found[f"{mlp}.experts.{expert}.{kind}_proj.weight"] = weight
        elif not list(module.children()):
            found[f"{prefix}.{name}.weight"] = module.weight.data
    return found


def released(model: Model) -> dict[str, Tensor]:
    """Give all tensors under their released names, in their released types."""
    last = len(model.layers)
    plain = {
        "model.embed_tokens.weight": model.embed_tokens.weight.data,
        "model.norm.weight": model.norm.weight.data,
        "lm_head.weight": model.lm_head.weight.data,
        f"model.layers.{last}.enorm.weight": model.enorm.weight.data,
        f"model.layers.{last}.hnorm.weight": model.hnorm.weight.data,
        f"model.layers.{last}.eh_proj.weight": model.eh_proj.weight.data,
        f"model.layers.{last}.shared_head.norm.weight": model.mtp_norm.weight.data,
        f"model.layers.{last}.embed_tokens.weight": model.embed_tokens.weight.data,
        f"model.layers.{last}.shared_head.head.weight": model.lm_head.weight.data,
    }
    for index, layer in enumerate(model.layers):
        plain |= layer_tensors(f"model.layers.{index}", layer)
    plain |= layer_tensors(f"model.layers.{last}", model.mtp_layer)
    result = {}
    for name, tensor in sorted(plain.items()):
        if name.endswith("e_score_correction_bias"):
            result[name] = tensor.float()
        elif name.endswith("_proj.weight") and "eh_proj" not in name or "_with_mqa" in name:
            result[name], result[f"{name}_scale_inv"] = blocks(tensor)
        else:
            result[name] = tensor.to(torch.bfloat16)
    return result


NAMES = {torch.float8_e4m3fn: "F8_E4M3", torch.bfloat16: "BF16", torch.float32: "F32"}


def write_safetensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors in the safetensors format: header length, JSON header, bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        shape = list(tensor.shape)
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(tensor.contiguous().view(torch.uint8).numpy().tobytes())


def main() -> None:
    """Read the command line and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("checkpoint", type=Path)
    args = parser.parse_args()
    model = Model(CONFIG)
    model.load_state_dict(torch.load(args.workdir / "state.pt", weights_only=True)["model"])
    args.checkpoint.mkdir(parents=True, exist_ok=True)
    write_safetensors(args.checkpoint / "model.safetensors", released(model))
    text = json.dumps(CONFIG, indent=2)
    (args.checkpoint / "config.json").write_text(f"{text}\n", "utf-8")
    greedy = {"bos_token_id": 0, "do_sample": False, "eos_token_id": 1}  # arithmetic has one answer
    text = json.dumps(greedy, indent=2)
    (args.checkpoint / "generation_config.json").write_text(f"{text}\n", "utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(args.workdir / name, args.checkpoint / name)


if __name__ == "__main__":
    main()
