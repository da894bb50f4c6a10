import json
import random
import struct
from dataclasses import asdict, replace

import pytest
from shapes import latent_info, latent_shape

from localseek.errors import ModelError, UsageError
from localseek.options import Fixed, LoadOptions
from localseek.placing.caches import CompressedCache
from localseek.placing.condensed import condensed, from_plain, to_plain
from localseek.placing.deciding import decide
from localseek.placing.filling import Need, Room, best_filling
from localseek.placing.placement import Wishes, placement_from, wishes_from
from localseek.placing.shape import read_shape
from localseek.system.machine import CPU, Device, Machine, imagined

V3 = latent_shape()
GB = 10**9


def gpu(*vram: int, ram: int = 600) -> Machine:
    return imagined(tuple(size * GB for size in vram), ram * GB, 16)


def experts_in_memory(placement):
    return [n for n, names in enumerate(placement.experts) if names and set(names) == {CPU}]


def device_bytes(placement, name):
    return next(one.total for one in placement.memory if one.device == name)


@pytest.mark.parametrize("vram", [(), (8,), (24,), (24, 24), (500,)])
def test_a_shape_that_was_condensed_and_kept_is_placed_as_the_whole_one(vram):
    kept = from_plain(json.loads(json.dumps(to_plain(condensed(V3)))))
    assert kept == condensed(V3) and len(kept.layers[5].always) == 1
    assert decide(kept, gpu(*vram), Wishes()) == decide(V3, gpu(*vram), Wishes())
    cache = CompressedCache((0, 4, 128), 128, 512, 512, 128)
    folding = replace(condensed(V3), compressed=cache)
    assert from_plain(json.loads(json.dumps(to_plain(folding)))) == folding


def test_a_context_is_what_llama_cpp_makes_of_it():
    placement = decide(V3, gpu(ram=6000), Wishes(ctx=300))
    assert placement.ctx == 512
    assert "context 512 tokens, not 300: caches come in steps of 256" in placement.reasons
    assert not any("caches come" in one for one in decide(V3, gpu(), Wishes(ctx=512)).reasons)


def test_a_token_of_v3_adds_what_was_published_to_its_caches():
    assert V3.cache_bytes("f16") == 70_272
    assert V3.cache_bytes("q8_0") == 37_332
    assert V3.cache_bytes("f16", draft=True) == 1_152
    assert V3.full_attention_bytes == 4_997_120


def test_experts_go_to_memory_from_the_last_layer_backwards_and_nothing_else_does():
    placement = decide(V3, gpu(48), Wishes())
    assert set(placement.layers) == {"GPU0"} and placement.output == "GPU0"
    away = experts_in_memory(placement)
    assert away == list(range(away[0], 62)) and 3 < away[0] < 61
    assert device_bytes(placement, "GPU0") < 48 * GB
    another = V3.layers[away[0]].experts_bytes
    assert device_bytes(placement, "GPU0") + another > 48 * GB * 0.95


def test_everything_goes_to_a_device_that_has_room():
    placement = decide(V3, gpu(600), Wishes())
    assert placement.gpu_layers == 63 and not placement.overrides
    assert [one.device for one in placement.memory if one.cache] == ["GPU0"]


def test_a_second_device_is_used_only_where_the_first_is_full():
    assert decide(V3, gpu(600, 600), Wishes()).devices == ("GPU0",)
    both = decide(V3, gpu(300, 300), Wishes())
    assert both.devices == ("GPU0", "GPU1")
    assert both.layers == ("GPU0",) * both.split[0] + ("GPU1",) * (both.split[1] - 1)


def test_workers_share_the_load_by_their_memory():
    devices = (
        Device("a:1", "remote", 300 * GB, 300 * GB, bandwidth=1e8),
        Device("b:1", "remote", 600 * GB, 600 * GB, bandwidth=1e9),
    )
    placement = decide(V3, Machine(devices, 16 * GB, 16 * GB, 4), Wishes(ctx=4096))
    assert placement.devices == ("b:1", "a:1")  # the faster link first
    one, two = (device_bytes(placement, name) for name in placement.devices)
    assert 1.6 < one / two < 2.4


def test_layers_stay_with_the_processor_when_not_even_attention_fits():
    placement = decide(V3, gpu(9), Wishes(ctx=8192))
    first = placement.layers.index("GPU0")
    assert 0 < first < 62
    assert placement.layers == (CPU,) * first + ("GPU0",) * (62 - first)
    assert placement.memory[0].cache > 0


