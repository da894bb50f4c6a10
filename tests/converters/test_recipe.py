from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import checkpoints
import golden_models
import pytest

from converters.checkpoint import Checkpoint
from converters.config import Config
from converters.errors import ConvertError
from converters.families import deepseek_v3
from converters.layout import Target
from converters.plan import Plan, make_plan
from converters.recipe import TYPE_NAMES

GOLDEN = json.loads((Path(__file__).parent / "golden_types.json").read_text())


def plan_of(folder: Path, kind: str, *overrides: tuple[str, str]) -> Plan:
    with Checkpoint(folder) as checkpoint:
        return make_plan(checkpoint, kind, overrides=overrides)


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_types_are_those_of_llama_quantize_for_every_mixture(tmp_path: Path, name: str) -> None:
    folder = golden_models.MODELS[name](tmp_path / name)
    draft = f"blk.{golden_models.DEPTHS[name]}."
    for kind, expected in GOLDEN[name].items():
        different = {
            tensor.name: (tensor.kind.name, expected.get(tensor.name, "F32"))
            for tensor in plan_of(folder, kind).tensors
            if not tensor.name.startswith(draft)
            and tensor.kind.name != expected.get(tensor.name, "F32")
        }
        assert not different, kind


def test_every_tensor_has_a_reason(models: Path) -> None:
    for kind in TYPE_NAMES:
        assert all(tensor.why for tensor in plan_of(models / "v3-fp8", kind).tensors)


@pytest.mark.parametrize("kind", ["Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S", "Q3_K_M", "Q2_K"])
def test_the_mtp_layer_never_falls_below_q8_0(models: Path, kind: str) -> None:
    tensors = plan_of(models / "v3-fp8", kind).tensors
    draft = {tensor.kind.name for tensor in tensors if tensor.name.startswith("blk.3.")}
    assert draft == {"F32", "Q8_0"}


def test_an_override_beats_the_mixture_and_the_draft_floor(models: Path) -> None:
    plan = plan_of(models / "v3-fp8", "Q4_K_M", (r"ffn_down_exps", "q3_k"))
    chosen = {tensor.kind.name for tensor in plan.tensors if "ffn_down_exps" in tensor.name}
    assert chosen == {"Q3_K"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (("ffn_dwon", "Q8_0"), "--tensor-type ffn_dwon decides no tensor"),
        (("ffn_gate_inp", "Q8_0"), "--tensor-type ffn_gate_inp decides no tensor"),
        (("(", "Q8_0"), "--tensor-type '(' is no valid pattern"),
        (("ffn", "Q9_9"), "unknown type 'Q9_9'"),
    ],
)
def test_a_bad_override_is_named(models: Path, override: tuple[str, str], message: str) -> None:
    with pytest.raises(ConvertError) as caught:
        plan_of(models / "v3-fp8", "Q8_0", override)
    assert message in str(caught.value)


def test_an_unknown_type_is_named(models: Path) -> None:
    with pytest.raises(ConvertError, match="unknown type 'Q7_K'"):
        plan_of(models / "v3-fp8", "Q7_K")


def test_real_v3_dimensions_give_the_tensor_count_that_the_loader_expects() -> None:
    # 1,086 tensors without MTP, 1,108 with it: deepseek.md 5A, counted from the loader.
    dims = replace(
        checkpoints.Dims(), num_hidden_layers=61, first_k_dense_replace=3, n_routed_experts=8
    )
    config = checkpoints.v3_config(dims)

    class NoTensors:
        tensors = {"model.layers.61.eh_proj.weight": None}

    for mtp, count in ((False, 1086), (True, 1108)):
        described = deepseek_v3.tensors(Config(config), NoTensors(), mtp)  # type: ignore[arg-type]
        assert sum(isinstance(one, Target) for one in described) == count
