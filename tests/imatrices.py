"""Importance matrices as llama-imatrix writes them, in both formats, for tests.

Takes sums of squared inputs [matrices, columns] and counts by tensor name.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGUFWriter

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """What was summed up for one tensor; `counts` has one number, or one for each matrix."""

    sums: Floats
    counts: tuple[int, ...]

    @property
    def means(self) -> Floats:
        """Mean squared inputs [matrices, columns], ones where a matrix was never seen."""
        counts = np.broadcast_to(np.float32(self.counts)[:, None], (len(self.sums), 1))
        return np.where(counts > 0, self.sums / np.maximum(counts, 1), np.float32(1))


def random_entries(
    shapes: Mapping[str, tuple[int, ...]], experts_unseen: tuple[int, ...] = ()
) -> dict[str, Seen]:
    """Draw entries for tensors with the given shapes, outermost first; stacks count by expert."""
    entries = {}
    for name, shape in shapes.items():
        rng = np.random.default_rng([*name.encode()])
        matrices = shape[0] if len(shape) == 3 else 1
        counts = tuple(int(n) for n in rng.integers(100, 200, matrices if "exps" in name else 1))
        if "exps" in name:
            counts = tuple(0 if n in experts_unseen else count for n, count in enumerate(counts))
        means = np.exp(rng.normal(0, 2, (matrices, shape[-1]))).astype(np.float32)
        entries[name] = Seen(means * np.float32(counts)[:, None], counts)
    return entries


def write_gguf(
    path: Path, entries: Mapping[str, Seen], datasets: tuple[str, ...] = ("a.txt", "b.txt")
) -> Path:
    """Write the present format."""
    writer = GGUFWriter(path, "imatrix")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", list(datasets))
    writer.add_uint32("imatrix.chunk_count", 12)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, seen in entries.items():
        # As llama-imatrix lays them out: a row for each count.
        counts = np.float32(seen.counts)[:, None]
        writer.add_tensor(f"{name}.in_sum2", seen.sums.reshape(len(counts), -1))
        writer.add_tensor(f"{name}.counts", counts)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_dat(path: Path, entries: Mapping[str, Seen], dataset: str | None = "a.txt") -> Path:
    """Write the older format; without a dataset as its first versions ended."""
    parts = [struct.pack("<i", len(entries))]
    for name, seen in entries.items():
        chunks = 4  # dividing by it again rounds nothing
        values = (seen.means * np.float32(chunks)).astype("<f4").tobytes()
        data = name.encode()
        parts += [struct.pack("<i", len(data)), data]
        parts += [struct.pack("<ii", chunks, seen.sums.size), values]
    if dataset is not None:
        parts += [struct.pack("<ii", 12, len(dataset.encode())), dataset.encode()]
    path.write_bytes(b"".join(parts))
    return path
