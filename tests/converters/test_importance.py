from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import imatrices
import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFReader
from imatrices import Seen

from converters import ConvertError, ConvertOptions, convert, preview
from converters.kernels.quantize import USES_IMPORTANCE, quantize_rows, row_bytes
from converters.planning.plan import make_plan
from converters.source.checkpoint import Checkpoint
from converters.types.imatrix import Imatrix
from converters.types.importance import match_importance
from converters.types.mixtures import Shape
from converters.types.recipe import TENSOR_TYPES
from converters.writing import tiles
from converters.writing.provenance import conversion_fingerprint

# Wide enough for I-quants; heads of 64 make attn_k_b a stack of transposed pieces.
DIMS = checkpoints.Dims(
    num_hidden_layers=2, n_routed_experts=4, num_experts_per_tok=2, intermediate_size=256,
    vocab_size=300,
)  # fmt: skip
UNSEEN = (1, 3)
STACK, OTHER = "blk.1.ffn_down_exps.weight", "blk.1.ffn_up_exps.weight"
HEADS, DENSE = "blk.1.attn_k_b.weight", "blk.0.attn_output.weight"
Write = Callable[[Path, dict[str, Seen]], Path]
BOTH = pytest.mark.parametrize("write", [imatrices.write_gguf, imatrices.write_dat])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("importance") / "v3"
    return checkpoints.make_v3(folder, DIMS, config={"n_group": 1, "topk_group": 1})


@pytest.fixture(scope="module")
def whole(model: Path) -> dict[str, npt.NDArray[np.float32]]:
    target = model.parent / "whole.gguf"
    convert(model, target, ConvertOptions("F32", threads=1))
    return {tensor.name: tensor.data for tensor in GGUFReader(target).tensors}


@pytest.fixture(scope="module")
def entries(whole: dict[str, npt.NDArray[np.float32]]) -> dict[str, Seen]:
    """Return entries for what llama-imatrix watches: matrices of the trunk."""
    watched = {
        name: values.shape
        for name, values in whole.items()
        if name.startswith(("blk.0.", "blk.1.")) and values.ndim > 1
    }
    return imatrices.random_entries(watched, experts_unseen=UNSEEN)


def expected(kind: Kind, rows: Any, means: Any) -> npt.NDArray[np.uint8]:
    """Quantize a tensor a matrix at a time, each with its own importance."""
    stack = rows.reshape(-1, *rows.shape[-2:])
    size = row_bytes(kind, rows.shape[-1])
    out = np.empty((*stack.shape[:2], size), np.uint8)
    for matrix, into, weights in zip(stack, out, means, strict=True):
        quantize_rows(kind, np.ascontiguousarray(matrix), into.reshape(-1), weights)
    return out.reshape(-1)


@BOTH
def test_every_expert_head_and_matrix_is_quantized_with_its_own_slice(
    model: Path, whole: Any, entries: dict[str, Seen], tmp_path: Path, write: Write,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(tiles, "TILE_ELEMENTS", 1 << 15)  # tiles smaller than a matrix
    options = ConvertOptions(
        "Q4_K_M",
        tensor_types=((STACK, "IQ3_XXS"), (DENSE, "IQ4_XS")),
        threads=2,
        imatrix=write(tmp_path / "m", entries),
    )
    convert(model, tmp_path / "out.gguf", options)
    found = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "out.gguf").tensors}
    compared = 0
    for name, seen in entries.items():
        tensor = found[name]
        if tensor.tensor_type in USES_IMPORTANCE:
            right = expected(tensor.tensor_type, whole[name], seen.means)
            assert np.array_equal(tensor.data.reshape(-1), right), name
            compared += 1
    assert compared > 15
    for name in (STACK, HEADS, DENSE):  # and it matters which slice that is
        wrong = np.roll(entries[name].means, 1, axis=-1)
        other = expected(found[name].tensor_type, whole[name], wrong)
        assert not np.array_equal(found[name].data.reshape(-1), other)


def test_a_gguf_file_is_quantized_with_the_same_importance_as_its_checkpoint(
    model: Path, whole: Any, entries: dict[str, Seen], tmp_path: Path
) -> None:
    path = imatrices.write_gguf(tmp_path / "m.gguf", entries)
    found = []
    for number, source in enumerate((model, model.parent / "whole.gguf")):
        target = tmp_path / f"{number}.gguf"
        convert(source, target, ConvertOptions("Q4_0", threads=1, imatrix=path))
        reader = GGUFReader(target)
        assert reader.fields["quantize.imatrix.entries_count"].contents() == len(entries)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert reader.fields["localseek.imatrix.fingerprint"].contents() == digest
        assert "--imatrix m.gguf" in reader.fields["localseek.recipe"].contents()
        found.append({one.name: one.data.tobytes() for one in reader.tensors})
    assert found[0] == found[1]


