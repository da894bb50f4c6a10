from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf import quants

from converters import ConvertError, ConvertOptions, convert, preview
from converters.checking import estimate
from converters.kernels.quantize import quantize_rows, row_bytes
from converters.types.mixtures import Facts, Shape
from converters.types.recipe import choose_types
from converters.types.recipes import RECIPES, outer_layers
from converters.types.type_errors import RELATIVE_ERRORS

CONFIGS = Path(__file__).parent / "configs"
V3 = CONFIGS / "DeepSeek-V3.json"


@pytest.fixture(autouse=True)
def _measure_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "BUDGET_S", 0.01)


def types(recipe: str) -> dict[str, dict[str, int]]:
    parts = preview(V3, ConvertOptions(recipe)).parts
    return {part.group: {use.type: use.tensors for use in part.types} for part in parts}


@pytest.mark.parametrize(
    ("recipe", "passed", "embedding", "steps"),
    [
        ("DS_Q4", "Q8_0", "Q6_K", ("Q4_K", "Q5_K", "Q6_K")),
        ("DS_Q3", "Q8_0", "Q6_K", ("Q3_K", "Q4_K", "Q5_K")),
        ("DS_Q2", "Q6_K", "Q5_K", ("Q2_K", "Q3_K", "Q4_K")),
    ],
)
def test_routed_experts_of_v3_take_the_cut(
    recipe: str, passed: str, embedding: str, steps: tuple[str, str, str]
) -> None:
    found = types(recipe)
    few, more, most = steps
    assert found["routed experts, gate"] == {few: 52, more: 6}
    assert found["routed experts, up"] == {few: 52, more: 6}
    assert found["routed experts, down"] == {more: 52, most: 6}
    assert found["shared experts"] == {passed: 58 * 3}
    assert found["dense FFN"] == {passed: 9}
    # Keys' rows of 128 are no whole blocks of a K-quant.
    expected = {"Q8_0": 366} if passed == "Q8_0" else {"Q6_K": 305, "Q8_0": 61}
    assert found["attention"] == expected
    assert found["output"] == {passed: 1}
    assert found["embedding"] == {embedding: 1}
    assert found["router"] == {"F32": 116}
    assert found["MTP layer"] == {"Q8_0": 13, "F32": 9}


def test_the_outer_layers_are_a_sixteenth_at_both_ends_and_one_at_least() -> None:
    def names(first: int, last: int) -> list[str]:
        return [f"blk.{n}.ffn_up_exps.weight" for n in range(first, last + 1)]

    assert outer_layers(names(3, 61), n_layer=61) == {3, 4, 5, 58, 59, 60}
    assert outer_layers(names(1, 4), n_layer=5) == {1, 4}
    assert outer_layers(["blk.0.ffn_up.weight"], n_layer=1) == set()


def test_a_recipe_for_experts_is_refused_where_there_are_none() -> None:
    facts = Facts(n_layer=1, n_layer_all=1, n_expert=0, n_gqa=1)
    with pytest.raises(ConvertError, match="DS_Q4 is for models with routed experts"):
        choose_types([Shape("blk.0.ffn_up.weight", (256, 256))], "ds_q4", facts)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_converts_to_the_predicted_size(models: Path, tmp_path: Path, recipe: str) -> None:
    options = ConvertOptions(recipe, threads=1)
    written = convert(models / "v2-lite", tmp_path / "out.gguf", options)
    assert written.size_bytes == preview(models / "v2-lite", options).size_bytes


def error_of(kind: Kind, rows: np.ndarray) -> float:
    out = np.empty(len(rows) * row_bytes(kind, rows.shape[1]), np.uint8)
    quantize_rows(kind, rows, out)
    back = quants.dequantize(out.reshape(len(rows), -1), kind).reshape(rows.shape)
    return float(((rows - back) ** 2).sum() / (rows**2).sum())


@pytest.mark.parametrize(
    "kind",
    ["F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K", "Q5_1", "Q5_0", "Q4_1", "Q4_0",
     "IQ4_NL", "IQ4_XS", "IQ3_S", "MXFP4"],
)  # fmt: skip
def test_the_table_of_errors_is_what_the_kernels_do(kind: str) -> None:
    rows = np.random.default_rng(1).standard_normal((8, 2048), dtype=np.float32)
    assert error_of(Kind[kind], rows) == pytest.approx(RELATIVE_ERRORS[kind], rel=0.06)


def test_more_bits_lose_less() -> None:
    by_bits = ["BF16", "Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K"]
    errors = [RELATIVE_ERRORS[kind] for kind in by_bits]
    assert errors == sorted(errors)
