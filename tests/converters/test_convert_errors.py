from __future__ import annotations

import errno
import json
import os
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import pytest

from converters import ConvertError, ConvertOptions, Progress, convert

FIRST = "model-00001-of-00002.safetensors"


def edit_json(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text())
    values |= changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value != "absent"}))


def edit_header(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = path.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])
    change(header)
    head = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data[start:])


def shard_with(folder: Path, name: str) -> Path:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    return folder / str(index["weight_map"][name])


def failure(source: Path, target: Path, **options: Any) -> str:
    """Convert, expect a failure that leaves nothing, and return its one line."""
    before = sorted(target.parent.iterdir())
    with pytest.raises(ConvertError) as caught:
        convert(source, target, ConvertOptions(**options))
    assert sorted(target.parent.iterdir()) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "model.gguf"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "MambaForCausalLM is not supported"),
        ({"architectures": "absent"}, "names no architecture"),
        ({"kv_lora_rank": "absent"}, "lacks kv_lora_rank"),
        ({"hidden_size": "many"}, "hidden_size is 'many'"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"scoring_func": "softmax"}, "scoring_func 'softmax' is not supported"),
        ({"topk_method": "greedy"}, "topk_method 'greedy' is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "type 'linear' is not supported"),
        ({"rope_scaling": checkpoints.YARN | {"mscale": 0.5}}, "mscale 0.5 and mscale_all_dim 1"),
        ({"rope_scaling": checkpoints.YARN | {"beta_fast": 16}}, "beta_fast 16"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quant_method 'gptq'"),
        ({"num_nextn_predict_layers": 2}, "num_nextn_predict_layers 2 is not supported"),
        ({"num_key_value_heads": 1}, "num_key_value_heads must equal"),
        ({"num_hidden_layers": 27}, "takes a deepseek2 model of 27 layers for a lite one"),
        ({"moe_intermediate_size": 48}, "has the shape [32, 32], config.json says [48, 32]"),
        ({"n_routed_experts": 12}, "model.layers.1.mlp.gate.weight has the shape [8, 32]"),
        ({"num_hidden_layers": 1}, "left-over tensor model.layers."),
    ],
)
def test_a_config_that_cannot_run_fails_by_name(
    tiny: Path, out: Path, changes: dict[str, Any], message: str
) -> None:
    edit_json(tiny / "config.json", **changes)
    assert message in failure(tiny, out)


def test_a_missing_shard_is_named(tiny: Path, out: Path) -> None:
    (tiny / FIRST).unlink()
    assert f"{FIRST} is missing" in failure(tiny, out)


def test_a_missing_tensor_is_named(tiny: Path, out: Path) -> None:
    name = "model.layers.1.mlp.experts.3.up_proj.weight"
    edit_header(shard_with(tiny, name), lambda header: header.pop(name))
    assert f"{name} is not in" in failure(tiny, out)
    index = tiny / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    edit_json(index, weight_map={key: shard for key, shard in weight_map.items() if key != name})
    assert f"{name} is missing from the checkpoint" in failure(tiny, out)


def test_a_tensor_that_the_index_does_not_list_is_named(tiny: Path, out: Path) -> None:
    index = tiny / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    weight_map.pop("model.norm.weight")
    edit_json(index, weight_map=weight_map)
    assert "model.norm.weight in model-00001" in failure(tiny, out) or "is not listed" in failure(
        tiny, out
    )


