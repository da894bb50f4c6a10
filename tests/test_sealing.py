import io
import os

import pytest

from localseek.store.sealing import PIECE_BYTES, START, Sealed, SealError, is_sealed, seal
from localseek.store.sequences import SequenceStore

KEY = bytes(range(32))
PIECE = PIECE_BYTES + 16


def sealed(path, data: bytes, *cuts: int):
    edges = [0, *cuts, len(data)]
    with path.open("wb") as file:
        parts = (memoryview(data)[a:b] for a, b in zip(edges, edges[1:], strict=False))
        seal(file, KEY, parts)
    return path


def opened(path, key: bytes = KEY) -> bytes:
    with path.open("rb") as file:
        content = Sealed(file, key)
        found = bytes(content.first(content.size))
        assert b"".join(content.pieces()) == found
        return found


@pytest.mark.parametrize(
    ("size", "cuts"),
    [(0, ()), (1, ()), (PIECE_BYTES, ()), (PIECE_BYTES + 1, (0, 1)), (3 * PIECE_BYTES, (7, 7)),
     (3 * PIECE_BYTES - 1, (PIECE_BYTES, PIECE_BYTES + 1)), (200_000, (1, 2, 3, 150_000))],
)  # fmt: skip
def test_what_is_sealed_comes_back_however_it_was_cut(tmp_path, size, cuts):
    data = os.urandom(size)
    path = sealed(tmp_path / "s", data, *cuts)
    assert is_sealed(path) and opened(path) == data
    with path.open("rb") as file:
        content = Sealed(file, KEY)
        assert content.size == size
        for length in (0, 1, 100, PIECE_BYTES, size, size + 9):
            assert bytes(content.first(length)) == data[:length]


def test_equal_contents_make_files_that_have_nothing_in_common(tmp_path):
    first, second = (sealed(tmp_path / name, b"x" * 1000).read_bytes() for name in "ab")
    assert first[19:] != second[19:] and b"xxxx" not in first


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1],
        lambda data: data[:START],
        lambda data: data[: START + PIECE],  # a last piece is missing
        lambda data: data[:START] + data[START + PIECE :],
        lambda data: data[:START] + data[START + PIECE : START + 2 * PIECE] + data[START:],
        lambda data: data + data[-PIECE:],
        lambda data: b"",
        lambda data: bytes(len(data)),
        lambda data: data[: START - 1] + b"?" + data[START:],
        lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:],
    ],
)
def test_a_file_that_was_changed_is_refused(tmp_path, spoil):
    path = sealed(tmp_path / "s", os.urandom(2 * PIECE_BYTES + 500))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(SealError):
        opened(path)


def test_another_key_opens_nothing(tmp_path):
    with pytest.raises(SealError, match="another key"):
        opened(sealed(tmp_path / "s", b"words"), bytes(32))


def test_a_store_with_a_key_seals_and_its_names_tell_nothing(tmp_path):
    store = SequenceStore(tmp_path, key=KEY)
    paths = [store.write("fingerprint", [memoryview(b"words")]) for _ in range(2)]
    assert not any(path.name.startswith("finger") for path in paths)
    assert all(b"words" not in path.read_bytes() for path in paths)
    with store.opened(paths[0]) as content:
        assert bytes(content.first(99)) == b"words"
    with pytest.raises(ValueError), SequenceStore(tmp_path, key=bytes(32)).opened(paths[0]) as c:
        c.first(1)


def test_writing_anew_leaves_out_what_cannot_be_read(tmp_path):
    plain = SequenceStore(tmp_path)
    good = plain.write("m", [memoryview(b"words")])
    (tmp_path / "empty.sequence").touch()
    names = plain.written_anew(KEY)
    assert names.keys() == {good.name}
    with SequenceStore(tmp_path, key=KEY).opened(tmp_path / names[good.name]) as content:
        assert bytes(content.first(9)) == b"words"


def test_sealing_needs_a_piece_of_memory_and_not_a_file(tmp_path):
    class Counting(io.RawIOBase):
        largest = 0

        def write(self, data) -> int:
            self.largest = max(self.largest, len(data))
            return len(data)

    sink = Counting()
    seal(sink, KEY, (memoryview(bytes(1 << 20)) for _ in range(8)))
    assert sink.largest == PIECE
