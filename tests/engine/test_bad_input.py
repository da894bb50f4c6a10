"""What cannot be meant, cannot be read or cannot fit: one line each, never a crash unsaid."""

import resource
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from localseek import Engine
from localseek.engine.llama import AbortFlag
from localseek.engine.loading.load import load, plan_load
from localseek.engine.process.client import Child
from localseek.engine.process.deaths import death_message, last_lines
from localseek.errors import EngineError, LocalseekError, ModelError, UsageError
from localseek.events import Failed, Finished
from localseek.options import Fixed, LoadOptions
from localseek.system import hardware

from .conftest import ask, text_of

MB = 10**6


@pytest.mark.parametrize(
    ("fixed", "words"),
    [
        (Fixed(place=(("[a", "CPU"),)), "'[a' is not a regular expression"),
        (Fixed(place=(("(" * 5000, "CPU"),)), "((…' is not a regular expression"),
        (Fixed(place=(("zzz", "CPU"),)), "'zzz' matches no tensor"),
        (Fixed(place=(("blk", "CUDA7"),)), "there is no device 'CUDA7'. There is: CPU."),
        (Fixed(place=(("b{|blk", "CPU"),)), "has '{', which llama.cpp reads otherwise"),
        (Fixed(devices=("CUDA7",)), "There is no device 'CUDA7'. There is: CPU."),
        (Fixed(gpu_layers=3), "This machine has no device for --gpu-layers."),
        (Fixed(cache_type="q9"), "'q9' is not a cache type"),
    ],
)
def test_a_mistake_that_only_the_engine_sees_is_wrong_use_and_the_engine_stays(
    nano_gguf, home, fixed, words
):
    with Child(LoadOptions(str(nano_gguf), fixed=fixed)) as child:
        for attempt in (child.load, lambda: child.ask("plan")):
            with pytest.raises(UsageError) as caught:
                attempt()
            assert words in str(caught.value) and "\n" not in str(caught.value)
        assert child.alive


def test_an_unknown_architecture_is_named(nano_gguf, home, tmp_path: Path):
    path = tmp_path / "model.gguf"
    path.write_bytes(nano_gguf.read_bytes().replace(b"deepseek2", b"deepseek9"))
    with Engine.of(LoadOptions(str(path))) as engine, pytest.raises(EngineError) as caught:
        engine.load()
    assert f"could not load {path}: unknown model architecture: 'deepseek9'." in str(caught.value)


