from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import checkpoints
import golden_models
import golden_types
import pytest

from converters.errors import ConvertError
from converters.families import deepseek_v3
from converters.kernels.quantize import NEEDS_IMPORTANCE, requires_importance
from converters.layout import Target
from converters.planning.plan import Plan, make_plan
from converters.source.checkpoint import Checkpoint
from converters.source.config import Config
from converters.types.mixtures import MIXTURES, Facts, Shape
from converters.types.recipe import NEED_IMATRIX, TENSOR_TYPES, choose_types

GOLDEN = golden_types.load()


def plan_of(folder: Path, kind: str, *overrides: tuple[str, str]) -> Plan:
    with Checkpoint(folder) as checkpoint:
        return make_plan(checkpoint, kind, overrides=overrides)


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_types_are_those_of_llama_quantize_for_every_mixture(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    if name in golden_models.MODELS:
        golden_models.MODELS[name](folder)
    assert golden_types.differences(name, folder, GOLDEN[name]) == []


def test_the_golden_types_cover_every_mixture_that_quantizes_with_and_without_an_imatrix() -> None:
    plain = {"F32", "F16", "BF16"}
    assert {one.mixture for one in golden_types.COLUMNS if one.imatrix} == MIXTURES.keys() - plain
    without = {one.mixture for one in golden_types.COLUMNS if not one.imatrix}
    assert without == MIXTURES.keys() - plain - set(NEED_IMATRIX)
    seen = {kind for types in GOLDEN.values() for row in types.values() for kind in row.values()}
    assert seen > {mixture.base.name for mixture in MIXTURES.values()} - plain


def test_every_tensor_has_a_reason(models: Path) -> None:
    for kind in MIXTURES.keys() - set(NEED_IMATRIX):
        assert all(tensor.why for tensor in plan_of(models / "v3-fp8", kind).tensors)


@pytest.mark.parametrize("kind", ["Q6_K", "Q5_0", "Q4_K_M", "Q2_K", "IQ4_XS", "MXFP4_MOE", "TQ1_0"])
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


@pytest.mark.parametrize("kind", NEED_IMATRIX)
def test_a_mixture_that_needs_an_imatrix_says_which_types_need_none(
    models: Path, kind: str
) -> None:
    with pytest.raises(ConvertError) as caught:
        plan_of(models / "v3-fp8", kind)
    message = str(caught.value)
    assert "needs an importance matrix" in message
    free = message.partition("types that need none: ")[2].split(", ")
    assert kind not in free
    for other in free:
        plan_of(models / "v3-fp8", other)


def test_an_override_that_needs_importance_names_its_tensor(models: Path) -> None:
    with pytest.raises(ConvertError, match=r"blk.1.ffn_up_exps.weight would be IQ2_XXS"):
        plan_of(models / "v3-fp8", "Q4_K_M", (r"blk\.1\.ffn_up_exps", "IQ2_XXS"))


def test_a_tensor_that_an_imatrix_lacks_falls_back_to_a_type_that_needs_none() -> None:
    shapes = [Shape(f"blk.0.{name}.weight", (4, 256)) for name in ("ffn_up", "ffn_gate", "attn_q")]
    facts = Facts(n_layer=1, n_layer_all=1, n_expert=0, n_gqa=1, has_imatrix=True)
    for mixture, here, lacking in (
        ("IQ1_S", "IQ1_S", "Q2_K"), ("IQ2_M", "IQ2_S", "Q2_K"), ("IQ3_XXS", "IQ3_XXS", "IQ3_S"),
        ("Q2_K_S", "Q2_K", "Q3_K"), ("Q4_K_M", "Q4_K", "Q4_K"), ("IQ4_XS", "IQ4_XS", "IQ4_XS"),
    ):  # fmt: skip
        chosen = choose_types(shapes, mixture, facts, important={"blk.0.ffn_up.weight"})
        assert chosen["blk.0.ffn_up.weight"].kind.name == here
        assert chosen["blk.0.ffn_gate.weight"].kind.name == lacking


def test_ggml_itself_refuses_just_the_types_that_we_say_need_importance() -> None:
    refused = {kind for kind in TENSOR_TYPES.values() if requires_importance(kind)}
    assert refused == NEEDS_IMPORTANCE


def test_names_of_types_are_read_in_any_case_and_as_aliases(models: Path) -> None:
    for alias, name in (("q4_k", "Q4_K_M"), ("iq4_xs", "IQ4_XS"), ("Q3_K", "Q3_K_M")):
        one, other = plan_of(models / "v2-lite", alias), plan_of(models / "v2-lite", name)
        assert one.head == other.head


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