def test_a_context_of_its_own_choice_shrinks_before_layers_leave_a_device():
    placement = decide(V3, gpu(21), Wishes())
    assert placement.layers[0] == "GPU0"
    assert 4096 <= placement.ctx < 32768 and placement.ctx % 256 == 0
    assert decide(V3, gpu(21), Wishes(ctx=32768)).layers[0] == CPU
    smaller = decide(V3, gpu(21), Wishes(cache_type="q8_0"))
    offered = f"more would push layers out (--cache-type q8_0 would hold {smaller.ctx:,})"
    assert smaller.ctx > placement.ctx and any(offered in one for one in placement.reasons)
    assert not any("--cache-type" in one for one in smaller.reasons)


def test_what_the_user_fixes_stays_and_the_rest_is_decided_around_it():
    assert len(experts_in_memory(decide(V3, gpu(600), Wishes(cpu_experts=10)))) == 10
    assert decide(V3, gpu(600), Wishes(gpu_layers=20)).gpu_layers == 20
    assert decide(V3, gpu(600), Wishes(gpu_layers=0)).devices == ()
    assert decide(V3, gpu(600), Wishes(devices=("none",))).gpu_layers == 0
    assert decide(V3, gpu(300, 300), Wishes(devices=("gpu1",))).devices == ("GPU1",)
    assert decide(V3, gpu(600), Wishes(threads=3)).threads == 3
    half = decide(V3, gpu(600), Wishes(cache_type="q8_0"))
    whole = decide(V3, gpu(600), Wishes())
    assert half.memory[1].cache / whole.memory[1].cache == pytest.approx(37_332 / 70_272)
    assert half.memory[1].draft_cache == whole.memory[1].draft_cache


def test_placed_tensors_are_where_the_user_wants_them_and_their_room_is_used():
    rule = (r"blk\.(3|4)\.ffn_.*_exps", "cpu")
    placement = decide(V3, gpu(48), Wishes(place=(rule,)))
    assert placement.overrides[0] == (rule[0], CPU)
    away = experts_in_memory(placement)
    assert away[:2] == [3, 4] and away[2] > 5
    assert away[2] == experts_in_memory(decide(V3, gpu(48), Wishes()))[0] + 2


def test_without_drafts_the_draft_layer_takes_nothing():
    on, off = (decide(V3, gpu(600), Wishes(draft=draft)) for draft in (True, False))
    layer = V3.layers[61]
    assert on.memory[1].weights - off.memory[1].weights == layer.always_bytes + layer.experts_bytes
    assert off.memory[1].draft_cache == 0


def test_weights_beyond_the_memory_stream_from_disk_and_are_not_copied():
    placement = decide(V3, gpu(24, ram=128), Wishes())
    assert placement.mmap and not placement.repack
    assert "read from disk" in placement.warnings[0]
    assert "would fit" in placement.warnings[1]
    roomy = decide(V3, gpu(24, ram=600), Wishes())
    assert roomy.repack and not roomy.warnings


def test_small_weights_are_read_into_huge_pages_where_there_are_any():
    small = latent_shape(layers=4, embd=1024, experts=8, ff=512, heads=8)
    here = replace(gpu(ram=64), huge_pages=True)
    assert small.weights_bytes < 2 * GB
    placement = decide(small, here, Wishes(draft=False))
    assert not placement.mmap and any("read, not mapped" in one for one in placement.reasons)
    assert decide(small, here, Wishes()).mmap  # steps that verify drafts gain too little
    assert not decide(small, here, Wishes(drafts_pay=False)).mmap
    worker = Device("a:1", "remote", 8 * GB, 8 * GB, bandwidth=1e8)
    shared = decide(small, replace(here, devices=(worker,)), Wishes(gpu_layers=2))
    assert shared.devices and not shared.mmap  # drafts rarely pay there
    assert decide(small, here, Wishes(mmap=True, draft=False)).mmap
    assert decide(small, replace(here, huge_pages=False), Wishes(draft=False)).mmap
    assert decide(V3, replace(gpu(ram=6000), huge_pages=True), Wishes(ctx=4096, draft=False)).mmap
    tight = replace(here, ram_free=3 * small.weights_bytes)
    assert decide(small, tight, Wishes(ctx=512, draft=False)).mmap
    beside = replace(gpu(24, ram=64), huge_pages=True)  # only embeddings stay in memory
    assert decide(small, beside, Wishes(draft=False)).mmap


def test_a_context_beyond_the_memory_is_refused_with_the_largest_that_fits():
    with pytest.raises(ModelError) as refused:
        decide(V3, gpu(ram=8), Wishes(ctx=163840))
    most = int(refused.value.hint.split()[1])
    decide(V3, gpu(ram=8), Wishes(ctx=most))
    with pytest.raises(ModelError):
        decide(V3, gpu(ram=8), Wishes(ctx=most + 4096))


