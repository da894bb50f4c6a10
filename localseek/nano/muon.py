"""The optimizer of the embedded model: Muon for matrices, AdamW for everything else.

Muon replaces a matrix's momentum by its nearest orthogonal matrix (Newton-Schulz iteration);
the update's scale is that of "Muon is Scalable for LLM Training" (arXiv 2502.16982). Several
processes share one model: each updates its own part of the matrices.
"""

from typing import Any

import torch
from torch import Tensor, nn

PLAIN = ("embed_tokens", "lm_head", "router")  # matrices that AdamW takes


def orthogonalized(matrix: Tensor, iterations: int = 5) -> Tensor:
    """Give the nearest semi-orthogonal matrix of each [..., rows, columns], roughly."""
    a, b, c = 3.4445, -4.7750, 2.0315  # quintic coefficients by Keller Jordan
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Optimizer:
    """Both optimizers over shared parameters, gradients and momenta."""

    def __init__(self, model: nn.Module, peak: float, weight_decay: float = 0.05) -> None:
        self.peak, self.weight_decay = peak, weight_decay
        named = list(model.named_parameters())
        muon = [p for n, p in named if p.ndim > 1 and not any(w in n for w in PLAIN)]
        chosen = {id(p) for p in muon}
        self.matrices = [(p, torch.zeros_like(p).share_memory_()) for p in muon]
        self.others = [p for _, p in named if id(p) not in chosen]
        self.adam = torch.optim.AdamW(self.others, lr=peak, betas=(0.9, 0.97), weight_decay=0.0)

    @torch.no_grad()
    def step(self, factor: float, rank: int, ranks: int) -> None:
        """Take this rank's share of one step at `factor` times the peak learning rate."""
        rate = self.peak * factor
        for parameter, momentum in self.matrices[rank::ranks]:
            assert parameter.grad is not None
            momentum.lerp_(parameter.grad, 0.05)
            direction = orthogonalized(parameter.grad.lerp(momentum, 0.95))
            scale = 0.2 * max(parameter.shape[-2:]) ** 0.5
            parameter.mul_(1 - rate * self.weight_decay).sub_(direction, alpha=rate * scale)
        if rank == 0:
            for group in self.adam.param_groups:
                group["lr"] = rate
            self.adam.step()

    def state_dict(self) -> dict[str, Any]:
        """Give what `load_state_dict` takes."""
        return {"adam": self.adam.state_dict(), "momentum": [m for _, m in self.matrices]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a stored state."""
        self.adam.load_state_dict(state["adam"])
        for (_, momentum), stored in zip(self.matrices, state["momentum"], strict=True):
            momentum.copy_(stored)
