from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import gguf.quants
import numpy as np
import pytest
from fakes import gguf_file
from gguf import GGMLQuantizationType as Kind

from converters.errors import ConvertError
from converters.header import Entry, encode_head
from converters.kernels.dequantize import block_named, dequantize_rows
from converters.layout import RawValue
from converters.source.gguf_reader import decode_value, read_head
from converters.source.gguf_source import GGUFFile

ENTRY = Entry("token_embd.weight", (2, 32), 0, 0)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def text(value: str) -> bytes:
    return u64(len(value.encode())) + value.encode()


# One value of every type of the format, arrays of every kind among them: (type number, bytes).
EVERY_TYPE: dict[str, tuple[RawValue, Any]] = {
    "a.uint8": (RawValue(0, b"\xff"), 255),
    "a.int8": (RawValue(1, b"\xff"), -1),
    "a.uint16": (RawValue(2, b"\xff\xff"), 65535),
    "a.int16": (RawValue(3, b"\xff\xff"), -1),
    "a.uint32": (RawValue(4, b"\xff\xff\xff\xff"), 4294967295),
    "a.int32": (RawValue(5, b"\xff\xff\xff\xff"), -1),
    "a.float32": (RawValue(6, struct.pack("<f", 0.5)), 0.5),
    "a.bool": (RawValue(7, b"\x01"), True),
    "a.string": (RawValue(8, text("ä b")), "ä b"),
    "a.uint64": (RawValue(10, u64(2**63)), 2**63),
    "a.int64": (RawValue(11, b"\xff" * 8), -1),
    "a.float64": (RawValue(12, struct.pack("<d", 0.1)), 0.1),
    "a.bytes": (RawValue(9, struct.pack("<IQ3B", 0, 3, 1, 2, 3)), (1, 2, 3)),
    "a.flags": (RawValue(9, struct.pack("<IQ2?", 7, 2, True, False)), (True, False)),
    "a.doubles": (RawValue(9, struct.pack("<IQ2d", 12, 2, 0.25, -1.0)), (0.25, -1.0)),
    "a.texts": (RawValue(9, struct.pack("<IQ", 8, 2) + text("x") + text("")), ("x", "")),
    "a.none": (RawValue(9, struct.pack("<IQ", 8, 0)), ()),
}


def with_metadata(path: Path, metadata: dict[str, RawValue]) -> Path:
    path.write_bytes(encode_head(metadata, [ENTRY]) + bytes(256))
    return path


def test_values_of_every_type_are_read_as_their_bytes_and_as_their_meaning(tmp_path: Path) -> None:
    metadata = {key: raw for key, (raw, _) in EVERY_TYPE.items()}
    found = read_head(with_metadata(tmp_path / "all.gguf", metadata)).metadata
    assert found == metadata
    assert list(found) == list(metadata)
    for key, (raw, meaning) in EVERY_TYPE.items():
        assert decode_value(raw) == meaning, key


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"a": RawValue(8, u64(2**63))}, "a claims 9,223,372,036,854,775,808 bytes"),
        ({"a": RawValue(9, struct.pack("<IQ", 4, 2**62))}, "a claims"),
        ({"a": RawValue(9, struct.pack("<IQ", 8, 2**62))}, "a claims"),
        ({"a": RawValue(9, struct.pack("<IQ", 9, 2**40))}, "an array of unknown or nested type"),
        ({"a": RawValue(9, struct.pack("<IQ", 9, 1) * 9)}, "an array of unknown or nested type"),
        ({"a": RawValue(13, b"")}, "the unknown value type 13"),
        ({"general.alignment": RawValue(4, struct.pack("<I", 24))}, "24, not a power of two"),
        ({"general.alignment": RawValue(4, struct.pack("<I", 4))}, "4, not a power of two from 8"),
        ({"general.alignment": RawValue(4, struct.pack("<I", 0))}, "general.alignment"),
        ({"general.alignment": RawValue(10, u64(32))}, "general.alignment"),
    ],
)
def test_metadata_that_lies_is_refused(
    tmp_path: Path, metadata: dict[str, RawValue], message: str
) -> None:
    with pytest.raises(ConvertError) as caught:
        read_head(with_metadata(tmp_path / "bad.gguf", metadata))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (Entry("x", (2, 32), 99, 0), "tensor x has the unknown type 99"),
        (Entry("x", (2, 32), 4, 0), "tensor x has the unknown type 4"),  # withdrawn from ggml
        (Entry("x", (2, 31), 8, 0), "tensor x has rows of 31, no multiple of 32"),
        (Entry("x", (2**40, 2**40), 0, 0), "impossible shape"),
        (Entry("x", (0, 32), 0, 0), "impossible shape"),
        (Entry("x", (2, 32), 0, 32), "tensor x is at offset 32, not at 0"),
        (Entry("x", (1, 1, 1, 1, 1), 0, 0), "5 dimensions"),
        (Entry("x\n", (2, 32), 0, 0), "is empty, broken or there twice"),
        (Entry("x", (2, 3200), 0, 0), "is truncated"),
    ],
)
def test_a_tensor_table_that_lies_is_refused(tmp_path: Path, entry: Entry, message: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(encode_head({}, [entry]) + bytes(256))
    with pytest.raises(ConvertError) as caught:
        read_head(path)
    assert message in str(caught.value)


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(encode_head({}, [ENTRY, Entry(ENTRY.name, (2, 32), 0, 256)]) + bytes(512))
    with pytest.raises(ConvertError, match="there twice"):
        read_head(path)


def test_a_thousand_mutations_are_read_or_refused_but_never_worse(tmp_path: Path) -> None:
    whole = gguf_file.write_experts(tmp_path / "good.gguf").read_bytes()
    rng = random.Random(0)
    path, outcomes = tmp_path / "mutated.gguf", {"read": 0, "refused": 0}
    for _ in range(1000):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 1, 2, 8))):
            at = rng.randrange(900)  # the head; data are arbitrary anyway
            data[at] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256)))
        path.write_bytes(data[: rng.randrange(len(data))] if rng.random() < 0.2 else data)
        try:
            with GGUFFile(path) as model:
                assert all(tensor.size_bytes <= len(data) for tensor in model.tensors.values())
            outcomes["read"] += 1
        except ConvertError as error:
            assert "\n" not in str(error)
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 100, outcomes


