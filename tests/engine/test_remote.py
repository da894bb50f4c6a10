import contextlib
import http.server
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading

import pytest

from localseek import Engine
from localseek.api.looking import diagnose
from localseek.engine.process import rpc
from localseek.engine.process.bridge import Passage
from localseek.engine.process.client import Child
from localseek.errors import EngineError
from localseek.events import AnswerDelta, Failed, ReasoningDelta
from localseek.options import Fixed, LoadOptions
from localseek.system.machine import CPU

from .conftest import ask, text_of
from .workers import free_port, serving

SUM = "What is 348 + 257?"


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    with serving(folder / "a.log") as (a, _), serving(folder / "b.log") as (b, _):
        yield a, b


@pytest.fixture
def worker(tmp_path):
    with serving(tmp_path / "worker.log") as found:
        yield found


def load(path, **fixed):
    engine = Engine.of(LoadOptions(str(path), ctx=1024, threads=1, fixed=Fixed(**fixed)))
    try:
        engine.load()
    except BaseException:
        engine.close()
        raise
    return engine


def test_two_workers_and_the_processor_give_the_text_of_one_machine(
    engine, nano_gguf, workers, clear
):
    alone = text_of(list(engine.generate(ask(clear(SUM)))))
    with load(nano_gguf, remote=workers, cpu_experts=2) as shared:
        placement = shared.info.placement
        assert set(placement["layers"]) == set(workers)
        assert [set(names) for names in placement["experts"]][-2:] == [{CPU}, {CPU}]
        assert text_of(list(shared.generate(ask(SUM)))) == alone


@pytest.mark.parametrize(
    ("remotes", "mtp", "ctx"),
    [(0, "auto", 2048), (0, "off", 512), (1, "auto", 1024), (1, "off", 4096)],
)
def test_predicted_memory_is_what_llama_cpp_reports(nano_gguf, workers, remotes, mtp, ctx):
    split = 2 if remotes else None
    fixed = Fixed(remote=workers[:remotes], cpu_experts=split, mmap=False)
    with Child(LoadOptions(str(nano_gguf), ctx, 1, mtp, fixed=fixed)) as child:
        planned = child.ask("plan")["placement"]
        info = child.load()
    said = {one["device"]: one for one in info.allotted}
    assert set(said) == {CPU, *workers[:remotes]}
    for one in planned["memory"]:
        found = said[one["device"]]
        assert one["weights"] == pytest.approx(found["weights"], rel=0.03)
        assert one["cache"] + one["draft_cache"] == pytest.approx(found["cache"], rel=0.03)
        assert one["compute"] == pytest.approx(found["compute"], rel=0.03)


def test_a_worker_that_dies_ends_the_answer_and_is_named(nano_gguf, worker):
    address, process = worker
    with load(nano_gguf, remote=(address,)) as engine:
        events = []
        for event in engine.generate(ask(SUM)):
            events.append(event)
            if isinstance(event, ReasoningDelta | AnswerDelta):
                process.kill()
        last = events[-1]
        assert isinstance(last, Failed) and last.fatal and not engine.alive
        assert last.message.startswith(f"The worker {address} ")
        assert "--remote" in last.hint


def test_a_worker_that_hangs_is_given_up_and_named(nano_gguf, worker):
    address, process = worker
    with load(nano_gguf, remote=(address,), remote_timeout_s=3.0) as engine:
        os.kill(process.pid, signal.SIGSTOP)
        last = list(engine.generate(ask(SUM)))[-1]
        assert isinstance(last, Failed) and last.fatal
        assert last.message == f"The worker {address} has not answered for 3 s."


def test_a_worker_that_stops_taking_what_is_sent_is_given_up_in_the_same_words():
    said = []
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        inner, engine = socket.socketpair()
        outer = socket.create_connection(deaf.getsockname())
        passage = Passage(inner, outer, "there", 0.1)
        passage._end = said.append  # the engine's end is never closed here
        outer.settimeout(0.05)
        engine.settimeout(0.05)
        sender = threading.Thread(target=passage._outwards)
        sender.start()
        while sender.is_alive():
            with contextlib.suppress(OSError):
                engine.send(bytes(1 << 16))
        for side in (inner, engine, outer):
            side.close()
    assert said == ["has not answered for 0.1 s"]


