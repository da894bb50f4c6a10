"""What drafting has learnt is kept for the next start: as data, on disk, through the engine."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.drafting import (
    BARE,
    CODE,
    DENSE,
    FAR,
    GPU,
    GPU_EXPERTS,
    GPU_MOE,
    NANO,
    NOTHING,
    PROSE,
    SPARSE,
    Simulation,
    best_rate,
)

from localseek import Engine
from localseek.engine.drafting.depth import DepthController
from localseek.engine.drafting.learnt import from_plain, to_plain
from localseek.engine.drafting.learnt_store import LearntStore, learnt_key
from localseek.engine.drafting.shared_depth import SharedDepth, SharedStep
from localseek.engine.loading.load import plan_load
from localseek.events import AnswerDelta, Finished, ReasoningDelta
from localseek.gguf.info import read_info
from localseek.options import LoadOptions, Message, Request, Sampling
from localseek.placing.deciding import decide
from localseek.placing.placement import Wishes
from localseek.placing.shape import read_shape
from localseek.system import hardware
from localseek.system.machine import Machine


def started(machine, seed=1):
    policy = DepthController(compares=machine.row > 0, settling=len(machine.changing))
    return Simulation(policy, machine, seed)


def plain(run):
    """What JSON makes of what a simulated controller has learnt."""
    return json.loads(json.dumps(to_plain({1: run.policy.learnt()})))


def started_again(run, seed=2):
    again = started(run.machine, seed)
    again.policy.recall(from_plain(plain(run))[1])
    return again


@pytest.mark.parametrize("machine", [DENSE, SPARSE, GPU_EXPERTS])
@pytest.mark.parametrize("text", [CODE, NANO])
def test_the_first_answer_of_the_next_start_is_as_fast_as_later_ones(machine, text):
    first, second = [], []
    for seed in range(24):
        run = started(machine, seed)
        first.append(run.run(text, 256))
        second.append(started_again(run, seed + 100).run(text, 256))
    assert sum(second) > 0.99 * sum(first)
    assert sum(second) / 24 > 0.96 * best_rate(machine, text)


@pytest.mark.parametrize("machine", [DENSE, SPARSE])
def test_a_text_that_drafts_serve_better_than_the_last_one_is_noticed_in_the_first_answer(machine):
    rates = []
    for seed in range(6):
        run = started(machine, seed)
        run.run(NOTHING, 500)
        rates.append(started_again(run, seed + 100).run(CODE, 256))
    assert sum(rates) / 6 > 0.9 * best_rate(machine, CODE)


def test_a_machine_that_is_slower_than_it_was_is_not_taken_for_another():
    run = started(DENSE)
    run.run(NANO, 600)
    again = started_again(run)
    again.slowness = 2.0
    assert again.run(NANO, 256) > 0.93 * best_rate(DENSE, NANO) / 2


@pytest.mark.parametrize("machine", [GPU, GPU_MOE])
@pytest.mark.parametrize("tokens", [4, 6, 8, 15])
def test_a_first_answer_of_a_few_words_does_not_end_drafting_for_good(machine, tokens):
    run = started(machine)
    run.run(CODE, tokens)
    for seed in range(10):
        run = started_again(run, seed) if run.policy.learnt() else started(machine, seed)
        run.run(CODE, 600)
    rates = [started_again(run, 100 + seed).run(CODE, 600) for seed in range(4)]
    assert sum(rates) / 4 > 0.93 * best_rate(machine, CODE)


@pytest.mark.parametrize(
    ("before", "after", "starts"), [(DENSE, BARE, 16), (BARE, DENSE, 40), (SPARSE, DENSE, 16)]
)
def test_times_that_hold_no_more_are_found_out_by_short_runs_too(before, after, starts):
    run = started(before)
    run.run(CODE, 1000)
    run.machine = after
    for seed in range(starts):
        run = started_again(run, seed)
        run.run(CODE, 256)
    rates = [started_again(run, 100 + seed).run(CODE, 256) for seed in range(6)]
    assert sum(rates) / 6 > 0.9 * best_rate(after, CODE)


@pytest.mark.parametrize("machine", [BARE, GPU_EXPERTS])
def test_a_slow_beginning_of_the_first_run_is_forgotten(machine):
    run = started(machine)
    run.slowness = 3.0
    run.run(PROSE, 6)
    run.slowness = 1.0
    run.run(PROSE, 194)
    for seed in range(10):
        run = started_again(run, seed) if run.policy.learnt() else started(machine, seed)
        run.run(PROSE, 200)
    rates = [started_again(run, 100 + seed).run(PROSE, 200) for seed in range(6)]
    assert sum(rates) / 6 > 0.9 * best_rate(machine, PROSE)


def test_hopeless_drafts_are_not_tried_in_every_start():
    run = started(BARE)
    run.run(CODE, 300)
    assert run.policy.hopeless
    tried = []
    for start in range(20):
        run = started_again(run, start)
        run.run(CODE, 300)
        tried.append(sum(run.depths) > 0)
    assert 0 < sum(tried) <= 7, "only after the thousand tokens that they may sleep"


def test_what_hidden_rows_cost_is_not_measured_again():
    run = started(FAR)
    run.run(CODE, 300)
    again = started_again(run)
    assert not again.policy.compares
    again.run(NOTHING, 100)
    assert again.policy.times.plain.seconds == pytest.approx(FAR.verify[0], rel=0.1)


def test_what_hidden_rows_cost_is_measured_if_the_run_before_did_not():
    batch = Simulation(DepthController(), FAR)
    batch.run(CODE, 300)
    policy = DepthController(compares=True)
    policy.recall(from_plain(plain(batch))[1])
    run = Simulation(policy, FAR)
    run.run(NOTHING, 300)
    assert policy.times.plain.seconds == pytest.approx(FAR.verify[0], rel=0.1)
    assert not policy.compares


def test_a_controller_that_has_learnt_nothing_leaves_nothing():
    assert started(DENSE).policy.learnt() is None
    assert SharedDepth(DepthController).learnt() == {}


def test_what_was_learnt_is_kept_by_the_number_of_sequences():
    run = started(DENSE)
    run.run(CODE, 300)
    known = from_plain(json.loads(json.dumps(to_plain({3: run.policy.learnt()}))))
    shared = SharedDepth(DepthController, known)
    assert shared.of(3).times.verify[4].count > 4
    assert shared.of(2).times.verify[4].count == 0
    for _ in range(6):
        step = SharedStep(0, 0.0, 0.0, 1.0, [0, 0], [0, 0], 2, [[], []])
        shared.learn(step, timed=True)
    assert sorted(shared.learnt()) == [3], "of two at once nothing is known yet"


def test_acceptance_is_recalled_for_every_number_of_sequences():
    run = started(DENSE)
    run.run(NOTHING, 300)
    shared = SharedDepth(DepthController, from_plain(plain(run)))
    known = shared.of(2).acceptance
    assert known is shared.of(1).acceptance is shared.of(3).acceptance
    assert known.mean(1) < 0.1


@pytest.fixture
def facts():
    run = started(DENSE)
    run.run(CODE, 300)
    return plain(run)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", 1),
        ("sequences", None),
        ("sequences", [1]),
        ("sequences", {"one": {}}),
        ("sequences", {"1": 7}),
    ],
)
def test_facts_of_another_shape_are_left_out(facts, name, value):
    assert list(from_plain(facts)) == [1]
    assert from_plain({**facts, name: value}) == {}
    assert from_plain(value) == {}


# Where, by keys and indices, and what stands there instead.
IMPOSSIBLE = {
    "a part missing": (["first"], None),
    "too few depths": (["verify"], []),
    "a time below zero": (["verify", 0, 0], -1.0),
    "a time of nothing": (["verify", 0, 0], 0.0),
    "no step without drafts": (["verify", 0], [0.0, 0]),
    "no number": (["verify", 0, 0], float("nan")),
    "a word": (["verify", 0, 1], "four"),
    "three numbers for a time": (["verify", 0], [1.0, 2, 3]),
    "endless": (["naps"], float("inf")),
    "too few ages": (["ages"], [0]),
    "an age below zero": (["ages", 0], -1),
    "more accepted than tried": (["positions", 0, 1], 99),
    "accepted without a trial": (["positions", 0], [0, 1]),
    "too few positions": (["positions"], []),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_facts_that_cannot_be_are_left_out(facts, name):
    (*way, last), value = IMPOSSIBLE[name]
    place = facts["sequences"]["1"]
    for step in way:
        place = place[step]
    place[last] = value
    assert from_plain(facts) == {}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null"],
    ids=["empty", "torn", "bytes", "deep", "null"],
)  # fmt: skip
def test_a_damaged_file_is_left_out_and_replaced(content, home):
    run = started(DENSE)
    run.run(CODE, 300)
    store = LearntStore("a")
    assert store.read() == {}
    (home / "drafting").mkdir()
    (home / "drafting" / "a.json").write_bytes(content)
    assert store.read() == {}
    store.write({1: run.policy.learnt()})
    assert list(store.read()) == [1]


def test_two_processes_keep_what_each_knows_of_its_number_of_sequences(home):
    run = started(DENSE)
    run.run(CODE, 300)
    chat, batch = LearntStore("a"), LearntStore("a")
    batch.write({4: run.policy.learnt()})
    chat.write({1: run.policy.learnt()})
    assert sorted(chat.read()) == [1, 4]
    (path,) = (home / "drafting").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_record_that_would_sleep_for_ever_sleeps_a_while():
    run = started(BARE)
    run.run(CODE, 300)
    facts = plain(run)
    facts["sequences"]["1"]["sleep_left"] = 1e300
    policy = DepthController()
    policy.recall(from_plain(facts)[1])
    again = Simulation(policy, BARE)
    again.run(CODE, 2000)
    assert sum(again.depths) > 0


def test_a_folder_that_cannot_be_made_costs_nothing_else(home):
    (home / "drafting").write_text("in the way")
    run = started(DENSE)
    run.run(CODE, 300)
    LearntStore("a").write({1: run.policy.learnt()})
    assert LearntStore("a").read() == {}


def test_only_the_last_used_models_are_kept_and_leftovers_go(home):
    run = started(DENSE)
    run.run(CODE, 300)
    folder = home / "drafting"
    folder.mkdir()
    for number in range(70):
        (folder / f"{number}.json").write_text("{}")
        os.utime(folder / f"{number}.json", (number, number))
    (folder / "old.1.partial").write_text("")
    os.utime(folder / "old.1.partial", (1, 1))
    (folder / "new.2.partial").write_text("")
    LearntStore("a").write({1: run.policy.learnt()})
    left = {path.name for path in folder.iterdir()}
    assert left == {"a.json", "new.2.partial", *(f"{number}.json" for number in range(7, 70))}


def test_what_was_learnt_belongs_to_a_file_and_to_where_it_is_computed(nano_gguf, tmp_path):
    shape = read_shape(read_info(nano_gguf), None)
    machine = Machine((), 8 << 30, 8 << 30, 4, False, -1)

    def of(path=nano_gguf, remotes=(), **wishes):
        return learnt_key([path], decide(shape, machine, Wishes(draft=True, **wishes)), remotes)

    other = tmp_path / "other.gguf"
    other.write_bytes(nano_gguf.read_bytes())
    assert of() == of(ctx=512)
    keys = {of(), of(threads=2), of(path=other), of(remotes=("a:1",))}
    assert len(keys) == 4
    before = of(path=other)
    renamed = other.rename(tmp_path / "renamed.gguf")
    assert of(path=renamed) == before
    renamed.rename(other)
    other.write_bytes(other.read_bytes() + b"\0")
    assert of(path=other) != before


def test_a_model_in_a_folder_whose_name_is_no_text_loads(nano_gguf, tmp_path):
    folder = Path(os.fsdecode(bytes(tmp_path) + b"/\xff"))
    folder.mkdir()
    path = folder / "nano.gguf"
    path.write_bytes(nano_gguf.read_bytes())
    assert asked(path, memory=True)[0]


def asked(path: Path, memory: bool):
    request = Request(
        (Message("user", "12 + 30"),), Sampling(temperature=0.0, repeat_penalty=1.0), 120
    )
    with Engine.of(LoadOptions(str(path), threads=1, draft_memory=memory)) as engine:
        engine.load()
        events = list(engine.generate(request))
    text = "".join(one.text for one in events if isinstance(one, AnswerDelta | ReasoningDelta))
    assert isinstance(events[-1], Finished)
    return text, events[-1].stats.draft


@pytest.mark.parametrize(("machine", "text"), [(BARE, CODE), (DENSE, NOTHING), (FAR, CODE)])
def test_drafts_that_did_not_pay_are_known_not_to(machine, text):
    run = started(machine)
    run.run(text, 1000)
    assert not from_plain(plain(run))[1].drafts


@pytest.mark.parametrize("machine", [DENSE, SPARSE])
def test_drafts_that_paid_are_known_to(machine):
    for seed in range(8):
        run = started(machine, seed)
        run.run(CODE, 300)
        assert from_plain(plain(run))[1].drafts


def test_weights_are_read_where_drafts_do_not_pay_and_mapped_where_they_do(
    nano_gguf, home, monkeypatch
):
    machine = replace(hardware.read_machine(()), ram_free=8 << 30, huge_pages=True)
    monkeypatch.setattr(hardware, "read_machine", lambda _devices: machine)
    options = LoadOptions(str(nano_gguf), draft_memory=True)
    found = plan_load(options)
    assert found.placement.mmap and found.learnt
    for simulated, mapped in ((BARE, False), (DENSE, True)):
        run = started(simulated)
        run.run(CODE, 1000)
        found.learnt.write({1: run.policy.learnt()})
        assert plan_load(options).placement.mmap == mapped
        assert plan_load(replace(options, ctx=512)).placement.mmap == mapped
        assert plan_load(replace(options, mtp=1)).placement.mmap
        assert plan_load(replace(options, draft_memory=False)).placement.mmap


def test_the_engine_keeps_what_it_learnt_and_begins_with_it(nano_gguf, home):
    text, _ = asked(nano_gguf, memory=False)
    assert not (home / "drafting").exists(), "nobody asked for it"
    first, _ = asked(nano_gguf, memory=True)
    (path,) = (home / "drafting").iterdir()
    facts = json.loads(path.read_text())
    facts["sequences"]["1"]["sleep_left"] = 1000
    path.write_text(json.dumps(facts))
    again, drafts = asked(nano_gguf, memory=True)
    assert first == again == text
    assert drafts is None or drafts.drafted == 0, "it knows that drafts are hopeless"
    assert list((home / "drafting").iterdir()) == [path]
    assert 800 < json.loads(path.read_text())["sequences"]["1"]["sleep_left"] < 1000
