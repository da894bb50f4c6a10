"""The real engine, on nano, killed, orphaned, out of memory, its file replaced or shortened."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
from engine.conftest import ask, text_of

from localseek import Engine
from localseek.engine.process.client import Child
from localseek.errors import EngineError
from localseek.events import AnswerDelta, Failed, Finished, PromptProgress, ReasoningDelta
from localseek.options import Fixed, LoadOptions
from localseek.store.sequences import STALE_SECONDS, SequenceStore

from .injections import cpu_seconds, inheriting_orphans, memory_group, until

SUM = "What is 348 + 257?"
KILLED = "The engine died of signal 9."


@pytest.fixture(scope="module")
def engine(nano_gguf, tmp_path_factory):
    """Give one for all tests: what is killed in one starts again in the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALSEEK_HOME", str(tmp_path_factory.mktemp("engine-home")))
        with Engine.of(LoadOptions(str(nano_gguf), threads=1)) as engine:
            yield engine


def answers(engine: Engine) -> bool:
    return text_of(list(engine.generate(ask(SUM))))[1] == "348 + 257 = 605"


def test_an_engine_killed_while_it_loads_is_one_error_and_the_next_load_works(engine):
    with pytest.raises(EngineError) as caught:
        engine.load(lambda _done: os.kill(engine.pid, signal.SIGKILL))
    assert caught.value.message == KILLED
    assert engine.load(lambda _done: None).context_size == 4096  # else it would be killed again
    assert answers(engine)


@pytest.mark.parametrize(
    "moment", [PromptProgress, ReasoningDelta | AnswerDelta], ids=["prompt", "decode"]
)
def test_an_engine_killed_over_a_request_fails_it_and_answers_the_next(engine, moment):
    events = []
    for event in engine.generate(ask(SUM)):
        if isinstance(event, moment) and engine.alive:
            os.kill(engine.pid, signal.SIGKILL)
        events.append(event)
    assert isinstance(events[-1], Failed) and events[-1].fatal
    assert events[-1].message == KILLED and "--ctx" in events[-1].hint
    assert not any(isinstance(event, Failed | Finished) for event in events[:-1])
    assert answers(engine)


def test_an_engine_killed_while_it_saves_leaves_no_half_sequence_and_the_next_save_sweeps(
    nano_gguf, home
):
    folder = home / "sequences"
    options = LoadOptions(str(nano_gguf), threads=1, prompt_cache=True)
    for _try in range(50):  # a save takes a few milliseconds, and may be faster than the kill
        with Engine.of(options) as engine:
            engine.load()
            pid = engine.pid
            assert isinstance(list(engine.generate(ask("5 " * 1200, max_tokens=4)))[-1], Finished)
            until(lambda: any(folder.glob("*")), "something is saved")
            os.kill(pid, signal.SIGKILL)
        half = list(folder.glob("*.partial"))
        if half:
            break
        shutil.rmtree(folder)
    assert half and not list(folder.glob("*.sequence"))
    old = half[0].stat().st_mtime - 2 * STALE_SECONDS
    os.utime(half[0], (old, old))
    assert SequenceStore(folder).write("any", [memoryview(b"whole")]).exists()
    assert not list(folder.glob("*.partial"))


ORPHANS = """
import sys
from localseek import Engine
from localseek.engine.process.client import Child
from localseek.options import Fixed, LoadOptions, Message, Request, Sampling

model, doing = sys.argv[1:]
options = LoadOptions(model, threads=1, fixed=Fixed(mmap=False))
if doing in ("start", "load"):
    child = Child(options)
    print(child.pid, flush=True)
    while doing == "load":
        child.load()
    sys.stdin.read()
engine = Engine.of(options)
engine.load()
print(engine.pid, flush=True)
words = "5 " * 1900 if doing == "prompt" else "What is 348 + 257?"
while True:
    list(engine.generate(Request((Message("user", words),), Sampling(temperature=0.0))))
"""


