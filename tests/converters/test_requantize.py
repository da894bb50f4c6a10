from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader

from converters import KEEP, ConvertError, ConvertOptions, ConvertResult, convert
from converters.header import Entry, encode_head
from converters.layout import RawValue
from converters.planning.origin import gguf_fingerprint
from converters.source.gguf_reader import decode_value, read_head
from converters.source.gguf_source import GGUFFile

GOLDEN = json.loads((Path(__file__).parent / "golden_requantized.json").read_text())


def converted(source: Path, target: Path, kind: str, **options: Any) -> ConvertResult:
    return convert(source, target, ConvertOptions(type=kind, threads=1, **options))


def tensors(path: Path) -> dict[str, tuple[str, bytes]]:
    return {
        one.name: (one.tensor_type.name, one.data.tobytes()) for one in GGUFReader(path).tensors
    }


@pytest.fixture(scope="module")
def plain(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """v3-fp8 in every unquantized type."""
    folder = tmp_path_factory.mktemp("plain")
    paths = {kind: folder / f"{kind}.gguf" for kind in ("F32", "F16", "BF16")}
    for kind, path in paths.items():
        converted(models / "v3-fp8", path, kind)
    return paths


@pytest.mark.parametrize("stored", ["F32", "BF16"])
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_an_unquantized_file_becomes_what_the_checkpoint_becomes(
    tmp_path: Path, models: Path, plain: dict[str, Path], stored: str, kind: str
) -> None:
    # An FP8 weight times its scale does not fit in BF16, so only F32 has all of the checkpoint.
    converted(plain[stored], tmp_path / "two-steps.gguf", kind)
    converted(models / "v3-fp8", tmp_path / "direct.gguf", kind)
    two_steps, direct = tensors(tmp_path / "two-steps.gguf"), tensors(tmp_path / "direct.gguf")
    assert {name: one[0] for name, one in two_steps.items()} == {
        name: one[0] for name, one in direct.items()
    }
    assert (two_steps == direct) is (stored == "F32")
    heads = [read_head(tmp_path / f"{name}.gguf").metadata for name in ("two-steps", "direct")]
    recipe = heads[0].pop("localseek.recipe")
    assert decode_value(recipe) == f"--type {stored}; --type {kind}"
    assert heads[0] | {"localseek.recipe": heads[1]["localseek.recipe"]} == heads[1]


def test_what_has_its_type_already_is_copied(tmp_path: Path, plain: dict[str, Path]) -> None:
    for kind, name in (("F16", "same"), (KEEP, "kept")):
        result = converted(plain["F16"], tmp_path / f"{name}.gguf", kind)
        assert result.warnings == ()
        assert tensors(tmp_path / f"{name}.gguf") == tensors(plain["F16"])


def test_an_override_changes_what_is_kept(tmp_path: Path, plain: dict[str, Path]) -> None:
    target = tmp_path / "mixed.gguf"
    result = converted(plain["F16"], target, KEEP, tensor_types=(("ffn_down_exps", "Q5_0"),))
    changed = {name for name, (kind, _) in tensors(target).items() if kind == "Q5_0"}
    assert changed == {f"blk.{layer}.ffn_down_exps.weight" for layer in (1, 2, 3)}
    assert result.types["F16"] > 0


def test_quantizing_twice_is_warned_of_once_but_not_after_q8_0(
    tmp_path: Path, plain: dict[str, Path]
) -> None:
    converted(plain["F32"], tmp_path / "q4.gguf", "Q4_0")
    warnings = converted(tmp_path / "q4.gguf", tmp_path / "q5.gguf", "Q5_0").warnings
    assert len(warnings) == 1 and "were quantized before" in warnings[0]
    assert converted(tmp_path / "q4.gguf", tmp_path / "f16.gguf", "F16").warnings == ()
    converted(plain["F32"], tmp_path / "q8.gguf", "Q8_0")
    assert converted(tmp_path / "q8.gguf", tmp_path / "q4-again.gguf", "Q4_0").warnings == ()


@pytest.mark.parametrize("kind", sorted(GOLDEN))
def test_nano_is_requantized_as_llama_quantize_does_it(
    tmp_path: Path, nano_gguf: Path, kind: str
) -> None:
    import hashlib

    target = tmp_path / "again.gguf"
    converted(nano_gguf, target, kind)
    found = {
        name: [of, hashlib.sha256(data).hexdigest()[:16]]
        for name, (of, data) in tensors(target).items()
        if not name.startswith("blk.4.")  # the MTP layer, which stays at Q8_0 here
    }
    assert found == GOLDEN[kind]


def test_metadata_of_every_kind_alignment_and_order_are_kept(tmp_path: Path) -> None:
    metadata = {
        "general.architecture": RawValue(8, struct.pack("<Q", 5) + b"llama"),
        "general.file_type": RawValue(4, struct.pack("<I", 1)),
        "general.alignment": RawValue(4, struct.pack("<I", 128)),
        "a.int64s": RawValue(9, struct.pack("<IQ2q", 11, 2, -1, 2**62)),
        "a.not_utf8": RawValue(8, struct.pack("<Q", 2) + b"\xff\xfe"),
        "general.quantization_version": RawValue(4, struct.pack("<I", 1)),
    }
    entries = [Entry("token_embd.weight", (3, 32), 0, 0), Entry("ids", (3, 2), 26, 384)]
    source, target = tmp_path / "source.gguf", tmp_path / "target.gguf"
    data = np.arange(96, dtype=np.float32).tobytes() + struct.pack("<6i", *range(6))
    source.write_bytes(encode_head(metadata, entries, 128) + data.ljust(512, b"\0"))
    converted(source, target, "Q8_0")
    found = read_head(target)
    assert decode_value(found.metadata.pop("localseek.recipe")) == "--type Q8_0"
    found.metadata.pop("localseek.version", None)
    with GGUFFile(source) as model:
        fingerprint = gguf_fingerprint(model)
    assert decode_value(found.metadata.pop("localseek.source.fingerprint")) == fingerprint
    expected = metadata | {
        "general.file_type": RawValue(4, struct.pack("<I", 7)),
        "general.quantization_version": RawValue(4, struct.pack("<I", 2)),
    }
    assert found.metadata == expected and list(found.metadata) == list(expected)
    assert found.alignment == 128 and found.data_start % 128 == 0
    assert [(one.name, one.kind, one.offset) for one in found.entries] == [
        ("token_embd.weight", 8, 0),
        ("ids", 26, 128),
    ]
    with GGUFFile(target) as model:
        ids = bytearray(24)
        model.read_into(model.tensors["ids"], 0, memoryview(ids))
    assert struct.unpack("<6i", ids) == tuple(range(6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mtp": "drop"}, "--mtp drop works on checkpoints only"),
        ({"type": "Q9"}, "unknown type 'Q9'"),
        ({"tensor_types": (("nothing", "Q8_0"),)}, "decides no tensor"),
    ],
)
def test_options_that_a_gguf_file_has_no_use_for_are_named(
    tmp_path: Path, plain: dict[str, Path], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConvertError) as caught:
        converted(
            plain["F16"], tmp_path / "out.gguf", **({"kind": options.pop("type", "Q8_0")} | options)
        )
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_keeps_no_types_and_its_own_layer(tmp_path: Path, models: Path) -> None:
    with pytest.raises(ConvertError, match="--type keep is for GGUF files"):
        converted(models / "v3-fp8", tmp_path / "out.gguf", KEEP)
    with pytest.raises(ConvertError, match="--add-mtp adds to a GGUF file"):
        converted(models / "v3-fp8", tmp_path / "out.gguf", "Q8_0", add_mtp=models / "v3-fp8")


def test_a_source_is_not_overwritten(tmp_path: Path, plain: dict[str, Path]) -> None:
    path = shutil.copy(plain["F16"], tmp_path / "model.gguf")
    before = path.read_bytes()
    with pytest.raises(ConvertError, match="is a file of the source"):
        converted(path, path, "Q8_0", force=True)
    assert path.read_bytes() == before
