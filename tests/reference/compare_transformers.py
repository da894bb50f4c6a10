"""Compare logits with transformers, and MTP logits with a plain PyTorch layer: run by hand.

    python tests/reference/compare_transformers.py WORK_FOLDER

Needs torch and transformers. Makes the small checkpoints of tests/checkpoints.py, computes 64
tokens with DeepseekV3ForCausalLM and DeepseekV2ForCausalLM on weights dequantized here with
torch's own FP8 type, and prints the largest difference from llama.cpp on our F32 file. The MTP
layer is written out below from DeepSeek's README_WEIGHTS and report, sharing no code with either
program. Writes tests/converters/golden_logits.npz, which the test suite compares with.
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
from safetensors.torch import load_file, save_file
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import checkpoints  # noqa: E402 - the paths above come first

import converters  # noqa: E402

GOLDEN = ROOT / "tests" / "converters" / "golden_logits.npz"
RUNNER = ROOT / "tests" / "converters" / "llama_logits.py"
N_TOKENS = 64
GOLDEN_ROWS = slice(2, None, 4)  # every fourth row, to keep the file small
Weights = dict[str, torch.Tensor]


def load_weights(folder: Path) -> Weights:
    """Read all shards and dequantize: W = fp8 × scale of its 128×128 block."""
    stored: Weights = {}
    for shard in sorted(folder.glob("*.safetensors")):
        stored |= load_file(shard)
    weights: Weights = {}
    for name, value in stored.items():
        if name.endswith("_scale_inv"):
            continue
        weights[name] = value.float()
        if value.dtype == torch.float8_e4m3fn:
            scale = stored[name + "_scale_inv"]
            spread = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)
            weights[name] = value.float() * spread[: value.shape[0], : value.shape[1]]
    return weights


def reference(folder: Path, weights: Weights, tokens: torch.Tensor) -> tuple[Any, torch.Tensor]:
    """Return transformers' logits [n, vocab] and its hidden rows after the final norm."""
    from transformers import AutoConfig, AutoModelForCausalLM

    plain = folder.with_name(folder.name + "-f32")
    plain.mkdir()
    config = json.loads((folder / "config.json").read_text())
    config.pop("quantization_config", None)
    config["torch_dtype"] = "float32"
    (plain / "config.json").write_text(json.dumps(config))
    trunk = f"model.layers.{config['num_hidden_layers']}."
    kept = {name: value.contiguous() for name, value in weights.items() if trunk not in name}
    save_file(kept, plain / "model.safetensors", metadata={"format": "pt"})
    model = AutoModelForCausalLM.from_pretrained(
        plain, config=AutoConfig.from_pretrained(plain), dtype=torch.float32,
        attn_implementation="eager",
    )  # fmt: skip
    with torch.no_grad():
        hidden = model.model(tokens[None]).last_hidden_state[0]
        return model.lm_head(hidden).numpy(), hidden


def rms_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight


