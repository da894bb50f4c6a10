from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import checkpoints
import checkpoints_dense
import checkpoints_v4
import checkpoints_v32
import pytest
from warehouse import Warehouse, headers_only, tiles_of, write_header

from converters import ConvertError, ConvertOptions, convert, preview
from converters.checking.config_only import ConfigOnly
from converters.convert import plan_conversion
from converters.errors import MismatchError
from converters.planning.origin import source_fingerprint
from converters.source.checkpoint import Checkpoint
from converters.writing import saver, tiles
from converters.writing.schedule import Batch, order_by_shard, peak_held, shards_of
from converters.writing.tiles import plan_runs

OPTIONS = ConvertOptions(type="Q4_K_M", threads=2, name="model")
SHARD = "model-{:05}-of-00005.safetensors"
DIMS = checkpoints.Dims(
    hidden_size=32, intermediate_size=32, moe_intermediate_size=32, num_hidden_layers=2,
    num_attention_heads=2, n_routed_experts=8, num_experts_per_tok=2, q_lora_rank=32,
    kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16,
)  # fmt: skip
LITE = replace(DIMS, q_lora_rank=None, n_shared_experts=2)
V4 = checkpoints_v4.Dims(
    hidden_size=128, moe_intermediate_size=64, head_dim=64, qk_rope_head_dim=16, q_lora_rank=64,
    o_lora_rank=32, n_routed_experts=4, num_experts_per_tok=2, index_n_heads=4, index_head_dim=64,
    compress_ratios=(0, 4, 128, 0),
)  # fmt: skip
DENSE = checkpoints_dense.Dims(64, 96, 2, 4, 2)
FAMILIES: dict[str, Callable[..., Path]] = {
    "V3 in FP8": partial(checkpoints.make_v3, dims=DIMS, shards=7),
    "V3 in one file": partial(checkpoints.make_v3, dims=DIMS, dtype="BF16"),
    "V2-Lite": partial(checkpoints.make_v2_lite, dims=LITE, shards=4),
    "V3.2": partial(checkpoints_v32.make_v32, dims=DIMS, shards=6),
    "V4 in FP4": partial(checkpoints_v4.make_v4, dims=V4, shards=6),
    "Llama": partial(checkpoints_dense.make_llama, dims=DENSE, kind="distill", shards=2),
    "MoE-16B": partial(checkpoints_dense.make_moe, dims=DENSE, experts=4, shards=3),
}


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)
    monkeypatch.setattr(saver, "SAVE_SECONDS", 0.0)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tiles, "TILE_ELEMENTS", 1 << 10)
    return make_tiny(tmp_path / "whole" / "model")


def make_tiny(folder: Path, **changes: object) -> Path:
    """Make a V3 in FP8, of a few hundred KB: five shards, each weight beside its scales."""
    return checkpoints.make_v3(folder, DIMS, **{"shards": 5, **changes})  # type: ignore[arg-type]


class Lent:
    """A folder with headers only, and the conversion of it through a warehouse."""

    def __init__(self, whole: Path, tmp_path: Path, identity: str | None = None) -> None:
        self.whole, self.out = whole, tmp_path / "lent.gguf"
        self.folder = headers_only(whole, tmp_path / "model", identity)
        self.notices: list[str] = []

    def convert(self, fails: str = "", kind: type[Warehouse] = Warehouse) -> Warehouse:
        house = kind(self.whole, self.folder, self.out, OPTIONS, fails)
        self.house = house
        convert(self.folder, self.out, OPTIONS, None, self.notices.append, house)
        return house


@pytest.mark.parametrize("family", FAMILIES)
def test_shards_that_arrive_one_by_one_give_the_same_bytes(family: str, tmp_path: Path) -> None:
    source = FAMILIES[family](tmp_path / "whole" / "model")
    convert(source, tmp_path / "whole.gguf", OPTIONS)
    lent = Lent(source, tmp_path)
    house = lent.convert()
    assert sha256(lent.out) == sha256(tmp_path / "whole.gguf")
    assert house.asked == house.taken
    assert sorted(house.returned) == sorted(house.taken)
    assert house.unsafe == []
    assert house.peak <= 2
    assert not list(lent.folder.glob("*.safetensors"))


def batches_of(source: Path) -> list[Batch]:
    with Checkpoint(source) as checkpoint:
        plan = plan_conversion(checkpoint, OPTIONS, None)
        return order_by_shard(plan_runs(plan, checkpoint), checkpoint, ())


def test_two_shards_are_held_only_where_a_weight_and_its_scales_are_apart(
    whole: Path, tmp_path: Path
) -> None:
    assert [batch.shard.name for batch in batches_of(whole)] == [
        SHARD.format(number) for number in range(1, 6)
    ]
    assert peak_held(batches_of(whole)) == 1
    apart = make_tiny(tmp_path / "apart", shards=7)
    tiles_by_shard = tiles_of(apart, OPTIONS)
    pairs = itertools.combinations(tiles_by_shard.values(), 2)
    assert sum(bool(set(one) & set(other)) for one, other in pairs) == 3
    assert peak_held(batches_of(apart)) == 2


