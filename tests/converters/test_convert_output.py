from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_tokenizers
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize

from converters import ConvertOptions, convert

HERE = Path(__file__).parent


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    reader = GGUFReader(path)
    keys = {key: field.contents() for key, field in reader.fields.items()}
    return keys, {tensor.name: tensor for tensor in reader.tensors}


def stored(folder: Path, name: str) -> Any:
    """Read one BF16 or F32 tensor straight from the shards."""
    for shard in folder.glob("*.safetensors"):
        data = shard.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        entry = json.loads(data[8:start]).get(name)
        if entry:
            begin, end = entry["data_offsets"]
            raw = np.frombuffer(data[start + begin : start + end], np.uint8)
            if entry["dtype"] == "F32":
                return raw.view(np.float32).reshape(entry["shape"])
            bits = raw.view(np.uint16).astype(np.uint32) << 16
            return bits.view(np.float32).reshape(entry["shape"])
    raise KeyError(name)


def test_kv_b_is_split_a_head_and_its_keys_transposed(tiny: Path, tmp_path: Path) -> None:
    convert(tiny, tmp_path / "out.gguf", ConvertOptions(type="F32"))
    _, tensors = read(tmp_path / "out.gguf")
    kv_b = stored(tiny, "model.layers.1.self_attn.kv_b_proj.weight").reshape(2, 32, 32)
    keys, values = tensors["blk.1.attn_k_b.weight"], tensors["blk.1.attn_v_b.weight"]
    assert list(keys.shape) == [16, 32, 2]  # GGUF lists the innermost dimension first
    assert list(values.shape) == [32, 16, 2]
    np.testing.assert_array_equal(keys.data, kv_b[:, :16].transpose(0, 2, 1))
    np.testing.assert_array_equal(values.data, kv_b[:, 16:])


def test_experts_are_stacked_in_order(tiny: Path, tmp_path: Path) -> None:
    convert(tiny, tmp_path / "out.gguf", ConvertOptions(type="BF16"))
    _, tensors = read(tmp_path / "out.gguf")
    for part in ("gate", "up", "down"):
        stack = tensors[f"blk.1.ffn_{part}_exps.weight"]
        values = dequantize(stack.data, GGMLQuantizationType.BF16)
        for expert in range(8):
            name = f"model.layers.1.mlp.experts.{expert}.{part}_proj.weight"
            np.testing.assert_array_equal(values[expert], stored(tiny, name))


def test_kept_mtp_layer_drops_embedding_and_head_that_repeat_the_main_ones(
    models: Path, tmp_path: Path
) -> None:
    result = convert(models / "v3-fp8", tmp_path / "out.gguf", ConvertOptions(type="F16"))
    keys, tensors = read(tmp_path / "out.gguf")
    assert result.tensors == len(tensors)
    assert keys["deepseek2.block_count"] == 4
    assert keys["deepseek2.nextn_predict_layers"] == 1
    draft = sorted(name.removeprefix("blk.3.nextn.") for name in tensors if ".nextn." in name)
    assert draft == ["eh_proj.weight", "enorm.weight", "hnorm.weight", "shared_head_norm.weight"]
    assert "blk.3.ffn_down_exps.weight" in tensors


def test_own_embedding_and_head_of_the_mtp_layer_are_kept(models: Path, tmp_path: Path) -> None:
    convert(models / "v3-odd-own-head", tmp_path / "out.gguf", ConvertOptions(type="F16"))
    _, tensors = read(tmp_path / "out.gguf")
    assert "blk.3.nextn.embed_tokens.weight" in tensors
    assert "blk.3.nextn.shared_head_head.weight" in tensors


def test_dropped_mtp_layer_leaves_nothing_behind(models: Path, tmp_path: Path) -> None:
    options = ConvertOptions(type="Q8_0", mtp="drop")
    convert(models / "v3-fp8", tmp_path / "out.gguf", options)
    keys, tensors = read(tmp_path / "out.gguf")
    assert keys["deepseek2.block_count"] == 3
    assert "deepseek2.nextn_predict_layers" not in keys
    assert not [name for name in tensors if name.startswith("blk.3.")]


def test_metadata_says_what_the_runtime_needs(models: Path, tmp_path: Path) -> None:
    convert(models / "v3-fp8", tmp_path / "v3.gguf", ConvertOptions(name="Tiny V3"))
    keys, _ = read(tmp_path / "v3.gguf")
    expected = {
        "general.architecture": "deepseek2",
        "general.name": "Tiny V3",
        "general.file_type": 7,
        "deepseek2.attention.head_count_kv": 1,
        "deepseek2.attention.key_length": 288,
        "deepseek2.attention.value_length": 256,
        "deepseek2.attention.key_length_mla": 96,
        "deepseek2.attention.value_length_mla": 64,
        "deepseek2.expert_gating_func": 2,
        "deepseek2.expert_group_count": 4,
        "deepseek2.expert_group_used_count": 2,
        "deepseek2.expert_weights_norm": True,
        "tokenizer.ggml.pre": "deepseek-v3",
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": small_tokenizers.CHAT_TEMPLATE,
    }
    assert {key: keys.get(key) for key in expected} == expected
    types = dict(zip(keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"], strict=True))
    assert types["<｜User｜>"] == 3  # control by its looks, though not marked special
    assert types["<think>"] == 4
    assert types["[PAD319]"] == 5


def test_lite_model_gets_q_lora_rank_zero_and_no_groups(models: Path, tmp_path: Path) -> None:
    convert(models / "v2-lite", tmp_path / "v2.gguf")
    keys, tensors = read(tmp_path / "v2.gguf")
    assert keys["deepseek2.attention.q_lora_rank"] == 0
    assert keys["deepseek2.expert_gating_func"] == 1
    assert keys["tokenizer.ggml.pre"] == "deepseek-llm"
    assert "deepseek2.expert_group_count" not in keys
    assert "blk.0.attn_q.weight" in tensors


@pytest.mark.parametrize("name", ["v3-fp8", "v3-odd-own-head", "v2-lite"])
def test_llama_cpp_computes_the_logits_of_transformers(
    models: Path, tmp_path: Path, name: str
) -> None:
    golden = np.load(HERE / "golden_logits.npz")
    convert(models / name, tmp_path / "model.gguf", ConvertOptions(type="F32"))
    tokens = ",".join(map(str, golden[f"{name}.tokens"]))
    command = [sys.executable, str(HERE / "llama_logits.py"), str(tmp_path / "model.gguf")]
    run = subprocess.run(
        [*command, str(tmp_path / "out.npz"), tokens], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = np.load(tmp_path / "out.npz")
    for key in found.files:
        expected = golden[f"{name}.{key}"]
        assert np.abs(found[key][2::4] - expected).max() <= 1e-4, key
    assert ("mtp_logits" in found.files) == name.startswith("v3")
