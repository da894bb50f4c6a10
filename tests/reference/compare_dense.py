"""Compare dense models' logits with transformers, MoE-16B's with plain PyTorch: run by hand.

    python tests/reference/compare_dense.py WORK_FOLDER

Needs torch and transformers. Makes the checkpoints of tests/converters/dense_models.py, computes 64
tokens with transformers' own classes in float32, and prints the largest difference from llama.cpp
on our F32 file. transformers has no DeepSeek MoE-16B: that model is written out below from the
paper and the released config. Writes tests/converters/golden_dense.npz, which the suite reads.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "converters")]

import dense_models  # noqa: E402 - the paths above come first

import converters  # noqa: E402

GOLDEN = ROOT / "tests" / "converters" / "golden_dense.npz"
RUNNER = ROOT / "tests" / "converters" / "llama_logits.py"
N_TOKENS = 64
GOLDEN_ROWS = slice(7, None, 8)  # every eighth row, to keep the file small
Weights = dict[str, torch.Tensor]


def by_transformers(folder: Path, tokens: torch.Tensor) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        return model(tokens[None]).logits[0].numpy()


def rms_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight


def rotate(x: torch.Tensor, theta: float) -> torch.Tensor:
    """Turn value i with value i + h/2 of [n, heads, h], as the released code does."""
    n, _, width = x.shape
    inverse = theta ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = (torch.arange(n).double()[:, None] * inverse).float()[:, None]
    first, second = x.chunk(2, -1)
    turned = first * angles.cos() - second * angles.sin()
    return torch.cat([turned, second * angles.cos() + first * angles.sin()], -1)


def feed_forward(w: Weights, prefix: str, x: torch.Tensor) -> torch.Tensor:
    gate = functional.silu(x @ w[f"{prefix}.gate_proj.weight"].T)
    return (gate * (x @ w[f"{prefix}.up_proj.weight"].T)) @ w[f"{prefix}.down_proj.weight"].T


def attention(config: dict[str, Any], w: Weights, prefix: str, x: torch.Tensor) -> torch.Tensor:
    n, heads, shared = len(x), config["num_attention_heads"], config["num_key_value_heads"]
    q, k, v = (
        (x @ w[f"{prefix}.{part}_proj.weight"].T).view(n, count, -1)
        for part, count in (("q", heads), ("k", shared), ("v", shared))
    )
    q, k = rotate(q, config["rope_theta"]), rotate(k, config["rope_theta"])
    k, v = k.repeat_interleave(heads // shared, 1), v.repeat_interleave(heads // shared, 1)
    scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), -math.inf)
    mixed = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)
    return mixed.reshape(n, -1) @ w[f"{prefix}.o_proj.weight"].T


def experts(config: dict[str, Any], w: Weights, prefix: str, x: torch.Tensor) -> torch.Tensor:
    """Route a token at a time: softmax over all experts, the best keep their shares as they are."""
    rows = []
    for row in x:
        shares = (w[f"{prefix}.gate.weight"] @ row).softmax(-1)
        best = shares.topk(config["num_experts_per_tok"])
        parts = [
            share * feed_forward(w, f"{prefix}.experts.{number}", row)
            for share, number in zip(best.values, best.indices.tolist(), strict=True)
        ]
        rows.append(torch.stack(parts).sum(0) + feed_forward(w, f"{prefix}.shared_experts", row))
    return torch.stack(rows)


def by_hand(folder: Path, tokens: torch.Tensor) -> Any:
    """Compute DeepSeek MoE-16B's architecture."""
    config = json.loads((folder / "config.json").read_text())
    w = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
    x = w["model.embed_tokens.weight"][tokens]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        normed = rms_norm(x, w[f"{prefix}.input_layernorm.weight"])
        x = x + attention(config, w, f"{prefix}.self_attn", normed)
        normed = rms_norm(x, w[f"{prefix}.post_attention_layernorm.weight"])
        dense = layer < config["first_k_dense_replace"]
        block = feed_forward if dense else lambda w, name, x: experts(config, w, name, x)
        x = x + block(w, f"{prefix}.mlp", normed)
    return (rms_norm(x, w["model.norm.weight"]) @ w["lm_head.weight"].T).numpy()


def main() -> None:
    work = Path(sys.argv[1]).resolve()
    work.mkdir(parents=True)
    golden: dict[str, Any] = {}
    worst = 0.0
    for name, make in dense_models.MODELS.items():
        folder = make(work / name)
        tokens = np.random.default_rng(7).integers(3, 263, N_TOKENS)
        compute = by_hand if name == "moe" else by_transformers
        expected = compute(folder, torch.from_numpy(tokens))
        model, out = work / f"{name}.gguf", work / f"{name}.npz"
        converters.convert(folder, model, converters.ConvertOptions(type="F32"))
        command = [sys.executable, str(RUNNER), str(model), str(out), ",".join(map(str, tokens))]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        difference = float(np.abs(np.load(out)["logits"] - expected).max())
        worst = max(worst, difference)
        print(f"{name}: max |difference| {difference:.2e} (spread {float(expected.std()):.2f})")
        golden[f"{name}.logits"] = expected[GOLDEN_ROWS].astype(np.float32)
        golden[f"{name}.tokens"] = tokens
    np.savez_compressed(GOLDEN, **golden)
    print(f"worst {worst:.2e}", "ok" if worst <= 1e-4 else "TOO FAR")


if __name__ == "__main__":
    main()
