"""Writes small GGUF files for tests, also broken ones: plain bytes, no gguf package."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SIZES = {0: (1, 4), 1: (1, 2), 8: (32, 34)}  # F32, F16, Q8_0: elements and bytes a block


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def typed(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    items = [typed(item) for item in value]
    kind = items[0][:4] if items else struct.pack("<I", 4)
    return struct.pack("<I", 9) + kind + struct.pack("<Q", len(items)) + b"".join(
        item[4:] for item in items
    )  # fmt: skip


Entry = tuple[str, Sequence[int], int]


def build(metadata: Mapping[str, Any], tensors: Sequence[Entry], alignment: int = 32) -> bytes:
    head, size = build_head(metadata, tensors, alignment)
    return head + bytes(size)


def build_head(
    metadata: Mapping[str, Any], tensors: Sequence[Entry], alignment: int = 32
) -> tuple[bytes, int]:
    """All that comes before the data, and how much data there is."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    head += b"".join(text(key) + typed(value) for key, value in metadata.items())
    offset = 0
    for name, shape, kind in tensors:
        block, width = SIZES[kind]
        elements = 1
        for extent in shape:
            elements *= extent
        size = elements // block * width
        padded = -(-size // alignment) * alignment
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        head += struct.pack("<IQ", kind, offset)
        offset += padded
    return head + bytes(-len(head) % alignment), offset


DENSE: dict[str, Any] = {
    "general.architecture": "llama", "general.name": "Tiny", "general.file_type": 7,
    "llama.block_count": 1, "llama.context_length": 2048, "tokenizer.chat_template": "{{ x }}",
    "tokenizer.ggml.tokens": [f"t{i}" for i in range(100)],
}  # fmt: skip
DENSE_TENSORS: list[Entry] = [
    ("token_embd.weight", (64, 100), 8), ("blk.0.attn_norm.weight", (64,), 0),
    ("blk.0.attn_q.weight", (64, 64), 8),
]  # fmt: skip
EXPERTS: dict[str, Any] = {
    "general.architecture": "deepseek2", "general.name": "Small V3",
    "deepseek2.block_count": 2, "deepseek2.context_length": 4096,
    "deepseek2.expert_count": 8, "deepseek2.expert_used_count": 2,
    "deepseek2.expert_group_count": 4, "deepseek2.expert_group_used_count": 2,
    "deepseek2.nextn_predict_layers": 1,
}  # fmt: skip
EXPERTS_TENSORS: list[Entry] = [
    ("token_embd.weight", (64, 10), 8), ("blk.0.ffn_gate_exps.weight", (64, 32, 8), 8),
    ("blk.1.nextn.eh_proj.weight", (128, 64), 8), ("blk.1.nextn.enorm.weight", (64,), 0),
    ("blk.1.nextn.hnorm.weight", (64,), 0),
]  # fmt: skip


def write_v32(path: Path) -> Path:
    """A V3.2 file without a chat template, as llama.cpp's converter writes it."""
    changed = {
        key.replace("deepseek2", "deepseek32"): value for key, value in EXPERTS.items()
    } | {
        "general.architecture": "deepseek32", "deepseek32.attention.indexer.head_count": 2,
        "deepseek32.attention.indexer.key_length": 64, "deepseek32.attention.indexer.top_k": 8,
    }  # fmt: skip
    path.write_bytes(build(changed, EXPERTS_TENSORS))
    return path


def write_dense(path: Path, **changes: Any) -> Path:
    path.write_bytes(build({**DENSE, **changes}, DENSE_TENSORS))
    return path


def write_experts(path: Path, **changes: Any) -> Path:
    path.write_bytes(build({**EXPERTS, **changes}, EXPERTS_TENSORS))
    return path