@pytest.mark.parametrize("doing", ["start", "load", "prompt", "decode"])
def test_an_engine_whose_client_is_killed_ends_within_a_second_whatever_it_does(
    nano_gguf, environment, doing
):
    with inheriting_orphans():
        client = subprocess.Popen(
            [sys.executable, "-c", ORPHANS, str(nano_gguf), doing], env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        pid = int(client.stdout.readline())
        busy = cpu_seconds(pid) + (0.02 if doing == "start" else 0.5)
        until(lambda: cpu_seconds(pid) > busy, "the engine is at work")
        before = cpu_seconds(pid)
        client.kill()
        client.communicate()
        _, status, usage = os.wait4(pid, 0)
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
    # By the processor's time: another program may have the processor meanwhile.
    assert usage.ru_utime + usage.ru_stime - before < 1.0


def test_an_engine_that_is_frozen_while_its_client_is_killed_ends_when_it_is_thawed(
    nano_gguf, environment
):
    with inheriting_orphans():
        client = subprocess.Popen(
            [sys.executable, "-c", ORPHANS, str(nano_gguf), "decode"], env=environment,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        pid = int(client.stdout.readline())
        os.kill(pid, signal.SIGSTOP)
        client.kill()
        client.communicate()
        os.kill(pid, signal.SIGCONT)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_memory_that_a_control_group_refuses_in_the_load_is_told_as_such(nano_gguf, home):
    options = LoadOptions(str(nano_gguf), threads=1, fixed=Fixed(mmap=False))
    with memory_group("localseek-load") as group, Child(options) as child:
        child.ask("machine")  # it has started: what comes now is the load
        group.hold(child.pid, 3 << 20)
        with pytest.raises(EngineError) as caught:
            child.load()
        assert caught.value.message == KILLED
        assert "when memory runs out: a smaller --ctx or model needs less" in caught.value.hint
        assert "\n" not in str(caught.value)


def test_memory_that_a_control_group_refuses_in_an_answer_ends_it_and_the_next_is_answered(engine):
    with memory_group("localseek-decode") as group:
        engine.load()
        group.hold(engine.pid, 1 << 20)
        failed = list(engine.generate(ask("5 " * 1900)))[-1]
        assert isinstance(failed, Failed) and failed.fatal
        assert failed.message == KILLED and "when memory runs out" in failed.hint
        assert answers(engine)


def test_a_model_that_is_replaced_while_it_is_mapped_goes_on_as_it_was(nano_gguf, home, tmp_path):
    path = tmp_path / "model.gguf"
    shutil.copy(nano_gguf, path)
    with Engine.of(LoadOptions(str(path), threads=1, fixed=Fixed(mmap=True))) as engine:
        engine.load()
        (tmp_path / "other").write_bytes(b"no model")
        (tmp_path / "other").rename(path)
        assert answers(engine)
        os.kill(engine.pid, signal.SIGKILL)
        until(lambda: not engine.alive, "the engine is gone")
        failed = list(engine.generate(ask(SUM)))[-1]
        assert isinstance(failed, Failed) and "model.gguf" in failed.message


def test_a_model_that_is_shortened_while_it_is_mapped_is_said_and_found_damaged_next(
    nano_gguf, home, tmp_path
):
    path = tmp_path / "model.gguf"
    shutil.copy(nano_gguf, path)
    with Engine.of(LoadOptions(str(path), threads=1, fixed=Fixed(mmap=True))) as engine:
        engine.load()
        os.truncate(path, 1_000_000)
        failed = list(engine.generate(ask(SUM)))[-1]
        assert isinstance(failed, Failed) and failed.fatal
        assert failed.message.startswith("The engine died of signal 7: a file that it reads")
        assert "localseek models verify" in failed.hint
        failed = list(engine.generate(ask(SUM)))[-1]
        assert failed.message.startswith(f"{path} is truncated")


def test_an_engine_whose_log_cannot_be_written_answers_without_one(nano_gguf, home):
    (home / "logs" / "engine.log").mkdir(parents=True)
    with Engine.of(LoadOptions(str(nano_gguf), threads=1)) as engine:
        assert answers(engine)