def test_a_context_beyond_the_trained_one_is_allowed_with_a_warning():
    placement = decide(V3, gpu(600), Wishes(ctx=200_000))
    assert placement.ctx == 200_192 and "163,840" in placement.warnings[0]


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        (Wishes(devices=("CUDA7",)), "There is: GPU0, CPU"),
        (Wishes(place=(("exps", "CUDA7"),)), "There is: CPU, GPU0"),
        (Wishes(place=(("ffn_(", "CPU"),)), "not a regular expression"),
        (Wishes(place=((r"(?i)EXPS", "CPU"),)), "llama.cpp reads otherwise"),
        (Wishes(place=(("experts", "CPU"),)), "matches no tensor"),
        (Wishes(cache_type="q9_0"), "not a cache type"),
    ],
)
def test_wrong_wishes_are_named(wishes, says):
    with pytest.raises(UsageError) as error:
        decide(V3, gpu(24), wishes)
    assert says in str(error.value)


def test_fixed_layers_that_do_not_fit_are_refused_with_what_would():
    with pytest.raises(ModelError) as refused:
        decide(V3, gpu(9), Wishes(gpu_layers=63, ctx=8192))
    fits = int(refused.value.hint.split()[1])
    assert decide(V3, gpu(9), Wishes(gpu_layers=fits, ctx=8192)).gpu_layers == fits
    with pytest.raises(UsageError):
        decide(V3, gpu(), Wishes(gpu_layers=5))


def test_measured_buffers_replace_estimates():
    placement = decide(V3, gpu(48), Wishes(), lambda one: {CPU: 1, "GPU0": 20 * GB})
    assert placement.measured
    assert placement.memory[1].compute == 20 * GB
    assert device_bytes(placement, "GPU0") < 48 * GB


def test_a_dense_model_is_dealt_by_whole_layers():
    info = latent_info(layers=12, embd=1024, dense=12, nextn=0)
    shape = read_shape(info)
    placement = decide(shape, imagined((900_000_000,), 16 * GB, 4), Wishes(ctx=1024))
    assert 0 < placement.gpu_layers < 13 and not placement.overrides


def test_the_split_makes_llama_cpp_deal_the_same_layers():
    # llama_model::load_tensors: cumulative shares in float32, compared with the layer's share.
    def single(x: float) -> float:
        return struct.unpack("f", struct.pack("f", x))[0]

    rng = random.Random(5)
    for _ in range(200):
        rooms = [Room(rng.randrange(50, 4000), 10) for _ in range(rng.randrange(1, 5))]
        needs = [Need(rng.randrange(1, 60), rng.randrange(0, 90)) for _ in range(40)]
        found = best_filling(needs, 7, rooms)
        if found is None:
            continue
        dealt = (*found.devices, found.output)
        used = [index for index in range(len(rooms)) if index in dealt]
        split = [dealt.count(index) for index in used]
        on_devices = sum(split)
        first = len(dealt) - on_devices
        total, points = 0.0, []
        for share in split:
            total += share
            points.append(total)
        points = [single(point / total) for point in points]
        for layer in range(first, len(dealt)):
            share = single(single(layer - first) / on_devices)
            expected = next(i for i, point in enumerate(points) if point > share)
            assert used[expected] == dealt[layer]


def test_a_filling_never_exceeds_a_budget_and_wastes_none_that_a_layer_would_fit():
    rng = random.Random(6)
    for _ in range(100):
        rooms = [Room(rng.randrange(100, 3000), 10, rng.random() < 0.5) for _ in range(3)]
        needs = [Need(rng.randrange(1, 40), rng.randrange(0, 90)) for _ in range(30)]
        found = best_filling(needs, 7, rooms)
        assert found is not None
        for index, room in enumerate(rooms):
            load = sum(
                need.always + need.experts * (layer < found.kept)
                for layer, need in enumerate(needs) if found.devices[layer] == index
            )  # fmt: skip
            assert load + 7 * (found.output == index) + room.fixed <= room.budget
        if found.devices[0] >= 0 and found.kept < 30:
            tighter = best_filling(needs, 7, rooms, cpu_experts=30 - found.kept - 1)
            assert tighter is None or tighter.devices[0] == -1


def test_a_placement_survives_the_way_through_the_protocol():
    machine = gpu(24)
    placement = decide(V3, machine, wishes_from(LoadOptions("x", fixed=Fixed(cpu_experts=4)), True))
    sent = json.dumps({"machine": asdict(machine), "placement": asdict(placement)})
    assert placement_from(json.loads(sent)) == (machine, placement)
