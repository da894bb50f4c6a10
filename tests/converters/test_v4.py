from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import checkpoints_v4
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize

from converters import ConvertError, ConvertOptions, audit, convert
from converters.families import deepseek_v4
from converters.kernels.dtypes import decode_fp4_rows, repack_fp4
from converters.planning.plan import make_plan
from converters.source.checkpoint import Checkpoint
from converters.source.config import Config
from converters.source.gguf_source import GGUFFile
from localseek import Engine
from localseek.errors import ModelError
from localseek.events import Finished
from localseek.gguf.info import read_info
from localseek.gguf.runnable import check_runnable
from localseek.options import LoadOptions, Message, Request

HERE = Path(__file__).parent
LOGITS = np.load(HERE / "golden_v32_v4.npz")
CONFIG = checkpoints_v4.v4_config(checkpoints_v4.Dims())


class NoTensors:
    tensors: dict[str, None] = {}


@pytest.fixture(scope="module")
def v4(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("v4")
    return {
        "fp4": checkpoints_v4.make_v4(folder / "v4-fp4"),
        "fp8": checkpoints_v4.make_v4(folder / "v4-fp8-experts", experts="fp8", shards=3),
    }


def types_of(folder: Path, kind: str, **options: Any) -> dict[str, str]:
    with Checkpoint(folder) as checkpoint:
        plan = make_plan(checkpoint, kind, **options)
    return {one.name: one.kind.name for one in plan.tensors}


@pytest.mark.parametrize("experts", ["fp4", "fp8"])
def test_logits_are_those_of_transformers(
    v4: dict[str, Path], tmp_path: Path, experts: str
) -> None:
    folder = v4[experts]
    # F32 experts, for llama.cpp rounds what it multiplies with MXFP4 ones to Q8_0.
    options = ConvertOptions(type="F32", tensor_types=(("_exps", "F32"),), threads=1)
    convert(folder, tmp_path / "out.gguf", options)
    tokens = ",".join(map(str, LOGITS[f"{folder.name}.tokens"]))
    command = [sys.executable, str(HERE / "llama_logits.py"), str(tmp_path / "out.gguf")]
    subprocess.run([*command, str(tmp_path / "o.npz"), tokens], check=True, capture_output=True)
    found = np.load(tmp_path / "o.npz")["logits"][2::8]
    np.testing.assert_allclose(found, LOGITS[f"{folder.name}.logits"], atol=1e-4, rtol=0)


def test_every_fp4_code_keeps_its_value_and_its_place_in_mxfp4() -> None:
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (3, 4 * 16), np.uint8)
    raw[0] = np.repeat(np.arange(16), 4) * 17  # every code in both halves
    scales = np.array([[0, 1, 127, 252], [100, 126, 128, 200], [2, 3, 50, 251]], np.uint8)
    blocks = np.empty((3, 4 * 17), np.uint8)
    repack_fp4(raw, scales, blocks)
    values = np.empty((3, 128), np.float32)
    decode_fp4_rows(raw, scales, values)
    # Value by value from the specification: neighbours share a byte, the first is its low half.
    table = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]
    for row, column in np.ndindex(3, 128):
        byte = int(raw[row, column // 2])
        code = byte >> 4 if column % 2 else byte & 15
        expected = np.float32(np.ldexp(table[code], int(scales[row, column // 32]) - 127))
        assert values[row, column] == expected
    np.testing.assert_array_equal(dequantize(blocks, GGMLQuantizationType.MXFP4), values)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("F32", "MXFP4"), ("Q8_0", "MXFP4"), ("Q4_K_M", "MXFP4"), ("Q2_K", "Q2_K")],
)
def test_fp4_experts_stay_what_they_are_unless_the_type_is_smaller(
    v4: dict[str, Path], kind: str, expected: str
) -> None:
    assert types_of(v4["fp4"], kind)["blk.1.ffn_up_exps.weight"] == expected
    forced = types_of(v4["fp4"], kind, overrides=(("ffn_up_exps", "Q5_K"),))
    assert forced["blk.1.ffn_up_exps.weight"] == "Q5_K"
    assert "MXFP4" not in types_of(v4["fp8"], kind).values()


def test_types_are_those_of_llama_quantize_but_for_what_stays_in_f32(v4: dict[str, Path]) -> None:
    for kind, expected in json.loads((HERE / "golden_types_v4.json").read_text()).items():
        found = types_of(v4["fp8"], kind)
        assert found.keys() == expected.keys()
        other = {name for name in found if found[name] != expected[name]}
        assert {found[name] for name in other} == {"F32"}
        exempt = ("hc_", "_ape.", "indexer.proj.") if kind == "Q8_0" else ("hc_", "_ape.")
        assert all(any(part in name for part in exempt) for name in other), (kind, other)


def test_routing_tables_become_i32_and_hyper_connections_stay_in_f32(
    v4: dict[str, Path], tmp_path: Path
) -> None:
    convert(v4["fp4"], tmp_path / "out.gguf", ConvertOptions(type="Q4_K_M", threads=1))
    found = {one.name: one for one in GGUFReader(tmp_path / "out.gguf").tensors}
    table = found["blk.0.ffn_gate_tid2eid.weight"]
    with Checkpoint(v4["fp4"]) as checkpoint:
        stored = checkpoint.tensors["layers.0.ffn.gate.tid2eid"]
        raw = np.empty(stored.size_bytes, np.uint8)
        checkpoint.read_into(stored, 0, raw.data)
    np.testing.assert_array_equal(table.data, raw.view(np.int64).reshape(320, 4))
    assert table.tensor_type == GGMLQuantizationType.I32
    for name in ("blk.1.hc_attn_fn", "output_hc_fn", "blk.1.attn_compressor_ape"):
        assert found[f"{name}.weight"].tensor_type == GGMLQuantizationType.F32


@pytest.mark.parametrize("experts", ["fp4", "fp8"])
@pytest.mark.parametrize("kind", ["Q8_0", "Q2_K"])
def test_a_file_is_verified_against_its_checkpoint_tables_number_by_number(
    v4: dict[str, Path], tmp_path: Path, experts: str, kind: str
) -> None:
    path = tmp_path / "out.gguf"
    convert(v4[experts], path, ConvertOptions(type=kind, threads=1))
    found = audit(path, v4[experts], threads=1)
    assert found.sound, [one for one in found.tensors if one.problems]
    assert all(one.rmse is not None for one in found.tensors)
    table = next(one for one in found.tensors if one.type == "I32")
    assert (table.rmse, table.largest_error) == (0, 0)
    if experts == "fp4" and kind == "Q8_0":  # codes are copied
        assert {one.rmse for one in found.tensors if one.type == "MXFP4"} == {0}
    with GGUFFile(path) as model:
        at = model.tensors[table.name].offset + 4 * 700
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    wrong = [one for one in audit(path, v4[experts], threads=1).tensors if one.problems]
    assert [one.name for one in wrong] == [table.name]
    assert wrong[0].problems == ("whole numbers from [128, 0] on are not those of the source",)


def test_the_file_of_the_mtp_layer_is_verified_against_the_checkpoint(
    v4: dict[str, Path], tmp_path: Path
) -> None:
    convert(v4["fp4"], tmp_path / "out.gguf", ConvertOptions(mtp="only", threads=1))
    found = audit(tmp_path / "out.gguf", v4["fp4"], threads=1)
    assert found.sound, [one for one in found.tensors if one.problems]
    assert all(one.rmse is not None for one in found.tensors)
    assert audit(tmp_path / "out.gguf", threads=1).sound


def test_the_mtp_layer_goes_into_a_file_of_its_own(v4: dict[str, Path], tmp_path: Path) -> None:
    kept = convert(v4["fp4"], tmp_path / "a.gguf", ConvertOptions(threads=1))
    assert any("--mtp only" in warning for warning in kept.warnings)
    convert(v4["fp4"], tmp_path / "b.gguf", ConvertOptions(mtp="only", type="F32", threads=1))
    trunk, draft = GGUFReader(tmp_path / "a.gguf"), GGUFReader(tmp_path / "b.gguf")
    assert list(trunk.fields["localseek.notes"].contents()) == list(kept.warnings)
    assert draft.fields["deepseek4.nextn_predict_layers"].contents() == 1
    assert draft.fields["deepseek4.block_count"].contents() == 5
    names = {one.name for one in draft.tensors}
    assert {name.split(".")[1] for name in names if name.startswith("blk.")} == {"4"}
    joint = next(one for one in draft.tensors if one.name == "blk.4.nextn.eh_proj.weight")
    halves = []
    with Checkpoint(v4["fp4"]) as checkpoint:
        for name in ("e_proj", "h_proj"):
            tensor = checkpoint.tensors[f"mtp.0.{name}.weight"]
            raw = np.empty(tensor.size_bytes, np.uint8)
            checkpoint.read_into(tensor, 0, raw.data)
            halves.append(raw.reshape(256, 256))
    # Where a code is zero, so is the value: enough to tell the halves, their order and rows apart.
    zeros = np.concatenate(halves, 1) & 0x7F == 0
    np.testing.assert_array_equal(joint.data == 0, zeros)


def test_the_runtime_takes_the_trunk_and_refuses_the_mtp_file_alone(
    v4: dict[str, Path], tmp_path: Path, home: Path
) -> None:
    convert(v4["fp4"], tmp_path / "a.gguf", ConvertOptions(type="Q4_K_M", threads=1))
    check_runnable(read_info(tmp_path / "a.gguf"))
    convert(v4["fp4"], tmp_path / "b.gguf", ConvertOptions(mtp="only", threads=1))
    with pytest.raises(ModelError, match="holds only a multi-token prediction layer"):
        check_runnable(read_info(tmp_path / "b.gguf"))
    with Engine.of(LoadOptions(str(tmp_path / "a.gguf"), ctx=256, threads=1)) as engine:
        assert not engine.load().drafting
        request = Request((Message("user", "in the end"),), max_tokens=12)
        events = list(engine.generate(request))
    assert isinstance(events[-1], Finished), events[-1]


def put(folder: Path, name: str, stored: bytes) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    start = 8 + struct.unpack("<Q", data[:8])[0]
    begin = start + json.loads(data[8:start])[name]["data_offsets"][0]
    data[begin : begin + len(stored)] = stored
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "stored", "kind", "message"),
    [
        ("layers.1.ffn.experts.0.w1.scale", b"\xff", "Q8_0", "infinite or no number"),
        ("layers.1.ffn.experts.0.w1.scale", b"\xff", "Q2_K", "infinite or no number"),
        ("layers.1.attn.wq_a.scale", b"\xff", "Q8_0", "infinite or no number"),
        ("layers.0.ffn.gate.tid2eid", struct.pack("<q", 16), "Q8_0", "numbers of 16 experts"),
        ("layers.0.ffn.gate.tid2eid", struct.pack("<q", -1), "Q8_0", "holds -1"),
    ],
)
def test_scales_and_tables_that_mean_nothing_are_named(
    tmp_path: Path, name: str, stored: bytes, kind: str, message: str
) -> None:
    dims = checkpoints_v4.Dims(compress_ratios=(0, 4, 0))
    folder = checkpoints_v4.make_v4(tmp_path / "v4", dims, mtp=False)
    put(folder, name, stored)
    with pytest.raises(ConvertError) as caught:
        convert(folder, tmp_path / "out.gguf", ConvertOptions(type=kind, threads=1))
    assert str(caught.value).startswith(name)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compress_ratios": [0, 8, 128, 4, 0]}, "compress_ratios 8 is not supported"),
        ({"compress_ratios": [0, 4]}, "compress_ratios has 2 of 4 layers"),
        ({"hc_mult": 2}, "hc_mult 2 is not supported"),
        ({"scoring_func": "sigmoid"}, "scoring_func 'sigmoid' is not supported"),
        ({"index_head_dim": 96}, "index_head_dim 96 is not supported"),
        ({"o_groups": 3}, "o_groups does not divide"),
        ({"vision_n_layers": 24}, "only language models"),
        ({"swiglu_limit": None}, "lacks swiglu_limit"),
    ],
)
def test_a_config_that_the_runtime_would_not_run_is_refused_by_name(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConvertError) as caught:
        deepseek_v4.metadata(Config(CONFIG | changes), NoTensors(), True)  # type: ignore[arg-type]
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quant_method": "modelopt"}, "quant_method 'modelopt' is not supported"),
        ({"quant_method": "awq"}, "quant_method 'awq' is not supported"),
        ({"quant_method": "fp8", "moe_quant_algo": "NVFP4"}, "moe_quant_algo 'NVFP4'"),
    ],
)
def test_re_packed_weights_are_refused_by_the_name_of_their_method(
    tiny: Path, config: dict[str, str], message: str
) -> None:
    values = json.loads((tiny / "config.json").read_text()) | {"quantization_config": config}
    (tiny / "config.json").write_text(json.dumps(values))
    with Checkpoint(tiny) as checkpoint, pytest.raises(ConvertError) as caught:
        make_plan(checkpoint, "Q8_0")
    assert message in str(caught.value)
