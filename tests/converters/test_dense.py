from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import checkpoints
import checkpoints_dense as dense
import dense_models
import numpy as np
import pytest
from gguf import GGUFReader

from converters import ConvertOptions, convert
from converters.errors import ConvertError
from converters.families import find_family
from converters.metadata.rope import read_rope_layout
from converters.planning.plan import make_plan
from converters.source.checkpoint import Checkpoint
from converters.source.config import Config

HERE = Path(__file__).parent
SMALL = dense.Dims(64, 64, 1, 4, 2)
MAKERS = {
    "llama": dense.make_llama, "moe": dense.make_moe, "qwen2": dense.make_qwen2,
    "qwen3": dense.make_qwen3,
}  # fmt: skip


class NoTensors:
    """A checkpoint as far as metadata() looks at one."""

    tensors: dict[str, None] = {}


def metadata(tmp_path: Path, family: str, **changes: Any) -> dict[str, Any]:
    folder = MAKERS[family](tmp_path / family, SMALL)
    config = Config(json.loads((folder / "config.json").read_text()) | changes)
    described = find_family(config).metadata(config, NoTensors(), False)  # type: ignore[arg-type]
    return dict(described.values)


@pytest.fixture(scope="module")
def logits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convert all models and run them, in one child process."""
    work = tmp_path_factory.mktemp("dense")
    golden = np.load(HERE / "golden_dense.npz")
    command = [sys.executable, str(HERE / "llama_logits.py")]
    for name, make in dense_models.MODELS.items():
        model, out = work / f"{name}.gguf", work / f"{name}.npz"
        convert(make(work / name), model, ConvertOptions(type="F32", threads=1))
        command += [str(model), str(out), ",".join(map(str, golden[f"{name}.tokens"]))]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return work


@pytest.mark.parametrize("name", dense_models.MODELS)
def test_llama_cpp_computes_the_logits_of_the_original(logits: Path, name: str) -> None:
    expected = np.load(HERE / "golden_dense.npz")[f"{name}.logits"]
    found = np.load(logits / f"{name}.npz")["logits"][7::8]
    assert np.abs(found - expected).max() <= 1e-4


@pytest.mark.parametrize("rows", [1, 10**9])  # a tile is one head, or everything
@pytest.mark.parametrize("kind", ["F32", "BF16"])
def test_the_halves_of_a_head_are_dealt_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, kind: str
) -> None:
    monkeypatch.setattr("converters.writing.tiles.TILE_ELEMENTS", rows)
    folder = dense.make_llama(tmp_path / "llama", SMALL, dtype=kind)
    convert(folder, tmp_path / "out.gguf", ConvertOptions(type=kind))
    tensors = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "out.gguf").tensors}
    for part, heads in (("q", 4), ("k", 2)):
        stored = checkpoints.random_weight(
            0, f"model.layers.0.self_attn.{part}_proj.weight", heads * 16, 64
        )
        order = [head * 16 + half * 8 + i for head in range(heads) for i in range(8)
                 for half in (0, 1)]  # fmt: skip
        expected = checkpoints.encode(stored[order], kind)
        assert tensors[f"blk.0.attn_{part}.weight"].data.tobytes() == expected


def test_linear_rope_scaling_is_written(tmp_path: Path) -> None:
    found = metadata(tmp_path, "llama", rope_scaling=dense.CODER_ROPE, rope_theta=100000)
    assert (found["rope.scaling.type"], found["rope.scaling.factor"]) == ("linear", 4.0)
    assert found["rope.freq_base"] == 100000


def test_yarn_is_written_without_the_key_that_transformers_ignores(tmp_path: Path) -> None:
    found = metadata(tmp_path, "qwen3")
    assert (found["rope.scaling.type"], found["rope.scaling.factor"]) == ("yarn", 4.0)
    assert found["rope.scaling.original_context_length"] == 64
    assert not [key for key in found if "attn_factor" in key]


@pytest.mark.parametrize(
    "settings", [{"attention_factor": 1.0}, {"mscale": 1.0, "mscale_all_dim": 1.0}]
)
def test_a_yarn_scale_other_than_the_usual_becomes_a_factor_on_it(
    settings: dict[str, float],
) -> None:
    rope = dense.QWEN3_ROPE | settings
    found = read_rope_layout(Config({"rope_scaling": rope}), 32).metadata
    assert found["rope.scaling.attn_factor"] == pytest.approx(1 / (1 + 0.1 * np.log(4)))


def test_llama3_factors_are_one_for_short_waves_and_whole_for_long_ones(tmp_path: Path) -> None:
    folder = dense.make_llama(tmp_path / "llama", kind="distill")
    convert(folder, tmp_path / "out.gguf", ConvertOptions(type="Q4_K_M"))
    tensors = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "out.gguf").tensors}
    factors = tensors["rope_freqs.weight"].data
    assert factors.dtype == np.float32
    # Waves of 2π·10000^(i/16) tokens: 16 and 64 are the bounds for a context of 64.
    assert factors[0] == factors[1] == 1
    assert 1 < factors[2] < factors[3] < 8
    assert (factors[5:] == 8).all()


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("llama", {"attention_bias": True}, "attention_bias"),
        ("llama", {"mlp_bias": True}, "mlp_bias"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act"),
        ("llama", {"num_key_value_heads": 3}, "4 heads do not share 3 keys"),
        ("llama", {"head_dim": 15}, "head_dim 15 is odd"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("llama", {"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "type 'dynamic'"),
        ("llama", {"rope_scaling": {"type": "linear"}}, "lacks factor"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 0.0}}, "factor is 0, below 1"),
        ("llama", {"rope_scaling": dense.PROVER_ROPE | {"beta_fast": 16}}, "beta_fast 16"),
        ("llama", {"rope_scaling": dense.PROVER_ROPE | {"truncate": False}}, "truncate"),
        ("llama", {"rope_scaling": dense.LLAMA3_ROPE | {"low_freq_factor": 4}}, "not below"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window"),
        ("qwen2", {"layer_types": ["sliding_attention"]}, "layer_types"),
        ("qwen2", {"head_dim": 32}, "do not make up hidden_size"),
        ("qwen2", {"rope_scaling": dense.LLAMA3_ROPE}, "rope_type 'llama3'"),
        ("qwen3", {"use_mrope": True}, "use_mrope"),
        ("moe", {"scoring_func": "sigmoid"}, "scoring_func"),
        ("moe", {"norm_topk_prob": True}, "norm_topk_prob"),
        ("moe", {"routed_scaling_factor": 2.0}, "routed_scaling_factor"),
        ("moe", {"rope_scaling": dense.CODER_ROPE}, "type 'linear'"),
        ("moe", {"num_experts_per_tok": 17}, "num_experts_per_tok is above"),
        ("moe", {"first_k_dense_replace": 2}, "first_k_dense_replace is above"),
    ],
)
def test_what_the_runtime_would_compute_otherwise_is_refused_by_name(
    tmp_path: Path, family: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConvertError) as caught:
        metadata(tmp_path, family, **changes)
    assert message in str(caught.value)


def test_old_shards_may_hold_inverse_frequencies(tmp_path: Path) -> None:
    folder = dense.make_llama(tmp_path / "llama", SMALL)
    tensors = dense.decoder(SMALL, "BF16")
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    tensors.add(name, checkpoints.fp8_values()[:8], "F32")
    checkpoints.write_shards(folder, tensors, 1)
    with Checkpoint(folder) as checkpoint:
        plan = make_plan(checkpoint, "F16")
    assert [one.source for one in plan.dropped] == [name]
