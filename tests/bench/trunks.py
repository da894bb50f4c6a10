"""Make models with nano's text and acceptance, and the cost ratios of big models.

Takes nano's Q8_0 GGUF, gives a folder with `bare.gguf` (nano itself), `dense.gguf` (24 more dense
layers, FFN width 8192), `sparse.gguf` (16 more layers of 32 experts, width 2048) and, of the last
two, one whose MTP layer is random (`*-random.gguf`). The layers that are added have output
projections of zero, so the trunk's logits stay those of nano; experts and widths that are added to
its own layers are never chosen (selection bias −10,000) or zero. Run by hand:

    python tests/bench/trunks.py nano-Q8_0.gguf FOLDER
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize, quantize

F32, Q8_0 = GGMLQuantizationType.F32, GGMLQuantizationType.Q8_0
NEVER = -10_000.0  # selection bias of an expert that is never chosen


@dataclass(frozen=True)
class Growth:
    """How a trunk grows: layers added after the first, and the widths that all layers get."""

    dense: int = 0
    sparse: int = 0
    ffn: int = 768
    expert: int = 128
    experts: int = 8


GROWTHS = {
    "bare": Growth(),
    "dense": Growth(dense=24, ffn=8192),
    "sparse": Growth(sparse=16, expert=2048, experts=32),
}
Tensors = dict[str, np.ndarray]


def grown(name: str, values: np.ndarray, growth: Growth) -> np.ndarray:
    """Give a tensor of nano's with zeros where its layer became wider or got more experts."""
    shape = list(values.shape)
    if "_exps." in name:
        shape[0] = growth.experts
    if re.search(r"ffn_(gate|up)(_exps|_shexp)\.", name):
        shape[-2] = growth.expert
    elif re.search(r"ffn_down(_exps|_shexp)\.", name):
        shape[-1] = growth.expert
    elif re.search(r"ffn_(gate|up)\.weight", name):
        shape[-2] = growth.ffn
    elif "ffn_down.weight" in name:
        shape[-1] = growth.ffn
    elif "ffn_gate_inp" in name or "exp_probs_b" in name:
        shape[0] = growth.experts
    fill = NEVER if "exp_probs_b" in name else 0.0
    wide = np.full(shape, fill, np.float32)
    wide[tuple(slice(0, n) for n in values.shape)] = values
    return wide


def added(like: Tensors, source: int, index: int, growth: Growth) -> Iterator[tuple[str, Any]]:
    """Give the tensors of an added layer: random, its output projections zero."""
    rng = np.random.default_rng(index)
    for name, values in like.items():
        if not name.startswith(f"blk.{source}."):
            continue
        part = name.split(".", 2)[2]
        shape = grown(name, values, growth).shape
        if "norm" in part:
            new = np.ones(shape, np.float32)
        elif "exp_probs_b" in part or re.match(r"attn_output|ffn_down", part):
            new = np.zeros(shape, np.float32)
        else:
            new = rng.standard_normal(shape, np.float32) * (shape[-1] ** -0.5)
        yield f"blk.{index}.{part}", new


def write(path: Path, reader: GGUFReader, growth: Growth, random_mtp: bool) -> None:
    """Write one model; layers 1…N are the added ones, nano's own follow."""
    like = {t.name: dequantize(t.data, t.tensor_type) for t in reader.tensors}
    kinds = {re.sub(r"^blk\.\d+\.", "", t.name): t.tensor_type for t in reader.tensors}
    count = growth.dense + growth.sparse
    writer = GGUFWriter(path, "deepseek2")
    changes = {
        "block_count": 5 + count, "leading_dense_block_count": 1 + growth.dense,
        "feed_forward_length": growth.ffn, "expert_feed_forward_length": growth.expert,
        "expert_count": growth.experts,
    }  # fmt: skip
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        value = changes.get(key.removeprefix("deepseek2."), field.contents())
        kind = field.types[0]
        writer.add_key_value(
            key, value, kind, field.types[-1] if kind == GGUFValueType.ARRAY else None
        )

    def add(name: str, values: np.ndarray) -> None:
        kind = kinds[re.sub(r"^blk\.\d+\.", "", name)]
        data = quantize(values, kind) if kind == Q8_0 else values.astype(np.float32)
        writer.add_tensor(name, data, raw_dtype=kind)

    for name, values in like.items():
        layer = re.match(r"blk\.(\d+)\.(.*)", name)
        if layer is None:
            add(name, values)
            continue
        index = int(layer[1])
        new = grown(name, values, growth)
        if random_mtp and index == 4 and "norm" not in name and "exp_probs" not in name:
            new = np.random.default_rng(4).standard_normal(new.shape, np.float32) * 0.06
        add(f"blk.{index + (count if index else 0)}.{layer[2]}", new)
    for index in range(1, count + 1):
        for name, values in added(like, 0 if growth.dense else 1, index, growth):
            add(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Write the five models."""
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    reader = GGUFReader(source)
    for name, growth in GROWTHS.items():
        for random_mtp in (False, True) if name != "bare" else (False,):
            path = folder / f"{name}{'-random' if random_mtp else ''}.gguf"
            write(path, reader, growth, random_mtp)
            print(f"{path}: {path.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
