from __future__ import annotations

import itertools
import random
from pathlib import Path

import checkpoints
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFReader

from converters import ConvertError, ConvertOptions, Fitted, convert, preview
from converters.checking import estimate
from converters.kernels.quantize import row_bytes
from converters.types.fit import Fit, Item, Option, fit, make_items, smallest
from converters.types.type_errors import RELATIVE_ERRORS

CONFIGS = Path(__file__).parent / "configs"
KINDS = (Kind.Q2_K, Kind.Q3_K, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K, Kind.Q8_0)
# Rows of 256, so that every type is possible.
SMALL = checkpoints.Dims(num_hidden_layers=3, n_routed_experts=8, num_experts_per_tok=2)


@pytest.fixture(autouse=True)
def _measure_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "BUDGET_S", 0.01)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.make_v3(tmp_path_factory.mktemp("small") / "v3", SMALL)


def fitted(source: Path, size: int, **options: object) -> Fitted:
    found = preview(source, ConvertOptions(fit_bytes=size, **options)).fitted  # type: ignore[arg-type]
    assert found is not None
    return found


def options_of(rows: int, kinds: tuple[Kind, ...] = KINDS) -> list[Option]:
    return [Option(kind, rows * row_bytes(kind, 256), RELATIVE_ERRORS[kind.name]) for kind in kinds]


def best_by_tables(items: list[Item], budget: int) -> float:
    """The exact optimum: the least loss for every number of bytes, item by item."""
    room = budget // 2  # all sizes here are even
    best = np.zeros(room + 1)
    for item in items:
        after = np.full(room + 1, np.inf)
        for option in item.options:
            size = option.size_bytes // 2
            loss = best[: room + 1 - size] + item.weight * option.error
            after[size:] = np.minimum(after[size:], loss)
        best = after
    return float(best[-1])


def some_items(rng: random.Random, count: int) -> list[Item]:
    names = [f"blk.{n}.ffn_{rng.choice(['gate', 'down'])}_exps.weight" for n in range(count - 2)]
    names += ["output.weight", "blk.0.attn_output.weight"]
    allowed = {name: options_of(rng.choice((1, 7, 32))) for name in names}
    return make_items(names, count, allowed)


def best_by_trying_all(items: list[Item], budget: int) -> float:
    best = float("inf")
    for options in itertools.product(*(item.options for item in items)):
        if sum(option.size_bytes for option in options) <= budget:
            pairs = zip(items, options, strict=True)
            best = min(best, sum(item.weight * option.error for item, option in pairs))
    return best


@pytest.mark.parametrize("seed", range(6))
def test_the_choice_fits_and_leaves_no_room_for_anything_better(seed: int) -> None:
    rng = random.Random(seed)
    items = some_items(rng, 6)
    least = smallest(items)
    most = sum(item.options[-1].size_bytes for item in items)
    for budget in (least, least + 1, *(rng.randint(least, most) for _ in range(3)), most):
        found = fit(items, budget)
        assert found.size_bytes <= budget
        assert found == fit(items, budget)
        best = best_by_trying_all(items, budget)
        assert best <= found.loss * (1 + 1e-9)
        for item, chosen in zip(items, found.chosen, strict=True):
            for option in item.options[chosen + 1 :]:
                more = option.size_bytes - item.options[chosen].size_bytes
                assert found.size_bytes + more > budget
        if budget in (least, most):
            assert found.loss == pytest.approx(best)


@pytest.mark.parametrize("seed", range(4))
def test_the_choice_for_many_tensors_is_within_six_percent_of_the_best(seed: int) -> None:
    rng = random.Random(seed)
    items = some_items(rng, 60)
    least = smallest(items)
    most = sum(item.options[-1].size_bytes for item in items)
    for budget in (rng.randint(least, most) for _ in range(3)):
        best = best_by_tables(items, budget)
        assert best <= fit(items, budget).loss * (1 + 1e-9)
        assert fit(items, budget).loss <= 1.06 * best


def test_a_size_below_the_smallest_is_refused() -> None:
    items = some_items(random.Random(0), 6)
    with pytest.raises(ValueError, match="the smallest options take"):
        fit(items, smallest(items) - 1)


def test_more_room_never_makes_it_worse() -> None:
    items = some_items(random.Random(1), 40)
    losses = [fit(items, size).loss for size in range(smallest(items), 200_000, 3_000)]
    assert losses == sorted(losses, reverse=True)


