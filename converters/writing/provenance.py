"""The fingerprint of a conversion: of all that determines the bytes that come out of it.

Takes a plan and an open source, gives hexadecimal SHA-256. Weights are only sampled: a file counts
by its name, size, mark (source.py) and table of tensors, also while it is away; an importance
matrix, ggml's kernels and our code by their whole contents.
Does not know what the fingerprint is used for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from converters.kernels.quantize import library_path
from converters.planning.origin import add_texts
from converters.planning.plan import Plan
from converters.source.source import Source
from converters.writing import tiles
from localseek.gguf import head as reader


def conversion_fingerprint(plan: Plan, heads: Iterable[bytes], checkpoint: Source) -> str:
    """Return what stays the same as long as the same bytes come out, tile by tile.

    Two runs with the same fingerprint may share their work: it changes with the source, the
    options, the kernels, numpy, and any line of this package.
    """
    digest = hashlib.sha256()
    add_texts(digest, [np.__version__, str(tiles.TILE_ELEMENTS), *_code()])
    for head in heads:
        digest.update(hashlib.sha256(head).digest())
    for tensor in plan.tensors:
        made_of = [*map(repr, tensor.pieces), repr(tensor.values)]
        add_texts(digest, [tensor.name, str(tensor.offset), *made_of])
        if tensor.importance:
            add_texts(digest, [tensor.importance.imatrix.fingerprint])
    for path, size in checkpoint.sizes.items():
        add_texts(digest, [path.name, str(size), checkpoint.mark(path)])
    for stored in checkpoint.tensors.values():
        place = (stored.dtype, stored.shape, stored.offset, stored.size_bytes)
        add_texts(digest, [stored.name, stored.shard.name, repr(place)])
    return digest.hexdigest()


def _code() -> list[str]:
    """Return hashes of the kernels' library and of every module that decides about bytes."""
    folder = Path(__file__).parents[1]
    files = [library_path(), Path(reader.__file__), *sorted(folder.rglob("*.py"))]
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