def test_rows_that_cross_matrices_are_cut_where_they_end(
    entries: dict[str, Seen], tmp_path: Path
) -> None:
    path = imatrices.write_gguf(tmp_path / "m.gguf", {STACK: entries[STACK]})
    with Imatrix(path) as imatrix:
        importance = match_importance(imatrix, [Shape(STACK, (4, 10, 256))])[STACK]
        runs = list(importance.runs(7, 20, 10))
    assert [rows for rows, _ in runs] == [3, 10, 7]
    for (_, weights), matrix in zip(runs, (0, 1, 2), strict=True):
        np.testing.assert_array_equal(weights, entries[STACK].means[matrix])
    assert importance.unseen == set(UNSEEN)


@BOTH
def test_experts_that_were_never_seen_are_reported_with_counts(
    model: Path, entries: dict[str, Seen], tmp_path: Path, write: Write
) -> None:
    options = ConvertOptions("Q2_K", imatrix=write(tmp_path / "m", entries))
    assert preview(model, options).warnings == (
        "the importance matrix never saw 6 of 12 experts in 3 tensors "
        "(blk.1.ffn_gate_exps.weight, …) (2 of 4 in the first): all their columns count alike",
    )


def test_a_tensor_without_data_falls_back_and_is_reported_and_the_draft_layer_needs_none(
    model: Path, entries: dict[str, Seen], tmp_path: Path
) -> None:
    left = {name: seen for name, seen in entries.items() if "exps" not in name and name != DENSE}
    path = imatrices.write_gguf(tmp_path / "m.gguf", left)
    with Checkpoint(model) as checkpoint, Imatrix(path) as imatrix:
        plan = make_plan(checkpoint, "IQ2_XXS", imatrix=imatrix)
    kinds = {tensor.name: tensor for tensor in plan.tensors}
    assert kinds["blk.0.attn_kv_a_mqa.weight"].kind == Kind.IQ2_XXS
    assert (kinds[DENSE].kind, kinds[DENSE].importance) == (Kind.Q2_K, None)
    assert kinds[DENSE].why == "the imatrix lacks it: no IQ2_XXS"
    assert {one.kind.name for one in plan.tensors if one.name.startswith("blk.2.")} == {
        "F32", "Q8_0",
    }  # fmt: skip
    assert plan.warnings == (
        "the importance matrix has no data for 4 tensors (blk.0.attn_output.weight, …): quantized "
        "without, in a type that needs none (IQ2_XXS → Q2_K)",
    )


def test_a_stack_of_which_no_expert_was_seen_has_no_data(
    model: Path, entries: dict[str, Seen], tmp_path: Path
) -> None:
    blind = Seen(np.zeros((4, 256), np.float32), (0, 0, 0, 0))
    path = imatrices.write_gguf(tmp_path / "m.gguf", entries | {STACK: blind})
    with Checkpoint(model) as checkpoint, Imatrix(path) as imatrix:
        plan = make_plan(checkpoint, "IQ3_XXS", imatrix=imatrix)
    assert next(one.kind for one in plan.tensors if one.name == STACK) == Kind.IQ3_S
    assert f"has no data for {STACK}" in plan.warnings[-1]


def test_the_file_says_which_matrix_made_it_as_llama_quantize_does(
    model: Path, entries: dict[str, Seen], tmp_path: Path
) -> None:
    path = imatrices.write_gguf(tmp_path / ("é" * 100), entries)
    convert(model, tmp_path / "out.gguf", ConvertOptions("Q4_0", imatrix=path))
    fields = GGUFReader(tmp_path / "out.gguf").fields
    found = {
        key.rpartition(".")[2]: field.contents()
        for key, field in fields.items()
        if key.startswith("quantize.imatrix.")
    }
    assert len(found["file"].encode()) in (126, 127)  # cut, but not inside a character
    assert str(path).startswith(found.pop("file"))
    assert found == {"dataset": "a.txt", "entries_count": len(entries), "chunks_count": 12}


