from pathlib import Path
from typing import Any

import pytest

from localseek.gguf.header import Tensor
from localseek.gguf.info import GGUFInfo
from localseek.gguf.sparse import sparse_problem

V4: dict[str, Any] = {
    "block_count": 3, "attention.compress_ratios": (0, 4, 128, 0), "hyper_connection.count": 4,
    "attention.sliding_window": 128, "attention.output_group_count": 8,
    "attention.output_lora_rank": 1024, "hyper_connection.sinkhorn_iterations": 20,
    "attention.head_count": 64, "attention.key_length": 512, "attention.value_length": 512,
    "rope.dimension_count": 64, "attention.indexer.head_count": 64,
    "attention.indexer.key_length": 128, "attention.indexer.top_k": 512,
}  # fmt: skip


def problem(architecture: str, **changes: Any) -> str:
    values = V4 | {key.replace("__", "."): value for key, value in changes.items()}
    metadata = {f"{architecture}.{key}": value for key, value in values.items()}
    norm = "blk.0.attn_norm.weight"
    tensor = Tensor(norm, (64,), "F32", 0, 256)
    return sparse_problem(
        GGUFInfo(
            Path("m.gguf"), (), (), 0, 3, {"general.architecture": architecture, **metadata},
            (tensor,),
        )
    )  # fmt: skip


def test_sound_files_and_other_models_have_no_problem() -> None:
    assert problem("deepseek4") == problem("deepseek32") == ""
    assert problem("llama", attention__indexer__top_k=0) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attention__indexer__top_k": 0}, "attention.indexer.top_k is missing"),
        ({"attention__indexer__key_length": 96}, "key_length is 96; a power of two"),
        ({"attention__indexer__key_length": 32}, "key_length is 32; a power of two"),
        ({"rope__dimension_count": 256}, "from the 256 rotated dimensions"),
    ],
)
def test_an_indexer_that_would_abort_llama_cpp_is_named(
    changes: dict[str, int], words: str
) -> None:
    for architecture in ("deepseek32", "deepseek4"):
        assert words in problem(architecture, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hyper_connection__count": 2}, "hyper_connection.count is 2, not 4"),
        ({"attention__compress_ratios": (0, 4)}, "2 entries for 3 layers"),
        ({"attention__compress_ratios": (0, 4, 8)}, "has 8; llama.cpp knows"),
        ({"attention__output_group_count": 6}, "do not divide into 6 output groups"),
        ({"attention__output_group_count": 0}, "output_group_count is missing"),
        ({"attention__value_length": 128}, "512 wide for keys and 128 for values"),
    ],
)
def test_what_v4_files_lack_is_named(changes: dict[str, Any], words: str) -> None:
    assert words in problem("deepseek4", **changes)
