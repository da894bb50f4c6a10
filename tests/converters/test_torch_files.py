from __future__ import annotations

import random
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import checkpoints_dense as dense
import numpy as np
import pytest
import torch_files
from checkpoints import Tensors
from gguf import GGUFReader
from torch_files import View, number, pickle_of, text, write_zip

from converters import ConvertError, ConvertOptions, convert
from converters.source.checkpoint import Checkpoint
from converters.source.torch_pickle import PickleError, read_tensors
from converters.source.torch_zip import read_torch_file

SMALL = dense.Dims(64, 64, 2, 4, 2)


def contents(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    reader = GGUFReader(path)
    keys = {key: field.contents() for key, field in reader.fields.items()}
    tensors = {one.name: (one.tensor_type, one.data.tobytes()) for one in reader.tensors}
    return keys, tensors


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_bin_files_give_the_same_file_as_safetensors(
    tmp_path: Path, dtype: str, shards: int
) -> None:
    folder = dense.make_llama(tmp_path / "model", SMALL, dtype=dtype)
    options = ConvertOptions(type="Q8_0", name="one", threads=1)
    convert(folder, tmp_path / "safetensors.gguf", options)
    torch_files.replace_by_torch(folder, dense.decoder(SMALL, dtype), shards)
    convert(folder, tmp_path / "torch.gguf", options)
    keys, tensors = contents(tmp_path / "torch.gguf")
    expected_keys, expected = contents(tmp_path / "safetensors.gguf")
    assert tensors == expected
    different = {key for key, value in keys.items() if value != expected_keys[key]}
    assert keys.keys() == expected_keys.keys()
    assert all("source" in key or "origin" in key for key in different)


def test_safetensors_win_over_bin_files(tmp_path: Path) -> None:
    folder = dense.make_llama(tmp_path / "model", SMALL)
    (folder / "pytorch_model.bin").write_bytes(b"not read")
    with Checkpoint(folder) as checkpoint:
        assert {one.shard.name for one in checkpoint.tensors.values()} == {"model.safetensors"}


def read(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {one.name: one for one in read_torch_file(path, file.fileno())}


def test_views_of_one_storage_lie_inside_it(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32)
    views = [
        View("whole", "F32", "0", 24, (4, 6), (6, 1)),
        View("rows", "F32", "0", 24, (2, 6), (6, 1), offset=12),
        View("thin", "F32", "0", 24, (1, 3), (999, 1), offset=3),  # nothing steps along a 1
    ]
    path = tmp_path / "views.bin"
    write_zip(path, pickle_of(views), {"0": values.tobytes()})
    data = path.read_bytes()
    for name, expected in (("whole", values), ("rows", values[12:]), ("thin", values[3:6])):
        found = read(path)[name]
        start, end = found.offset, found.offset + found.size_bytes
        assert data[start:end] == expected.tobytes()


def test_protocol_four_describes_the_same_tensors() -> None:
    view = View("w", "BF16", "0", 6, (2, 3), (3, 1))
    old = pickle_of([view])
    new = old.replace(b"\x80\x02", b"\x80\x04\x95" + struct.pack("<Q", len(old)), 1)
    new = new.replace(b"q\x00", b"\x94").replace(
        b"ctorch\nBFloat16Storage\n", b"\x8c\x05torch\x8c\x0fBFloat16Storage\x93"
    )
    assert read_tensors(new) == read_tensors(old)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (View("w", "F32", "0", 4, (2, 2), (1, 2)), "stored transposed or with gaps"),
        (View("w", "F32", "0", 4, (2, 1), (2, 1)), "stored transposed or with gaps"),
        (View("w", "F32", "0", 4, (2, 2), (2, 1), offset=1), "needs 20 bytes of a storage of 16"),
        (View("w", "F32", "0", 8, (2, 2), (2, 1)), "needs 16 bytes of a storage of 16"),
        (View("w", "F32", "7", 4, (2, 2), (2, 1)), "lacks the storage '7' of w"),
        (View("w", "F32", "0", 4, (1 << 40, 1 << 40), (1 << 40, 1)), "of a storage of 16"),
        (View("w", "F32", "0", 4, (1 << 50,), (1,)), "a tensor of impossible size"),
    ],
)
def test_a_tensor_that_does_not_fit_its_storage_is_named(
    tmp_path: Path, view: View, message: str
) -> None:
    write_zip(tmp_path / "w.bin", pickle_of([view]), {"0": bytes(16)})
    with pytest.raises(ConvertError) as caught:
        read(tmp_path / "w.bin")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


SYSTEM = b"\x80\x02cos\nsystem\n" + text("touch hacked") + b"\x85R."
TENSOR = torch_files.describe(View("w", "F32", "0", 4, (4,), (1,)))


