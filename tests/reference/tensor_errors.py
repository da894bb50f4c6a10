"""The relative error of a GGUF file's tensors against a reference file, by part of the model.

`PYTHONPATH=. python tests/reference/tensor_errors.py F32.gguf OTHER.gguf [MORE.gguf …]` reads both
with gguf's numpy decoders, which share no code with ggml, and prints √(Σ(x − x̂)² / Σx²) over all
values of a part, in percent. Run by hand.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

from converters.types.groups import GROUPS, Group, group_of


def errors(first: Path, other: Path) -> dict[Group, float]:
    """Return the relative root mean square error of each part."""
    reader = GGUFReader(first)
    arch = reader.fields["general.architecture"].contents()
    blocks = int(reader.fields[f"{arch}.block_count"].contents())
    drafts = reader.fields.get(f"{arch}.nextn_predict_layers")
    n_layer = blocks - (int(drafts.contents()) if drafts else 0)
    found = {tensor.name: tensor for tensor in GGUFReader(other).tensors}
    lost: defaultdict[Group, float] = defaultdict(float)
    whole: defaultdict[Group, float] = defaultdict(float)
    for tensor in reader.tensors:
        group = group_of(tensor.name, n_layer)
        one = dequantize(tensor.data, tensor.tensor_type).astype(np.float64)
        twin = found[tensor.name]
        two = dequantize(twin.data, twin.tensor_type).reshape(one.shape)
        lost[group] += float(((one - two) ** 2).sum())
        whole[group] += float((one**2).sum())
    return {group: (lost[group] / whole[group]) ** 0.5 for group in GROUPS if group in whole}


def main() -> None:
    """Read the command line, compare, print."""
    first, *others = map(Path, sys.argv[1:])
    for path in others:
        print(f"{path.name}: {path.stat().st_size:,} bytes")
        for group, error in errors(first, path).items():
            print(f"  {group:24} {error:8.3%}")


if __name__ == "__main__":
    main()
