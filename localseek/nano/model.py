"""DeepSeek-V3's architecture in PyTorch, for training the embedded model.

Takes token ids [batch, length], gives logits of the next token and, from the multi-token
prediction layer, of the one after. Parameter names and layouts are those of the released
checkpoints (experts apart: stacked here, split when exported). Training only: the runtime is
llama.cpp. Source of the formulas: DeepSeek-V3 technical report, sections 2.1 and 2.2.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Config = dict[str, Any]


class RMSNorm(nn.Module):
    """Root mean square norm with a learned scale."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension."""
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Give a projection without bias, initialized for a unit-variance input."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=0.5 * inputs**-0.5)
    return layer


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate interleaved pairs of the last dimension, as released checkpoints lay them out."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class Attention(nn.Module):
    """Multi-head latent attention with compressed queries and keys/values."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.heads, self.nope = c["num_attention_heads"], c["qk_nope_head_dim"]
        self.rope, self.v = c["qk_rope_head_dim"], c["v_head_dim"]
        self.rank = c["kv_lora_rank"]
        eps, width = c["rms_norm_eps"], c["hidden_size"]
        self.q_a_proj = linear(width, c["q_lora_rank"])
        self.q_a_layernorm = RMSNorm(c["q_lora_rank"], eps)
        self.q_b_proj = linear(c["q_lora_rank"], self.heads * (self.nope + self.rope))
        self.kv_a_proj_with_mqa = linear(width, self.rank + self.rope)
        self.kv_a_layernorm = RMSNorm(self.rank, eps)
        self.kv_b_proj = linear(self.rank, self.heads * (self.nope + self.v))
        self.o_proj = linear(self.heads * self.v, width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Attend causally over [batch, length, width]."""
        b, t, _ = x.shape
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))).view(b, t, self.heads, -1)
        q_nope, q_rope = q.transpose(1, 2).split((self.nope, self.rope), -1)
        latent, k_rope = self.kv_a_proj_with_mqa(x).split((self.rank, self.rope), -1)
        kv = self.kv_b_proj(self.kv_a_layernorm(latent)).view(b, t, self.heads, -1)
        k_nope, v = kv.transpose(1, 2).split((self.nope, self.v), -1)
        k_rope = rotate(k_rope.unsqueeze(1), cos, sin).expand(-1, self.heads, -1, -1)
        query = torch.cat((q_nope, rotate(q_rope, cos, sin)), -1)
        key = torch.cat((k_nope, k_rope), -1)
        # Values as wide as keys take PyTorch's fast path.
        wide = F.pad(v, (0, self.nope + self.rope - self.v))
        out = F.scaled_dot_product_attention(query, key, wide, is_causal=True)[..., : self.v]
        result: Tensor = self.o_proj(out.transpose(1, 2).flatten(2))
        return result


class MLP(nn.Module):
    """SwiGLU feed-forward layer."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = linear(width, hidden), linear(width, hidden)
        self.down_proj = linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to [..., width]."""
        result: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return result


class MoE(nn.Module):
    """Routed experts with a sigmoid router, and a shared expert beside them.

    The selection bias has no gradient: after each step it moves towards an even load
    (auxiliary-loss-free balancing, arXiv 2408.15664).
    """

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.count, self.used = c["n_routed_experts"], c["num_experts_per_tok"]
        self.factor = c["routed_scaling_factor"]
        width, hidden = c["hidden_size"], c["moe_intermediate_size"]
        self.router = nn.Parameter(torch.randn(self.count, width) * 0.5 * width**-0.5)
        self.register_buffer("bias", torch.zeros(self.count))
        self.register_buffer("load", torch.zeros(self.count), persistent=False)
        scale = 0.5 * width**-0.5
        self.gate = nn.Parameter(torch.randn(self.count, hidden, width) * scale)
        self.up = nn.Parameter(torch.randn(self.count, hidden, width) * scale)
        self.down = nn.Parameter(torch.randn(self.count, width, hidden) * 0.5 * hidden**-0.5)
        self.shared_experts = MLP(width, hidden * c["n_shared_experts"])
        self.bias: Tensor
        self.load: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Send each token to its top experts and add the shared one."""
        flat = x.reshape(-1, x.shape[-1])
        scores = F.linear(flat, self.router).sigmoid()
        chosen = (scores + self.bias).topk(self.used, -1).indices
        weights = scores.gather(1, chosen)
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20) * self.factor
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=self.count)
        if self.training:
            self.load += counts
        rows = order // self.used
        parts = []
        for expert, part in enumerate(flat[rows].split(counts.tolist())):
            inner = F.silu(part @ self.gate[expert].T) * (part @ self.up[expert].T)
            parts.append(inner @ self.down[expert].T)
        mixed = torch.cat(parts) * weights.flatten()[order].unsqueeze(1)
        out = torch.zeros_like(flat).index_add(0, rows, mixed)
        result: Tensor = out.view_as(x) + self.shared_experts(x)
        return result

    @torch.no_grad()
    def balance(self, load: Tensor, speed: float) -> None:
        """Move the selection bias one step towards an even load; `load` counts tokens [experts]."""
        self.bias += speed * (load.mean() - load).sign()


class Layer(nn.Module):
    """A decoder layer: attention, then a dense or a mixture-of-experts feed-forward."""

    def __init__(self, c: Config, dense: bool) -> None:
        super().__init__()
        width, eps = c["hidden_size"], c["rms_norm_eps"]
        self.input_layernorm = RMSNorm(width, eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RMSNorm(width, eps)
        self.mlp: nn.Module = MLP(width, c["intermediate_size"]) if dense else MoE(c)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Apply the layer to [batch, length, width]."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        result: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return result


class Model(nn.Module):
    """The whole model: trunk, head, and one multi-token prediction layer."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        width, eps, self.config = c["hidden_size"], c["rms_norm_eps"], c
        self.embed_tokens = nn.Embedding(c["vocab_size"], width)
        nn.init.normal_(self.embed_tokens.weight, std=0.5)
        self.layers = nn.ModuleList(
            Layer(c, dense=i < c["first_k_dense_replace"]) for i in range(c["num_hidden_layers"])
        )
        self.norm = RMSNorm(width, eps)
        self.lm_head = linear(width, c["vocab_size"])
        self.enorm, self.hnorm = RMSNorm(width, eps), RMSNorm(width, eps)
        self.eh_proj = linear(2 * width, width)
        self.mtp_layer = Layer(c, dense=False)
        self.mtp_norm = RMSNorm(width, eps)

    def angles(self, length: int) -> tuple[Tensor, Tensor]:
        """Give cosines and sines of the rotary embedding, [length, rope / 2] each."""
        half = self.config["qk_rope_head_dim"] // 2
        frequency = self.config["rope_theta"] ** -(torch.arange(half) / half)
        angle = torch.outer(torch.arange(length), frequency)
        return angle.cos(), angle.sin()

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Give hidden rows after the final norm, of the trunk [b, t] and of the MTP [b, t-1]."""
        cos, sin = self.angles(tokens.shape[1])
        embedded = self.embed_tokens(tokens)
        x = embedded
        for layer in self.layers:
            x = layer(x, cos, sin)
        hidden = self.norm(x)
        joined = torch.cat((self.enorm(embedded[:, 1:]), self.hnorm(hidden[:, :-1])), -1)
        ahead = self.mtp_layer(self.eh_proj(joined), cos[:-1], sin[:-1])
        return hidden, self.mtp_norm(ahead)