@pytest.mark.parametrize(
    ("pickle", "message"),
    [
        (SYSTEM, "imports 'os.system', which is not a tensor"),
        (SYSTEM.replace(b"cos\nsystem\n", b"\x8c\x02os\x8c\x06system\x93"), "imports 'os.system'"),
        (b"\x80\x02cbuiltins\neval\n.", "imports 'builtins.eval'"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "in an unknown way"),
        (b"\x80\x02ccollections\nOrderedDict\n(" + number(3) + b"tR.", "in an unknown way"),
        (b"\x80\x02" + text("x") + b")R.", "calls what is no function"),
        (b"\x80\x02i os\nsystem\n.", "the instruction 0x69"),  # INST
        (b"\x80\x02)\x81.", "the instruction 0x81"),  # NEWOBJ
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "the instruction 0x8b"),  # LONG4 of two gigabytes
        (b"\x80\x02X\xff\xff\xff\xff.", "a text of 4294967295 bytes"),
        (b"\x80\x02X\x09\x00\x00\x00ab.", "ends too early"),
        (b"\x80\x02}" + b"}" * 200_000 + b".", "more than 100000 dicts and lists"),
        (b"\x80\x02" + b"N" * 1_100_000, "more than 1000000 instructions"),
        (b"\x80\x02]" + b"\x85" * 200_000 + b".", "holds no dict of tensors"),
        (b"\x80\x02}r\xff\xff\xff\xff.", None),  # a memo's index is not a size
        (b"\x80\x02}h\x07.", "is broken"),
        (b"\x80\x02u.", "is broken"),
        (b"\x80\x02}" + number(1) + b"Ns.", "a key that is not a string"),
        (b"\x80\x02}" + text("step") + number(3) + b"s.", "holds 'step', which is not a tensor"),
        (b"\x80\x02}" + text("model") + b"}" + text("w") + TENSOR + b"ss.", "holds 'model'"),
        (b"\x80\x02" + text("other") + b"Q.", "outside that is no storage"),
        (b"\x80\x00.", "protocol 0"),
        (b"", "ends too early"),
    ],
)
def test_a_pickle_that_is_more_than_tensors_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pickle: bytes, message: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    if message is None:
        assert read_tensors(pickle) == {}
        return
    with pytest.raises(PickleError) as caught:
        read_tensors(pickle)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_values_nested_a_billion_times_cost_nothing() -> None:
    # Each list holds the one before ten times: 10^30 values, if anything walked them.
    level = b"](h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00eq\x00"
    pickle = b"\x80\x02]q\x00" + level * 30 + b"."
    tracemalloc.start()
    with pytest.raises(PickleError, match="holds no dict"):
        read_tensors(pickle)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def small_file(path: Path) -> Path:
    tensors = Tensors()
    dense.add(tensors, "a.weight", "BF16", 4, 8)
    dense.add(tensors, "b.weight", "F32", 16)
    torch_files.write_torch(path, tensors)
    return path


def test_a_file_of_old_torch_or_cut_short_is_named(tmp_path: Path) -> None:
    path = small_file(tmp_path / "w.bin")
    data = path.read_bytes()
    path.write_bytes(data[:-30])
    with pytest.raises(ConvertError, match="has no zip directory"):
        read(path)
    path.write_bytes(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." + data)
    with pytest.raises(ConvertError, match="written by torch before 1.6"):
        read(path)


def test_compressed_members_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.bin", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("w/data.pkl", pickle_of([]) + bytes(1000))
    with pytest.raises(ConvertError, match="compressed or encrypted"):
        read(tmp_path / "w.bin")


def test_big_endian_files_are_refused(tmp_path: Path) -> None:
    write_zip(tmp_path / "w.bin", pickle_of([]), {}, byteorder=b"big")
    with pytest.raises(ConvertError, match="not little-endian"):
        read(tmp_path / "w.bin")


def test_two_thousand_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    path = small_file(tmp_path / "w.bin")
    whole, draw = path.read_bytes(), random.Random(3)
    refused = 0
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(data))
            action = draw.randrange(3)
            if action == 0:
                data[at] = draw.randrange(256)
            elif action == 1:
                data[at : at + draw.randint(1, 8)] = draw.randbytes(draw.randint(0, 8))
            else:
                data[at : at + 4] = draw.choice((b"\xff" * 4, b"\0" * 4, b"\0\0\0\x80"))
        path.write_bytes(data)
        try:
            for tensor in read(path).values():
                assert 0 <= tensor.offset <= tensor.offset + tensor.size_bytes <= len(data)
        except ConvertError as error:
            refused += 1
            assert "\n" not in str(error)
    assert 500 < refused < 2000