def test_v3_needs_one_shard_at_a_time_where_the_order_of_the_file_needs_four() -> None:
    def place(name: str) -> tuple[object, ...]:
        """Order names as the release does: layer by layer, norms last; embedding, norm, head."""
        if not name.startswith("model.layers."):
            return (-1,) if "embed" in name else (60.5, name)
        _, _, layer, part, *rest = name.split(".")
        expert = int(rest[1]) if rest[0] == "experts" else 999
        return int(layer), {"self_attn": 0, "mlp": 1}.get(part, 2), expert, rest

    source = ConfigOnly(Path(__file__).parent / "configs" / "DeepSeek-V3.json")
    names, shard, filled = sorted(source.tensors, key=place), 1, 0
    for name in names:
        tensor = source.tensors[name]
        if filled + tensor.size_bytes > 4_300_000_000:  # V3's shards take 4.3 GB
            shard, filled = shard + 1, 0
        filled += tensor.size_bytes
        source.tensors[name] = replace(tensor, shard=Path(f"model-{shard:05}.safetensors"))
    assert shard == 162  # 163 in the release
    runs = list(plan_runs(plan_conversion(source, OPTIONS, None), source))
    assert peak_held(order_by_shard(runs, source, ())) == 1
    touched = [shards_of(run, source) for run in runs]
    last = {one: at for at, shards in enumerate(touched) for one in shards}
    held: set[Path] = set()
    most = 0
    for at, shards in enumerate(touched):
        held |= shards
        most = max(most, len(held))
        held = {one for one in held if last[one] > at}
    assert most == 4


def test_what_is_planned_of_headers_is_what_is_planned_of_shards(
    whole: Path, tmp_path: Path
) -> None:
    folder = headers_only(whole, tmp_path / "model")
    options = ConvertOptions(fit_bytes=400_000, threads=1)
    seen, told = preview(whole, options), preview(folder, options)
    assert replace(told, expected_s=0.0) == replace(seen, expected_s=0.0)
    with Checkpoint(whole) as one, Checkpoint(folder) as other:
        assert source_fingerprint(one) == source_fingerprint(other)


def test_without_anyone_who_brings_them_missing_shards_are_refused_by_name(
    whole: Path, tmp_path: Path
) -> None:
    folder = headers_only(whole, tmp_path / "model")
    for number in (1, 2, 4, 5):
        shutil.copy2(whole / SHARD.format(number), folder / SHARD.format(number))
    with pytest.raises(ConvertError) as raised:
        convert(folder, tmp_path / "out.gguf", OPTIONS)
    assert str(raised.value) == (
        f"1 of 5 shards of {folder} are missing, only headers are there "
        f"({SHARD.format(3)} first): download them"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "whole"]


@pytest.mark.parametrize("number", range(1, 6))
def test_a_delivery_that_fails_once_loses_nothing(
    whole: Path, tmp_path: Path, number: int
) -> None:
    convert(whole, tmp_path / "whole.gguf", OPTIONS)
    lent, name = Lent(whole, tmp_path), SHARD.format(number)
    with pytest.raises(ConvertError, match=f"{name} did not arrive"):
        lent.convert(fails=name)
    first = lent.house
    second = lent.convert()
    assert not set(first.returned) & set(second.taken)  # nothing is fetched twice
    assert sorted(first.returned + second.returned) == [SHARD.format(n) for n in range(1, 6)]
    assert first.unsafe + second.unsafe + lent.notices == []
    assert sha256(lent.out) == sha256(tmp_path / "whole.gguf")


