from __future__ import annotations

import json
import struct
from pathlib import Path

import checkpoints
import pytest

from converters import ConvertError, ConvertOptions, convert

UP = "model.layers.0.mlp.up_proj.weight"
KV_B = "model.layers.0.self_attn.kv_b_proj.weight"  # partly transposed


def put(folder: Path, name: str, stored: bytes) -> None:
    """Overwrite the first bytes of a tensor."""
    for path in folder.glob("*.safetensors"):
        data = bytearray(path.read_bytes())
        start = 8 + struct.unpack("<Q", data[:8])[0]
        entry = json.loads(data[8:start]).get(name)
        if entry:
            begin = start + entry["data_offsets"][0]
            data[begin : begin + len(stored)] = stored
            path.write_bytes(data)
            return
    raise KeyError(name)


def refusal(folder: Path, out: Path, type_name: str) -> str:
    with pytest.raises(ConvertError) as caught:
        convert(folder, out, ConvertOptions(type=type_name))
    assert not out.exists()
    return str(caught.value)


@pytest.mark.parametrize("type_name", ["Q8_0", "Q4_K_M"])
@pytest.mark.parametrize("name", [UP, KV_B])
@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        ("F8_E4M3", b"\x7f"), ("F8_E4M3", b"\xff"), ("BF16", b"\xc0\x7f"), ("BF16", b"\x80\xff"),
        ("F16", b"\x00\x7c"), ("F32", b"\x00\x00\xc0\x7f"),
    ],
)  # fmt: skip
def test_a_weight_that_is_not_finite_is_named_and_not_quantized(
    tmp_path: Path, type_name: str, name: str, dtype: str, stored: bytes
) -> None:
    dims = checkpoints.Dims(num_hidden_layers=2, n_routed_experts=4)
    folder = checkpoints.make_v3(tmp_path / "v3", dims, dtype=dtype, mtp=False)
    put(folder, name, stored)
    message = refusal(folder, tmp_path / "out.gguf", type_name)
    assert message.startswith(f"{name} holds values that are infinite or no number")


def test_a_block_scale_that_is_not_finite_is_named(tmp_path: Path) -> None:
    dims = checkpoints.Dims(num_hidden_layers=2, n_routed_experts=4)
    folder = checkpoints.make_v3(tmp_path / "v3", dims, mtp=False)
    put(folder, UP + "_scale_inv", struct.pack("<f", float("inf")))
    message = refusal(folder, tmp_path / "out.gguf", "Q8_0")
    assert message.startswith(f"{UP}_scale_inv holds values that are infinite or no number")