@pytest.mark.parametrize("mtp", ["keep", "drop"])
def test_a_left_over_tensor_is_named(tmp_path: Path, out: Path, mtp: str) -> None:
    folder = checkpoints.make_v3(tmp_path / "v3", checkpoints.Dims(num_hidden_layers=2))
    path = folder / "model.safetensors"
    old = "model.layers.0.input_layernorm.weight"
    edit_header(path, lambda header: header.update({"model.layers.0.extra.weight": header[old]}))
    assert "overlaps another tensor" in failure(folder, out, mtp=mtp)

    def rename(header: dict[str, Any]) -> None:
        header.pop("model.layers.0.extra.weight")
        header["model.layers.0.self_attn.q_a_proj.extra"] = header.pop(
            "model.layers.2.self_attn.q_a_proj.weight_scale_inv"
        )

    edit_header(path, rename)
    expected = {
        "keep": "model.layers.2.self_attn.q_a_proj.weight_scale_inv is missing",
        "drop": "left-over tensor model.layers.0.self_attn.q_a_proj.extra",
    }
    assert expected[mtp] in failure(folder, out, mtp=mtp)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "F4_E9M9"}, "unknown dtype 'F4_E9M9'"),
        ({"dtype": "I16"}, "dtype I16, not supported"),
        ({"shape": [-1, 2]}, "broken shape"),
        ({"shape": [1 << 62, 1 << 62]}, "broken shape"),
        ({"shape": [2, 3]}, "bytes do not hold"),
        ({"data_offsets": [0]}, "broken shape or offsets"),
        ({"data_offsets": [1 << 40, (1 << 40) + 64]}, "truncated"),
    ],
)
def test_a_broken_header_entry_is_named(
    tiny: Path, out: Path, entry: dict[str, Any], message: str
) -> None:
    name = "model.norm.weight"
    edit_header(shard_with(tiny, name), lambda header: header[name].update(entry))
    assert message in failure(tiny, out)


@pytest.mark.parametrize("keep", [0, 4, 100, -2])
def test_a_truncated_shard_is_named(tiny: Path, out: Path, keep: int) -> None:
    path = tiny / FIRST
    path.write_bytes(path.read_bytes()[:keep])
    message = failure(tiny, out)
    assert str(path) in message
    assert "truncated" in message or "broken" in message


def test_a_file_that_is_no_safetensors_is_named(tiny: Path, out: Path) -> None:
    (tiny / FIRST).write_bytes(b"\x10\0\0\0\0\0\0\0not json at all!" + bytes(100))
    assert "broken safetensors header" in failure(tiny, out)


def test_a_file_that_cannot_be_read_is_named(tiny: Path, out: Path) -> None:
    (tiny / "config.json").unlink()
    (tiny / "config.json").mkdir()
    assert "cannot read" in failure(tiny, out)


def test_values_that_are_not_finite_are_named(tiny: Path, out: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    path = shard_with(tiny, name)
    data = bytearray(path.read_bytes())
    start = 8 + struct.unpack("<Q", data[:8])[0]
    begin = start + json.loads(data[8:start])[name]["data_offsets"][0]
    data[begin : begin + 2] = b"\xc0\x7f"  # a BF16 NaN
    path.write_bytes(data)
    assert f"{name} holds values that BF16 cannot" in failure(tiny, out, type="BF16")


def test_an_unknown_pre_tokenizer_is_named(tiny: Path, out: Path) -> None:
    pre = {"type": "Split", "pattern": {"Regex": "x+"}, "behavior": "Isolated", "invert": False}
    edit_json(tiny / "tokenizer.json", pre_tokenizer=pre)
    assert 'no name for the pre-tokenizer ["x+"]' in failure(tiny, out)


def test_a_tokenizer_larger_than_the_embedding_is_named(tiny: Path, out: Path) -> None:
    tokenizer = json.loads((tiny / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["zzz"] = 320
    (tiny / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "token 'zzz' has the id 320, of 320" in failure(tiny, out)


def test_an_existing_target_is_kept_unless_forced(tiny: Path, out: Path) -> None:
    out.write_text("mine")
    assert "exists already" in failure(tiny, out)
    assert out.read_text() == "mine"
    convert(tiny, out, ConvertOptions(force=True))
    assert out.read_bytes()[:4] == b"GGUF"


def test_a_disk_without_room_is_told_before_the_work(
    tiny: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert "no room for" in failure(tiny, out)


def test_a_file_size_limit_is_told(tiny: Path, out: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        assert "no room for" in failure(tiny, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_conversion_that_is_interrupted_before_any_work_leaves_nothing(
    tiny: Path, out: Path
) -> None:
    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(tiny, out, progress=stop)
    assert list(out.parent.iterdir()) == []


def test_progress_never_goes_back_and_ends_at_the_total(tiny: Path, out: Path) -> None:
    seen: list[Progress] = []
    convert(tiny, out, progress=seen.append)
    done = [progress.done_bytes for progress in seen]
    assert done == sorted(done)
    assert done[-1] == seen[-1].total_bytes