def test_ctrl_c_while_a_shard_is_waited_for_keeps_what_is_done(
    whole: Path, tmp_path: Path
) -> None:
    class Slow(Warehouse):
        def take(self, name: str) -> None:
            if len(self.taken) == 2:
                raise KeyboardInterrupt
            super().take(name)

    convert(whole, tmp_path / "whole.gguf", OPTIONS)
    lent = Lent(whole, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        lent.convert(kind=Slow)
    # These hold the tensors that the plan takes for equal, and so they came first.
    assert lent.house.taken == lent.house.returned == [SHARD.format(1), SHARD.format(3)]
    lent.convert()
    assert sha256(lent.out) == sha256(tmp_path / "whole.gguf")


@pytest.mark.parametrize("identity", [None, ""], ids=["known", "unknown"])
def test_shards_that_come_before_they_are_asked_for_change_nothing(
    whole: Path, tmp_path: Path, identity: str | None
) -> None:
    class Eager(Warehouse):
        def order(self, names: Sequence[str]) -> None:
            super().order(names)
            for name in reversed(names):  # out of order
                if not (self.folder / name).exists():
                    self._deliver(name)

    convert(whole, tmp_path / "whole.gguf", OPTIONS)
    lent = Lent(whole, tmp_path, identity)
    shutil.copy(whole / SHARD.format(3), lent.folder)  # even before the conversion
    with pytest.raises(ConvertError):
        lent.convert(fails=SHARD.format(5))
    house = lent.convert(kind=Eager)
    assert (house.unsafe, lent.notices) == ([], [])
    assert sha256(lent.out) == sha256(tmp_path / "whole.gguf")


def test_a_shard_that_is_delivered_again_is_read_as_it_is_then(
    whole: Path, tmp_path: Path
) -> None:
    class Anew(Warehouse):
        def take(self, name: str) -> None:
            (self.folder / name).unlink(missing_ok=True)
            super().take(name)

    convert(whole, tmp_path / "whole.gguf", OPTIONS)
    lent = Lent(whole, tmp_path)
    for number in (2, 4):
        shutil.copy(whole / SHARD.format(number), lent.folder)
    lent.convert(kind=Anew)
    assert sha256(lent.out) == sha256(tmp_path / "whole.gguf")


def test_a_file_that_is_only_half_there_is_waited_for(whole: Path, tmp_path: Path) -> None:
    convert(whole, tmp_path / "whole.gguf", OPTIONS)
    lent = Lent(whole, tmp_path)
    for number, size in ((1, 10), (2, 3000)):
        data = (whole / SHARD.format(number)).read_bytes()
        (lent.folder / SHARD.format(number)).write_bytes(data[:size])
    house = lent.convert()
    assert len(house.taken) == 5
    assert sha256(lent.out) == sha256(tmp_path / "whole.gguf")


def test_a_shard_that_is_not_what_its_header_said_is_refused(whole: Path, tmp_path: Path) -> None:
    class Wrong(Warehouse):
        def _deliver(self, name: str) -> None:
            data = (self._whole / name).read_bytes()
            (self.folder / name).write_bytes(data + b"more")

    lent = Lent(whole, tmp_path)
    with pytest.raises(ConvertError, match=r"is not what its header says: download it again"):
        lent.convert(kind=Wrong)
    assert not list(tmp_path.glob("lent*"))  # nothing was made of it yet


def test_copies_that_turn_out_to_differ_end_the_conversion_early(tmp_path: Path) -> None:
    whole = make_tiny(tmp_path / "whole" / "model", shared_mtp=False)
    lent = Lent(whole, tmp_path)
    with pytest.raises(MismatchError) as raised:
        lent.convert()
    assert str(raised.value) == (
        "model.layers.2.embed_tokens.weight is not equal to model.embed_tokens.weight, as it is in "
        "every release: this checkpoint must be there as a whole before it is converted"
    )
    assert len(lent.house.taken) <= 3
    assert not list(tmp_path.glob("lent*"))


def test_copies_are_compared_also_if_a_run_was_stopped_between_the_two(tmp_path: Path) -> None:
    whole = make_tiny(tmp_path / "whole" / "model", shared_mtp=False)
    lent = Lent(whole, tmp_path)
    with pytest.raises(ConvertError, match="did not arrive"):
        lent.convert(fails=SHARD.format(5))
    assert SHARD.format(1) in lent.house.returned
    with pytest.raises(MismatchError, match=r"is not equal to model\.embed_tokens\.weight"):
        lent.convert()


def test_a_checkpoint_with_another_identity_starts_anew(whole: Path, tmp_path: Path) -> None:
    lent = Lent(whole, tmp_path)
    with pytest.raises(ConvertError):
        lent.convert(fails=SHARD.format(5))
    write_header(lent.folder / SHARD.format(2), whole / SHARD.format(2), "0" * 64)
    house = lent.convert()
    assert lent.notices == [
        "the unfinished conversion is of another source, version or options, or its journal is "
        "damaged: starting over"
    ]
    assert len(house.taken) == 5


def test_a_source_with_bad_values_keeps_what_was_made_of_other_shards(
    whole: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(whole, bad)
    shard = bad / SHARD.format(3)
    data = bytearray(shard.read_bytes())
    data[-40:] = b"\xff" * 40  # no numbers in FP8, nor in float32
    shard.write_bytes(data)
    lent = Lent(whole, tmp_path)
    lent.whole = bad
    with pytest.raises(ConvertError, match="no number.*what was made of other shards is kept"):
        lent.convert()
    lent.whole = whole
    shutil.rmtree(bad)
    convert(whole, tmp_path / "whole.gguf", OPTIONS)
    (lent.folder / shard.name).unlink()
    second = lent.convert()
    assert len(second.taken) < 5
    assert sha256(lent.out) == sha256(tmp_path / "whole.gguf")
