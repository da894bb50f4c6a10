"""Small checkpoints that many tests read: made once a session, never changed by a test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The maker of checkpoints serves several test folders and lies beside them.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import checkpoints


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    checkpoints.make_v3(folder / "v3-fp8")
    checkpoints.make_v3(folder / "v3-odd-own-head", checkpoints.ODD, shared_mtp=False)
    checkpoints.make_v2_lite(folder / "v2-lite")
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Return a fresh checkpoint that a test may break: V3, BF16, two shards, a few hundred KB."""
    dims = checkpoints.Dims(
        hidden_size=32, intermediate_size=32, moe_intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, n_routed_experts=8, num_experts_per_tok=2, q_lora_rank=32,
        kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16,
    )  # fmt: skip
    return checkpoints.make_v3(tmp_path / "tiny", dims, dtype="BF16", shards=2)
