from __future__ import annotations

import shutil
from pathlib import Path

import checkpoints
import pytest
from gguf import GGMLQuantizationType as Kind

from converters import ConvertError, ConvertOptions, Preview, convert, preview
from converters.checking import estimate
from converters.checking.config_only import ConfigOnly
from converters.checking.estimate import expected_seconds
from converters.types.groups import group_of

CONFIGS = Path(__file__).parent / "configs"
SMALL = checkpoints.Dims(num_hidden_layers=2, n_routed_experts=8, num_experts_per_tok=2)


@pytest.fixture(autouse=True)
def _measure_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "BUDGET_S", 0.01)


def of_config(name: str, kind: str = "Q8_0", **options: str) -> Preview:
    return preview(CONFIGS / f"{name}.json", ConvertOptions(kind, **options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.make_v3(tmp_path_factory.mktemp("small") / "v3", SMALL)


@pytest.mark.parametrize(
    "kind",
    ["F32", "BF16", "Q8_0", "Q5_1", "Q4_K_M", "Q2_K", "IQ4_XS", "MXFP4_MOE", "TQ2_0"],
)
def test_the_predicted_size_is_that_of_the_file(small: Path, tmp_path: Path, kind: str) -> None:
    options = ConvertOptions(kind, threads=1)
    expected = preview(small, options)
    written = convert(small, tmp_path / "out.gguf", options)
    assert expected.size_bytes == (tmp_path / "out.gguf").stat().st_size
    assert sum(part.tensors for part in expected.parts) == written.tensors == expected.tensors


@pytest.mark.parametrize("name", ["v3-odd-own-head", "v2-lite"])
@pytest.mark.parametrize("mtp", ["keep", "drop"])
def test_the_predicted_size_holds_for_odd_widths_overrides_and_no_draft_layer(
    models: Path, tmp_path: Path, name: str, mtp: str
) -> None:
    options = ConvertOptions("Q4_K_M", mtp, (("ffn_up_exps", "F16"),), threads=1)  # type: ignore[arg-type]
    convert(models / name, tmp_path / "out.gguf", options)
    assert preview(models / name, options).size_bytes == (tmp_path / "out.gguf").stat().st_size


def test_config_and_tokenizer_without_weights_give_the_same_size(
    small: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "v3"
    shutil.copytree(small, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    with_weights, without = preview(small), preview(bare)
    assert with_weights.has_weights
    assert not without.has_weights
    assert without.size_bytes == with_weights.size_bytes
    assert without.parts == with_weights.parts
    assert without.source_bytes == with_weights.source_bytes


def test_without_a_tokenizer_the_tensors_still_take_exactly_that_much(
    small: Path, tmp_path: Path
) -> None:
    shutil.copy(small / "config.json", tmp_path / "anything.json")
    bare = preview(tmp_path / "anything.json")
    assert (bare.name, bare.has_tokenizer) == ("anything", False)
    assert bare.data_bytes == preview(small).data_bytes
    assert bare.head_bytes < preview(small).head_bytes


@pytest.mark.parametrize("kind", ["KEEP", "Q4_K_M", "Q8_0"])
def test_the_predicted_size_holds_for_a_gguf_file_as_source(
    small: Path, tmp_path: Path, kind: str
) -> None:
    convert(small, tmp_path / "in.gguf", ConvertOptions("Q8_0", threads=1))
    options = ConvertOptions(kind, threads=1)
    expected = preview(tmp_path / "in.gguf", options)
    convert(tmp_path / "in.gguf", tmp_path / "out.gguf", options)
    assert expected.size_bytes == (tmp_path / "out.gguf").stat().st_size
    assert expected.name == preview(small).name
    assert expected.active_parameters == preview(small).active_parameters
    assert (expected.has_weights, expected.has_tokenizer) == (True, True)


# Published: 671 B of which 37 B active, and 685 B with the MTP layer, 236 B of which 21 B active,
# 15.7 B of which 2.4 B active. Exact sums from the tensors of the released files.
@pytest.mark.parametrize(
    ("name", "trunk", "released", "active"),
    [
        ("DeepSeek-V3", 671_026_419_200, 684_489_845_504, "37"),
        ("DeepSeek-R1", 671_026_419_200, 684_489_845_504, "37"),
        ("DeepSeek-V3.2", 671_877_944_064, 685_355_329_792, "37"),
        ("DeepSeek-V2", 235_741_434_880, 235_741_434_880, "21"),
        ("DeepSeek-V2-Lite", 15_706_484_224, 15_706_484_224, "2"),
    ],
)
def test_parameter_counts_are_the_published_ones(
    name: str, trunk: int, released: int, active: str
) -> None:
    found = of_config(name)
    assert found.parameters - found.mtp_parameters == trunk
    assert found.parameters + found.left_out_parameters == released
    assert f"{found.active_parameters / 1e9:.0f}" == active


@pytest.mark.parametrize(
    ("name", "gib", "tensors"),
    [
        ("DeepSeek-R1", 641.30, 91_991),
        ("DeepSeek-V3.2", 642.13, 92_425),
        ("DeepSeek-V2-Lite", 29.26, 5_291),
    ],
)
def test_a_config_stands_for_the_tensors_of_the_released_files(
    name: str, gib: float, tensors: int
) -> None:
    # Sizes and counts that loaders and hubs report of the real files, headers included.
    with ConfigOnly(CONFIGS / f"{name}.json") as source:
        headers = 125 * tensors  # a name, a dtype, a shape and two offsets as JSON
        size = sum(tensor.size_bytes for tensor in source.tensors.values()) + headers
        assert len(source.tensors) == tensors
        assert size / 2**30 == pytest.approx(gib, abs=0.01)


@pytest.mark.parametrize(
    ("name", "gib", "tensors"),
    [("DeepSeek-V4-Flash", 148.65, 69_187), ("DeepSeek-V4-Pro", 805.32, 145_116)],
)
def test_a_config_of_v4_stands_for_fp4_experts_and_their_scales(
    name: str, gib: float, tensors: int
) -> None:
    # Data alone: the 64 files of Pro take 805.33 GiB with their headers.
    with ConfigOnly(CONFIGS / f"{name}.json") as source:
        size = sum(tensor.size_bytes for tensor in source.tensors.values())
        assert len(source.tensors) == tensors
        assert size / 2**30 == pytest.approx(gib, abs=0.005)


def test_the_parts_of_v3_are_its_parts() -> None:
    parts = {part.group: part for part in of_config("DeepSeek-V3", "Q4_K_M").parts}
    assert "other" not in parts
    assert {group: part.tensors for group, part in parts.items()} == {
        "embedding": 1, "output": 1, "attention": 61 * 6, "dense FFN": 9, "shared experts": 58 * 3,
        "routed experts, gate": 58, "routed experts, up": 58, "routed experts, down": 58,
        "router": 58 * 2, "norms and other vectors": 61 * 4 + 1, "MTP layer": 22,
    }  # fmt: skip
    assert parts["routed experts, up"].parameters == 58 * 256 * 7168 * 2048
    assert {use.type: use.tensors for use in parts["routed experts, down"].types} == {
        "Q4_K": 32, "Q6_K": 26,
    }  # fmt: skip


def test_parts_add_up_to_the_whole(models: Path) -> None:
    found = preview(models / "v3-fp8", ConvertOptions("Q3_K_M"))
    for part in found.parts:
        assert part.tensors == sum(use.tensors for use in part.types)
        assert part.size_bytes == sum(use.size_bytes for use in part.types)
        assert all(use.reasons for use in part.types)
    assert found.parameters == sum(part.parameters for part in found.parts)
    tensors = sum(part.size_bytes for part in found.parts)
    assert found.data_bytes - 32 * found.tensors < tensors <= found.data_bytes
    assert found.head_bytes + found.data_bytes == found.size_bytes


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("blk.3.attn_k_b.weight", "attention"),
        ("blk.3.attn_kv_a_norm.weight", "norms and other vectors"),
        ("blk.3.indexer.attn_k.weight", "indexer"),
        ("blk.3.ffn_gate_inp.weight", "router"),
        ("blk.3.exp_probs_b.bias", "router"),
        ("blk.3.ffn_gate_shexp.weight", "shared experts"),
        ("blk.0.ffn_gate.weight", "dense FFN"),
        ("blk.4.ffn_down_exps.weight", "MTP layer"),
        ("output_norm.weight", "norms and other vectors"),
        ("per_layer_token_embd.weight", "other"),
    ],
)
def test_a_tensor_belongs_to_one_part(name: str, group: str) -> None:
    assert group_of(name, n_layer=4) == group


def test_a_preview_needs_no_weights_but_a_config(tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match="is empty: download the checkpoint into it"):
        preview(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}')
    with pytest.raises(ConvertError, match="GPT2LMHeadModel is not supported"):
        preview(tmp_path)


def test_the_estimate_grows_with_the_work() -> None:
    assert expected_seconds({}, 2) == 0
    work = {("F8_E4M3", Kind.Q4_K): 10**9, ("BF16", Kind.BF16): 10**9}
    # A thousand times the values: no load of the machine makes up for that.
    more = {pair: 1000 * count for pair, count in work.items()}
    assert 0 < expected_seconds(work, 1) < expected_seconds(more, 1)