@pytest.mark.parametrize("mtp", ["auto", "off"])
@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_the_largest_context_that_is_said_to_fit_loads_and_is_the_largest(
    nano_gguf, home, monkeypatch, mtp, kind
):
    machine = replace(hardware.read_machine(()), ram_free=100 * MB)
    monkeypatch.setattr(hardware, "read_machine", lambda _devices: machine)
    options = LoadOptions(str(nano_gguf), ctx=10**7, mtp=mtp, fixed=Fixed(cache_type=kind))
    with pytest.raises(ModelError) as caught:
        plan_load(options)
    most = int(str(caught.value).partition("--ctx ")[2].split()[0])
    parts = load(replace(options, ctx=most), lambda _: None, AbortFlag())
    taken = sum(one.cache + one.compute for one in parts.memory())
    assert parts.target.n_ctx == most > 4096
    assert 75 * MB < taken <= 95 * MB  # a twentieth of the memory is kept free
    for part in (parts.drafter, parts.target, parts.model):
        if part is not None:
            part.close()
    with pytest.raises(ModelError):
        plan_load(replace(options, ctx=most * 4 // 3))


# With names: pytest puts them into the environment, where a longer one starts no process.
@pytest.mark.parametrize(
    "text", ["x" * 100_000, "你" * 60_000, " a" * 50_000], ids=["x", "Chinese", "spaced"]
)
def test_a_text_without_a_break_is_too_long_and_no_death(nano_gguf, home, text):
    with Engine.of(LoadOptions(str(nano_gguf), threads=1)) as engine:
        engine.load()
        failed = list(engine.generate(ask(text)))[-1]
        assert isinstance(failed, Failed) and "tokens and the context holds 4,096" in failed.message
        assert text_of(list(engine.generate(ask("7 + 8"))))[1] == "7 + 8 = 15"


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_model_that_computes_no_numbers_gives_no_answer(nano_gguf, home, tmp_path, parallel):
    path = tmp_path / "model.gguf"
    path.write_bytes(nano_gguf.read_bytes())
    reader = gguf.GGUFReader(path, "r+")
    next(t for t in reader.tensors if t.name == "output_norm.weight").data[:] = np.nan
    reader.data.flush()
    with Engine.of(LoadOptions(str(path), threads=1, parallel=parallel)) as engine:
        engine.load()
        failed = list(engine.generate(ask("7 + 8")))[-1]
        assert isinstance(failed, Failed) and "no numbers (NaN)" in failed.message
        assert engine.alive


def address_space(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    return pages * resource.getpagesize()


@pytest.mark.parametrize("spare", [2 * MB, 9 * MB, 30 * MB])
def test_memory_that_runs_out_in_the_load_is_told_and_the_next_engine_loads(nano_gguf, home, spare):
    options = LoadOptions(str(nano_gguf), threads=1, fixed=Fixed(mmap=False))
    with Child(options) as child:
        child.ask("machine")  # it has started: what comes now is the load
        limit = address_space(child.pid) + spare
        resource.prlimit(child.pid, resource.RLIMIT_AS, (limit, limit))
        with pytest.raises(LocalseekError) as caught:
            child.load()
        assert "memory" in str(caught.value).lower() and "\n" not in str(caught.value)
    with Engine.of(options) as engine:
        assert engine.load().context_size == 4096


def test_memory_that_runs_out_while_an_answer_is_written_ends_it_with_one_line(
    nano_gguf, home, monkeypatch
):
    # With huge pages the heap grows by 2 MB, and threads that meet get heaps of their own.
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0:glibc.malloc.arena_max=1")
    request, stayed = ask("5 " * 1900, max_tokens=9), False
    for spare in range(0, 2 * MB, MB // 8):  # how much is free within the heap is chance
        with Engine.of(LoadOptions(str(nano_gguf), threads=1)) as engine:
            engine.load()
            limit, most = address_space(engine.pid) + spare, resource.RLIM_INFINITY
            resource.prlimit(engine.pid, resource.RLIMIT_AS, (limit, most))
            failed = list(engine.generate(request))[-1]
            if isinstance(failed, Finished):
                break
            assert failed.message.startswith("The engine ran out of memory")
            if failed.fatal:  # C++ found no memory outside of a decode, which ends the process
                continue
            assert failed.message == "The engine ran out of memory."
            resource.prlimit(engine.pid, resource.RLIMIT_AS, (most, most))
            assert isinstance(list(engine.generate(request))[-1], Finished)
            assert text_of(list(engine.generate(ask("348 + 257"))))[1] == "348 + 257 = 605"
            stayed = True
            break
    assert stayed


def test_a_death_for_want_of_memory_is_told_as_such():
    for line in (
        "/x/ggml.c:1644: GGML_ASSERT(ctx->mem_buffer != NULL) failed",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "MemoryError",
    ):
        message, hint = death_message(-6, Path("engine.log"), [line, "Aborted"])
        assert message == "The engine ran out of memory and died of signal 6."
        assert hint.startswith("A smaller --ctx or model needs less")
    assert "when memory runs out" in death_message(-9, Path("engine.log"), [])[1]


def test_the_last_words_are_found_before_a_long_backtrace(tmp_path: Path):
    log = tmp_path / "engine.log"
    frames = [f"/usr/lib/libggml.so({name}+0x{n:x})[0x7fd94b44e278]\n"
              for n in range(200) for name in ("ggml_abort", "")]  # fmt: skip
    log.write_text("load: ok\n/x/ggml.c:10: GGML_ASSERT(a) failed\n" + "".join(frames))
    assert last_lines(log, 0) == ["load: ok", "/x/ggml.c:10: GGML_ASSERT(a) failed"]