def test_the_parts_of_a_split_model_are_one_source(tmp_path: Path) -> None:
    with GGUFFile(split(tmp_path)) as model:
        assert list(model.tensors) == ["one", "two", "three"]
        assert model.get("split.count") is None
        assert model.architecture == "llama"
        data = bytearray(4)
        model.read_into(model.tensors["two"], 0, memoryview(data))
        assert data == b"\2\2\2\2"


def split(folder: Path) -> Path:
    for number, name in enumerate(("one", "two", "three")):
        metadata = {
            "split.no": RawValue(2, struct.pack("<H", number)),
            "split.count": RawValue(2, struct.pack("<H", 3)),
            "split.tensors.count": RawValue(5, struct.pack("<i", 3)),
        }
        if number == 0:
            metadata["general.architecture"] = RawValue(8, text("llama"))
        head = encode_head(metadata, [Entry(name, (4, 16), 0, 0)])
        part = folder / f"model-{number + 1:05}-of-00003.gguf"
        part.write_bytes(head + bytes([number + 1]) * 256)
    return folder / "model-00001-of-00003.gguf"


def test_missing_renamed_and_later_parts_are_named(tmp_path: Path) -> None:
    first = split(tmp_path)
    second = tmp_path / "model-00002-of-00003.gguf"
    with pytest.raises(ConvertError, match="part 2 of 3: give model-00001-of-00003.gguf"):
        GGUFFile(second)
    second.rename(tmp_path / "other.gguf")
    with pytest.raises(ConvertError, match="model-00002-of-00003.gguf is missing"):
        GGUFFile(first)
    with pytest.raises(ConvertError, match="its name does not"):
        GGUFFile(tmp_path / "other.gguf")


@pytest.mark.parametrize("kind", [kind for kind in gguf.quants._type_traits])
def test_ggmls_decoders_agree_with_the_gguf_packages(kind: Kind) -> None:
    block = block_named(kind.name)
    assert block is not None
    data = np.random.default_rng(kind.value).integers(0, 256, (8, 3 * block.size_bytes), np.uint8)
    decoded = np.empty((8, 3 * block.length), np.float32)
    dequantize_rows(kind.name, data.reshape(-1), decoded)
    with np.errstate(all="ignore"):  # random scales may be infinite or no number
        expected = gguf.quants.dequantize(data, kind)
    np.testing.assert_allclose(decoded, expected, rtol=1e-6)


def test_what_holds_no_values_is_not_decoded() -> None:
    with pytest.raises(ConvertError, match="I32 holds no values"):
        dequantize_rows("I32", np.empty(4, np.uint8), np.empty(1, np.float32))