def test_a_worker_that_is_not_there_is_named_before_anything_is_loaded(nano_gguf):
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(EngineError) as error:
        load(nano_gguf, remote=(address,))
    assert error.value.message == f"The worker {address} cannot be reached: Connection refused."


def test_a_worker_under_two_names_is_named_once(nano_gguf, workers):
    again = workers[0].replace("127.0.0.1", "localhost")
    with pytest.raises(EngineError) as error:
        load(nano_gguf, remote=(workers[0], workers[1], again))
    said = f"The worker {again} is the same worker as {workers[0]}: name it once."
    assert error.value.message == said


def answering(reply: bytes | None):
    """Start a server that answers its first request with `reply`; None: not at all."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        link, _ = server.accept()
        with link, server:
            if reply is not None:
                link.recv(1000)
                link.sendall(reply)
            else:
                link.recv(1000)
                link.recv(1000)

    threading.Thread(target=serve, daemon=True).start()
    return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (struct.pack("<QBBBB24x", 28, 6, 0, 0, 0), "speaks version 6.0.0"),
        (struct.pack("<QBBBB24x", 28, 7, 3, 0, 0), "speaks version 7.3.0"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is not a worker"),
        (b"", "closed the connection"),
        (None, "does not answer"),
    ],
)
def test_what_is_no_worker_of_this_version_is_said_as_such(reply, says, monkeypatch):
    monkeypatch.setattr(rpc, "ANSWER_S", 0.2)
    assert says in rpc.probe(answering(reply)).problem


def test_a_web_server_is_told_from_a_worker_that_is_busy(monkeypatch):
    monkeypatch.setattr(rpc, "ANSWER_S", 0.2)
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        facts = rpc.probe(f"127.0.0.1:{server.server_address[1]}")
    assert facts.problem == "is not a worker of llama.cpp's RPC"


def test_doctor_tells_of_a_worker_and_that_the_rest_is_cut_off(workers):
    facts = diagnose((workers[0],))
    assert facts["rpc"] == "yes"
    assert facts[f"worker {workers[0]}"].startswith("RPC 7.")
    assert facts["network"].startswith(("cut off by the kernel, save for the bridge", "reachable"))


ESCAPE = """
import json, socket, sys
from localseek.airgap import layers
from localseek.engine.process.bridge import Bridge
named, other = sys.argv[1:]
bridge = Bridge([named], 5.0)
left = layers.leave(bridged=True)
reason = "" if left.holds(layers.NAMESPACE) else left.network([])
(remote,) = bridge.open()
def reaches(address):
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), 2).close()
    except OSError:
        return False
    return True
print(json.dumps([reason, reaches(remote.local), reaches(named), reaches(other)]))
"""


def test_from_behind_the_bridge_nothing_but_the_named_worker_can_be_reached(workers):
    command = [sys.executable, "-c", ESCAPE, *workers]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    reason, bridged, named, other = json.loads(done.stdout)
    if reason:
        pytest.skip(f"this kernel does not cut processes off: {reason}")
    assert (bridged, named, other) == (True, False, False)


def test_frames_are_counted_however_the_bytes_arrive():
    rng = random.Random(3)
    stream, answered = b"", 0
    for _ in range(200):
        command, size = rng.randrange(0, 18), rng.choice([0, 1, 7, 300])
        stream += struct.pack("<BQ", command, size) + rng.randbytes(size)
        answered += command in rpc.ANSWERED
    frames, at = rpc.Frames(requests=True), 0
    while at < len(stream):
        step = rng.randrange(1, 40)
        frames.feed(stream[at : at + step])
        at += step
    assert frames.counted == answered


def test_frames_of_answers_all_count():
    frames = rpc.Frames(requests=False)
    for size in (0, 5, 0, 1000):
        frames.feed(struct.pack("<Q", size) + bytes(size))
    assert frames.counted == 4
