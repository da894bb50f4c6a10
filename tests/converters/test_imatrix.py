from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import imatrices
import numpy as np
import pytest
from gguf import GGUFWriter
from imatrices import Seen

from converters.errors import ConvertError
from converters.types.imatrix import Imatrix

NAME = "blk.0.ffn_up.weight"
Write = Callable[[Path, dict[str, Seen]], Path]
BOTH = pytest.mark.parametrize("write", [imatrices.write_gguf, imatrices.write_dat])


def seen(*sums: float, counts: tuple[int, ...] = (2,), matrices: int = 1) -> Seen:
    return Seen(np.float32(sums).reshape(matrices, -1), counts)


def refusal(path: Path) -> str:
    with pytest.raises(ConvertError) as caught, Imatrix(path) as matrix:
        for name, entry in matrix.entries.items():
            matrix.means(name, 0, entry.values)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@BOTH
def test_means_are_sums_over_the_tokens_seen(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path / "m", {NAME: seen(2, 4, 6, 7), "blk.1.x.weight": seen(1, counts=(4,))})
    with Imatrix(path) as matrix:
        assert list(matrix.entries) == [NAME, "blk.1.x.weight"]
        assert matrix.chunks == 12
        assert matrix.datasets[0] == "a.txt"
        np.testing.assert_array_equal(matrix.means(NAME, 0, 4), np.float32([1, 2, 3, 3.5]))
        np.testing.assert_array_equal(matrix.means("blk.1.x.weight", 0, 1), np.float32([0.25]))


@BOTH
def test_every_expert_has_its_own_counts_and_one_without_any_was_never_seen(
    tmp_path: Path, write: Write
) -> None:
    sums = seen(2, 4, 0, 0, 30, 60, counts=(2, 0, 10), matrices=3)
    with Imatrix(write(tmp_path / "m", {NAME: sums})) as matrix:
        np.testing.assert_array_equal(matrix.means(NAME, 0, 2), np.float32([1, 2]))
        assert matrix.means(NAME, 1, 2) is None
        np.testing.assert_array_equal(matrix.means(NAME, 2, 2), np.float32([3, 6]))


def test_stacked_heads_share_one_count(tmp_path: Path) -> None:
    path = imatrices.write_gguf(tmp_path / "m", {NAME: seen(2, 4, 6, 8, counts=(2,), matrices=2)})
    with Imatrix(path) as matrix:
        np.testing.assert_array_equal(matrix.means(NAME, 1, 2), np.float32([3, 4]))


@pytest.mark.parametrize("dataset", [None, ""])
def test_an_older_file_may_end_without_naming_its_text(tmp_path: Path, dataset: str | None) -> None:
    path = imatrices.write_dat(tmp_path / "m", {NAME: seen(2, 4)}, dataset)
    with Imatrix(path) as matrix:
        assert (matrix.datasets, matrix.chunks) == ((), 0 if dataset is None else 12)


@BOTH
@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 1e30])
def test_values_that_no_measurement_gives_are_refused_by_name(
    tmp_path: Path, write: Write, value: float
) -> None:
    message = refusal(write(tmp_path / "m", {NAME: seen(1, value, 1, counts=(1,))}))
    assert f"the importance of {NAME} holds values that are negative, infinite" in message


def test_a_model_is_no_importance_matrix(nano_gguf: Path) -> None:
    assert "it has no imatrix.datasets" in refusal(nano_gguf)


@pytest.mark.parametrize("missing", [".in_sum2", ".counts"])
def test_sums_without_counts_and_counts_without_sums_are_refused(
    tmp_path: Path, missing: str
) -> None:
    path = tmp_path / "m.gguf"
    writer = GGUFWriter(path, "imatrix")
    writer.add_array("imatrix.datasets", ["a.txt"])
    writer.add_uint32("imatrix.chunk_count", 1)
    writer.add_uint32("imatrix.chunk_size", 512)
    for suffix in {".in_sum2", ".counts"} - {missing}:
        writer.add_tensor(NAME + suffix, np.ones((1, 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert f"{NAME} has no sums or no counts" in refusal(path)


def entry(name: bytes = b"a", values: int = 1, length: int | None = None) -> bytes:
    size = len(name) if length is None else length
    return struct.pack("<i", size) + name + struct.pack("<ii", 1, values)


ONE = struct.pack("<f", 1.0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it ends too early"),
        (b"\1\0", "it ends too early"),
        (struct.pack("<i", 0) + bytes(32), "it claims 0 entries"),
        (struct.pack("<i", -1) + bytes(32), "it claims -1 entries"),
        (struct.pack("<i", 2**31 - 1) + bytes(32), "it claims 2,147,483,647 entries"),
        (struct.pack("<i", 1) + entry(length=2**31 - 1), "a name has 2,147,483,647 bytes"),
        (struct.pack("<i", 1) + entry(length=-5), "a name has -5 bytes"),
        (struct.pack("<i", 1) + entry(b"\xff") + ONE, "a name is not valid UTF-8"),
        (struct.pack("<i", 1) + entry(b"\n") + ONE, "a name holds control characters"),
        (struct.pack("<i", 1) + entry(values=2**31 - 1) + ONE, "claims 2,147,483,647 values"),
        (struct.pack("<i", 1) + entry(values=0) + ONE, "claims 0 values"),
        (struct.pack("<i", 2) + 2 * (entry() + ONE), "a is there twice"),
        (struct.pack("<i", 2) + entry() + ONE + bytes(12), "claims 0 values"),
        (struct.pack("<i", 1) + entry() + ONE + b"\1", "it ends too early"),
        (struct.pack("<i", 1) + entry() + ONE + struct.pack("<ii", 1, 2**31 - 1), "a name has"),
    ],
)
def test_a_damaged_older_file_is_refused_in_one_line(
    tmp_path: Path, data: bytes, message: str
) -> None:
    path = tmp_path / "m.dat"
    path.write_bytes(data)
    assert message in refusal(path)


@BOTH
def test_random_damage_never_ends_in_anything_but_a_refusal(tmp_path: Path, write: Write) -> None:
    sums = seen(*range(24), counts=(5, 6, 7), matrices=3)
    whole = write(tmp_path / "whole", {NAME: sums, "blk.1.attn_q.weight": sums}).read_bytes()
    rng, refused, path = random.Random(7), 0, tmp_path / "damaged"
    for _ in range(600):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            data[at : at + rng.choice((1, 4, 8))] = rng.choice(
                (b"\xff" * 8, b"\0" * 8, rng.randbytes(8), b"")
            )[: rng.choice((0, 1, 4, 8))]
        path.write_bytes(data[: rng.randint(0, len(data))] if rng.random() < 0.3 else data)
        try:
            with Imatrix(path) as matrix:
                for name, one in matrix.entries.items():
                    for number in range(len(one.counts)):
                        matrix.means(name, number, one.values // len(one.counts))
        except ConvertError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 100


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "cannot read" in refusal(tmp_path / "nothing.gguf")
    assert "cannot read" in refusal(tmp_path)