def test_a_larger_type_that_loses_more_is_never_chosen() -> None:
    worse = Option(Kind.MXFP4, row_bytes(Kind.MXFP4, 256) + 99, RELATIVE_ERRORS["MXFP4"])
    names = ["blk.0.ffn_up_exps.weight"]
    items = make_items(names, 1, {names[0]: [*options_of(1), worse]})
    assert worse not in items[0].options


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_the_file_is_no_larger_than_asked_for(small: Path, tmp_path: Path, share: float) -> None:
    with pytest.raises(ConvertError) as caught:
        convert(small, tmp_path / "no.gguf", ConvertOptions(fit_bytes=1))
    smallest_bytes = int(str(caught.value).split("takes ")[1].split(" ")[0].replace(",", ""))
    largest = preview(small, ConvertOptions("BF16")).size_bytes
    limit = int(smallest_bytes + share * (largest - smallest_bytes))
    options = ConvertOptions(fit_bytes=limit, threads=1)
    result = convert(small, tmp_path / "out.gguf", options)
    assert result.size_bytes == (tmp_path / "out.gguf").stat().st_size <= limit
    assert result.size_bytes == preview(small, options).size_bytes
    file_type = GGUFReader(tmp_path / "out.gguf").fields["general.file_type"].contents()
    assert isinstance(file_type, int)


def test_one_byte_less_than_the_smallest_is_refused_with_ways_out(
    small: Path, tmp_path: Path
) -> None:
    found = fitted(small, 10**9)
    assert preview(small, ConvertOptions(fit_bytes=found.smallest_bytes)).fitted is not None
    with pytest.raises(ConvertError) as caught:
        convert(small, tmp_path / "out.gguf", ConvertOptions(fit_bytes=found.smallest_bytes - 1))
    assert str(caught.value) == (
        f"nothing fits {found.smallest_bytes - 1:,} bytes: the smallest possible file takes "
        f"{found.smallest_bytes:,} (--mtp drop leaves out the MTP layer, smaller types need "
        "--imatrix FILE)"
    )
    assert not (tmp_path / "out.gguf").exists()


def test_overrides_and_the_mtp_floor_hold_under_a_fit(small: Path) -> None:
    least = fitted(small, 10**9, tensor_types=(("ffn_up_exps", "Q6_K"),)).smallest_bytes
    options = ConvertOptions(fit_bytes=least, tensor_types=(("ffn_up_exps", "Q6_K"),))
    parts = {part.group: part for part in preview(small, options).parts}
    assert {use.type for use in parts["routed experts, up"].types} == {"Q6_K"}
    assert {use.type for use in parts["routed experts, down"].types} == {"Q2_K"}
    assert {use.type for use in parts["MTP layer"].types} == {"Q8_0", "Q6_K", "F32"}


def test_v3_in_400_gb_keeps_what_every_token_passes_and_spends_all() -> None:
    limit = 400 * 10**9
    found = preview(CONFIGS / "DeepSeek-V3.json", ConvertOptions(fit_bytes=limit))
    assert found.fitted is not None
    reserved = found.fitted.reserved_bytes
    assert reserved == 64 * 129280  # there is no tokenizer yet
    assert limit - 10**8 < found.size_bytes + reserved <= limit
    kinds: dict[str, set[str]] = {}
    for line in found.fitted.lines:
        kinds.setdefault(line.group, set()).add(line.type)
    for group in ("attention", "shared experts", "dense FFN", "output"):
        assert kinds[group] <= {"Q8_0", "BF16"}
    assert kinds["routed experts, gate"] == {"IQ4_XS"}
    assert kinds["routed experts, down"] == {"IQ4_XS", "Q5_K"}
    assert sum(line.loss_share for line in found.fitted.lines) == pytest.approx(1)
    assert sum(line.tensors for line in found.fitted.lines) == 1108


def test_outer_layers_come_first_and_layers_are_told_as_ranges() -> None:
    found = fitted(CONFIGS / "DeepSeek-V3.json", 400 * 10**9)
    down = {line.type: line for line in found.lines if line.group == "routed experts, down"}
    assert down["Q5_K"].layers.startswith("3–")
    assert down["Q5_K"].layers.endswith("–60")
    assert "," not in down["IQ4_XS"].layers
    assert down["IQ4_XS"].why.startswith("Q4_K would cost ")


def test_a_fit_of_nothing_is_nothing() -> None:
    assert fit([], 0) == Fit((), 0, 0)