def test_a_matrix_of_another_size_is_refused_by_name_but_for_the_embeddings(
    model: Path, entries: dict[str, Seen], tmp_path: Path
) -> None:
    odd = Seen(np.ones((1, 255), np.float32), (1,))
    fine = imatrices.write_gguf(tmp_path / "fine.gguf", entries | {"token_embd.weight": odd})
    preview(model, ConvertOptions("Q4_0", imatrix=fine))
    path = imatrices.write_gguf(tmp_path / "m.gguf", entries | {DENSE: odd})
    with pytest.raises(ConvertError, match=f"the importance of {DENSE} has 255 values"):
        convert(model, tmp_path / "out.gguf", ConvertOptions("Q4_0", imatrix=path))
    assert not (tmp_path / "out.gguf").exists()


def test_a_matrix_of_another_model_is_refused_and_entries_without_a_tensor_are_named(
    model: Path, entries: dict[str, Seen], tmp_path: Path
) -> None:
    stranger = {"blk.7.attn_kv_b.weight": entries[DENSE]}
    path = imatrices.write_gguf(tmp_path / "m.gguf", stranger)
    with pytest.raises(ConvertError, match="names no tensor of this model"):
        preview(model, ConvertOptions("Q4_0", imatrix=path))
    path = imatrices.write_gguf(tmp_path / "n.gguf", entries | stranger)
    warnings = preview(model, ConvertOptions("Q4_0", imatrix=path)).warnings
    assert warnings[-1] == (
        "the importance matrix has data for blk.7.attn_kv_b.weight, not in this model"
    )


def test_an_unfinished_conversion_goes_on_only_with_the_same_matrix(
    model: Path, entries: dict[str, Seen], tmp_path: Path
) -> None:
    def fingerprint(contents: dict[str, Seen]) -> str:
        path = imatrices.write_gguf(tmp_path / "m.gguf", contents)
        with Checkpoint(model) as checkpoint, Imatrix(path) as imatrix:
            plan = make_plan(checkpoint, "Q4_K_M", imatrix=imatrix)
            return conversion_fingerprint(plan, [plan.head], checkpoint)

    twice = entries[DENSE]
    changed = entries | {DENSE: Seen(twice.sums * 2, twice.counts)}
    assert fingerprint(entries) != fingerprint(changed)


def test_values_too_large_for_a_kernel_are_refused_and_do_not_end_the_process(
    tmp_path: Path,
) -> None:
    name = "model.layers.0.self_attn.o_proj.weight"
    source = checkpoints.make_v3(
        tmp_path / "v3", DIMS, dtype="F32", config={"n_group": 1, "topk_group": 1}
    )
    path = source / "model.safetensors"
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack_from("<Q", data)
    start = json.loads(data[8 : 8 + length])[name]["data_offsets"][0]
    struct.pack_into("<f", data, 8 + length + start, 1e20)
    path.write_bytes(data)
    options = ConvertOptions("Q4_0", tensor_types=((DENSE, "IQ3_S"),), threads=1)
    with pytest.raises(ConvertError, match=f"{name} holds values too large for IQ3_S"):
        convert(source, tmp_path / "out.gguf", options)


def test_kernels_look_at_importance_as_we_say() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((4, 256), dtype=np.float32)
    weights = np.exp(rng.normal(0, 3, 256)).astype(np.float32)
    # The tables of these take seconds to make; they need importance, so they look at it.
    slow = {kind for kind in TENSOR_TYPES.values() if kind.name.startswith(("IQ1", "IQ2"))}
    assert slow < USES_IMPORTANCE
    for kind in set(TENSOR_TYPES.values()) - slow:
        out = np.empty((3, 4 * row_bytes(kind, 256)), np.uint8)
        quantize_rows(kind, rows, out[0])
        quantize_rows(kind, rows, out[1], weights)
        assert (not np.array_equal(out[0], out[1])) == (kind in USES_IMPORTANCE), kind


def test_a_kernel_that_needs_importance_is_never_called_without() -> None:
    out = np.empty(256, np.uint8)
    with pytest.raises(ValueError, match="IQ2_XXS needs importance"):
        quantize_rows(Kind.IQ2_XXS, np.ones((1, 256), np.float32), out)
    with pytest.raises(ValueError, match=r"importance of \(255,\) for 256 columns"):
        quantize_rows(Kind.Q4_K, np.ones((1, 256), np.float32), out, np.ones(255, np.float32))