def yarn_angles(config: dict[str, Any], n: int) -> torch.Tensor:
    """Return the rotation angle of every position and pair [n, rope / 2] (YaRN, eq. 23)."""
    dim, yarn, base = config["qk_rope_head_dim"], config["rope_scaling"], config["rope_theta"]
    inverse = base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)

    def pair_of(rotations: float) -> float:
        length = yarn["original_max_position_embeddings"]
        return dim * math.log(length / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low = max(math.floor(pair_of(yarn["beta_fast"])), 0)
    high = min(math.ceil(pair_of(yarn["beta_slow"])), dim - 1)
    ramp = ((torch.arange(dim // 2) - low) / max(high - low, 0.001)).clamp(0, 1).double()
    inverse = inverse * (1 - ramp) + inverse / yarn["factor"] * ramp
    return (torch.arange(n).double()[:, None] * inverse[None]).float()


def rotate(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Rotate neighbouring values (0, 1), (2, 3), … of [n, heads, rope]."""
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2).contiguous())
    turned = pairs * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.view_as_real(turned).flatten(-2)


def attention(config: dict[str, Any], w: Weights, x: torch.Tensor) -> torch.Tensor:
    n, heads = len(x), config["num_attention_heads"]
    nope, rope, value = (
        config[key] for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    )
    q = rms_norm(x @ w["self_attn.q_a_proj"].T, w["self_attn.q_a_layernorm"])
    q = (q @ w["self_attn.q_b_proj"].T).view(n, heads, nope + rope)
    latent, k_rope = (x @ w["self_attn.kv_a_proj_with_mqa"].T).split(
        [config["kv_lora_rank"], rope], dim=-1
    )
    latent = rms_norm(latent, w["self_attn.kv_a_layernorm"])
    kv = (latent @ w["self_attn.kv_b_proj"].T).view(n, heads, nope + value)
    angles = yarn_angles(config, n)
    q = torch.cat([q[..., :nope], rotate(q[..., nope:], angles)], -1)
    k_rope = rotate(k_rope[:, None], angles).expand(n, heads, rope)
    k = torch.cat([kv[..., :nope], k_rope], -1)
    yarn = config["rope_scaling"]
    mscale = 1 + 0.1 * yarn["mscale_all_dim"] * math.log(yarn["factor"])
    scores = torch.einsum("qhd,khd->hqk", q, k) * mscale**2 / math.sqrt(nope + rope)
    scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), -math.inf)
    mixed = torch.einsum("hqk,khd->qhd", scores.softmax(-1), kv[..., nope:])
    return mixed.reshape(n, -1) @ w["self_attn.o_proj"].T


def feed_forward(w: Weights, prefix: str, x: torch.Tensor) -> torch.Tensor:
    gate = functional.silu(x @ w[f"{prefix}.gate_proj"].T)
    return (gate * (x @ w[f"{prefix}.up_proj"].T)) @ w[f"{prefix}.down_proj"].T


def experts(config: dict[str, Any], w: Weights, x: torch.Tensor) -> torch.Tensor:
    """Route a token at a time: the best groups by their best two, then the best experts."""
    rows = []
    for row in x:
        scores = torch.sigmoid(w["mlp.gate"] @ row)
        biased = (scores + w["mlp.gate.e_score_correction_bias"]).view(config["n_group"], -1)
        best = biased.topk(2).values.sum(-1).topk(config["topk_group"]).indices
        open_groups = torch.full_like(biased, -math.inf)
        open_groups[best] = biased[best]
        chosen = open_groups.flatten().topk(config["num_experts_per_tok"]).indices
        shares = scores[chosen] / scores[chosen].sum() * config["routed_scaling_factor"]
        parts = [
            share * feed_forward(w, f"mlp.experts.{number}", row)
            for share, number in zip(shares, chosen.tolist(), strict=True)
        ]
        rows.append(torch.stack(parts).sum(0) + feed_forward(w, "mlp.shared_experts", row))
    return torch.stack(rows)


def mtp_reference(
    config: dict[str, Any], weights: Weights, tokens: torch.Tensor, hidden: torch.Tensor
) -> Any:
    """Return MTP logits [n - 1, vocab]: row i from token i + 1 and hidden row i."""
    prefix = f"model.layers.{config['num_hidden_layers']}."
    w = {
        name.removeprefix(prefix).removesuffix(".weight"): value
        for name, value in weights.items()
        if name.startswith(prefix)
    }
    embedded = rms_norm(w["embed_tokens"][tokens[1:]], w["enorm"])
    x = torch.cat([embedded, rms_norm(hidden[:-1], w["hnorm"])], -1) @ w["eh_proj"].T
    x = x + attention(config, w, rms_norm(x, w["input_layernorm"]))
    x = x + experts(config, w, rms_norm(x, w["post_attention_layernorm"]))
    return (rms_norm(x, w["shared_head.norm"]) @ w["shared_head.head"].T).numpy()


def main() -> None:
    work = Path(sys.argv[1]).resolve()
    work.mkdir(parents=True)
    checkpoints.make_v3(work / "v3-fp8")
    checkpoints.make_v3(work / "v3-bf16", dtype="BF16", shards=3)
    checkpoints.make_v3(work / "v3-odd-own-head", checkpoints.ODD, shared_mtp=False)
    checkpoints.make_v2_lite(work / "v2-lite")
    golden: dict[str, Any] = {}
    worst = 0.0
    for folder in sorted(path for path in work.iterdir() if path.is_dir()):
        config = json.loads((folder / "config.json").read_text())
        tokens = np.random.default_rng(7).integers(3, 263, N_TOKENS)
        weights = load_weights(folder)
        logits, hidden = reference(folder, weights, torch.from_numpy(tokens))
        expected = {"logits": logits}
        if "num_nextn_predict_layers" in config:
            with torch.no_grad():
                rows = mtp_reference(config, weights, torch.from_numpy(tokens), hidden)
            expected["mtp_logits"] = rows
        model, out = work / f"{folder.name}.gguf", work / f"{folder.name}.npz"
        converters.convert(folder, model, converters.ConvertOptions(type="F32"))
        text = ",".join(map(str, tokens))
        command = [sys.executable, str(RUNNER), str(model), str(out), text]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        found = np.load(out)
        for key, rows in expected.items():
            difference = float(np.abs(found[key] - rows).max())
            worst = max(worst, difference)
            spread = float(rows.std())
            print(f"{folder.name} {key}: max |difference| {difference:.2e} (spread {spread:.2f})")
            golden[f"{folder.name}.{key}"] = rows[GOLDEN_ROWS].astype(np.float32)
        golden[f"{folder.name}.tokens"] = tokens
    np.savez_compressed(GOLDEN, **golden)
    print(f"worst {worst:.2e}", "ok" if worst <= 1e-4 else "TOO FAR")


if __name__ == "__main__":
    main()
