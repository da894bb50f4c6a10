import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from engine.conftest import ask
from engine.workers import serving

from converters import ConvertOptions, convert
from localseek import Engine, nano
from localseek.airgap import landlock, visible
from localseek.airgap.kernel import Refused
from localseek.airgap.visible import view_of
from localseek.api import looking
from localseek.api.looking import diagnose
from localseek.engine.process import client
from localseek.errors import EngineError, UsageError
from localseek.options import Fixed, LoadOptions

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")
QUESTION = ask("What is 348 + 257?", max_tokens=200)
REFUSING = Path(__file__).with_name("refusing.py")


def answer(options: LoadOptions) -> str:
    with Engine.of(options) as engine, engine.generate(QUESTION) as reply:
        return reply.reply.answer


def where(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let the kernel refuse system calls to every engine."""
    words = [sys.executable, "-P", str(REFUSING), ",".join(names)]
    monkeypatch.setattr(client, "program", lambda: words)


def is_held(name: str, facts: dict[str, str]) -> bool:
    return facts[f"layer {name}"] == "holds"


def test_the_engine_has_a_filter_no_new_rights_and_no_network(nano_gguf):
    with Engine.of(LoadOptions(str(nano_gguf))) as engine:
        engine.load()
        facts, pid = engine.facts(), engine.switchboard.child.pid
        threads = [one.name for one in Path(f"/proc/{pid}/task").iterdir()]
        for thread in threads:
            status = dict(
                line.split(":\t") for line in
                Path(f"/proc/{pid}/task/{thread}/status").read_text().splitlines() if ":\t" in line
            )  # fmt: skip
            if is_held("seccomp", facts):
                assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
        if is_held("namespace", facts):
            seen = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
            assert [line.split(":")[0].strip() for line in seen] == ["lo"]
    assert len(threads) > 1


def test_doctor_tries_every_way_out_and_says_what_stopped_it(real_engine):
    outcome = real_engine("doctor", "--offline", "--json", home_model=False)
    found = json.loads(outcome.out)
    tried = {(one["process"], one["what"]): one for one in found["attempts"]}
    # The hook is not in this process, which goes on with other tests.
    inside = [one for (process, _), one in tried.items() if process.startswith("engine")]
    assert len(inside) == 17
    if set(found["layers"].values()) == {"holds"}:
        assert all(one["by"] for one in inside), inside
        assert tried["engine", "TCP to 192.0.2.1"]["by"] == "seccomp"
        assert tried["engine", "reading a file beside the history"]["by"] == "Landlock"
        assert tried["engine, Python", "listening"]["by"] == "audit hook"
    assert found["ok"] == all(one["by"] for one in found["attempts"])
    assert outcome.status == (0 if found["ok"] else 1)


def test_what_gets_through_is_said_and_gives_status_1(real_engine, monkeypatch, home):
    monkeypatch.setenv("LOCALSEEK_LAYERS_OFF", "landlock, seccomp,audit-hook")
    outcome = real_engine("doctor", "--offline", home_model=False)
    assert outcome.status == 1
    lines = outcome.out.splitlines()
    assert any("reading a file beside the history  got through" in line for line in lines)
    assert any("starting another program           got through" in line for line in lines)
    assert "layer seccomp does not hold: switched off by LOCALSEEK_LAYERS_OFF." in outcome.err
    assert "attempts got through" in outcome.err
    assert list((home / "history").glob("proof-*")) == []


def test_a_layer_that_is_none_is_refused_by_name(real_engine, monkeypatch, nano_gguf):
    monkeypatch.setenv("LOCALSEEK_LAYERS_OFF", "firewall")
    outcome = real_engine("ask", "hello", "-m", str(nano_gguf))
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err == (
        "localseek: LOCALSEEK_LAYERS_OFF names 'firewall'. The layers are: namespace, seccomp, "
        "landlock, audit-hook.\n"
    )


def test_where_the_namespace_is_refused_the_filter_still_cuts_off(monkeypatch):
    where(monkeypatch, "unshare")
    facts = diagnose()
    assert facts["layer namespace"] == "refused: Operation not permitted"
    if is_held("seccomp", facts):
        assert facts["network"] == "cut off by the kernel: seccomp"


def test_where_the_kernel_refuses_all_the_audit_hook_alone_holds_and_that_is_said(
    monkeypatch, nano_gguf, run_cli
):
    where(monkeypatch, "unshare", "seccomp", "landlock_create_ruleset")
    with Engine.of(LoadOptions(str(nano_gguf))) as engine:
        network, facts = engine.load().network, engine.facts()
        with engine.generate(QUESTION) as reply:
            assert "605" in reply.reply.answer
    assert network == facts["network"]
    assert network.startswith("reachable: Python's audit hook alone holds (namespace ")
    assert facts["files"] == "reachable: all that you can read"
    assert facts["other programs"] == "reachable"
    monkeypatch.setattr(looking, "diagnose", lambda _remote: facts)
    checks = json.loads(run_cli("doctor", "--json").out)["checks"]
    states = {one["name"]: one["state"] for one in checks}
    assert states["engine: network"] == states["engine: layer Landlock"] == "warn"
    assert states["engine: layer audit hook"] == "ok"


def test_without_a_namespace_an_engine_with_workers_reaches_the_bridge_alone(
    monkeypatch, nano_gguf, home
):
    where(monkeypatch, "unshare")
    with serving(home / "worker.log") as (worker, _):
        fixed = Fixed(remote=(worker,), gpu_layers=1)
        with Engine.of(LoadOptions(str(nano_gguf), fixed=fixed)) as engine:
            engine.load()
            facts = engine.facts()
            if not (is_held("seccomp", facts) and is_held("Landlock", facts)):
                pytest.skip("this kernel refuses more")
            with engine.generate(QUESTION) as reply:
                assert "605" in reply.reply.answer
    assert facts["network"] == f"cut off by the kernel, save for the bridge to {worker}: seccomp"


@pytest.fixture
def needs_landlock():
    try:
        landlock.version()
    except Refused as error:
        pytest.skip(f"no Landlock here: {error}")


def test_a_split_model_is_found_through_links_relative_paths_and_names_of_any_script(
    tmp_path, monkeypatch
):
    real, links = tmp_path / "模型 🐳", tmp_path / "snapshots"
    real.mkdir()
    links.mkdir()
    convert(
        nano.CHECKPOINT, real / "nano.gguf", ConvertOptions(type="Q8_0", split_bytes=4_000_000)
    )
    parts = sorted(real.iterdir())
    assert len(parts) > 1
    for part in parts:
        (links / part.name).symlink_to(os.path.relpath(part, links))
    monkeypatch.chdir(links)
    assert "605" in answer(LoadOptions(parts[0].name))


def test_a_model_that_is_replaced_is_read_by_the_next_engine(nano_gguf, tmp_path):
    path, newer = tmp_path / "model.gguf", tmp_path / "newer.gguf"
    shutil.copy(nano_gguf, path)
    with Engine.of(LoadOptions(str(path))) as engine:
        engine.load()
        shutil.copy(nano_gguf, newer)
        newer.replace(path)
        engine.kill()  # the next one sees the new file
        with engine.generate(QUESTION) as reply:
            assert "605" in reply.reply.answer


def test_the_engine_opens_no_file_but_the_models(nano_gguf, tmp_path, needs_landlock):
    other = tmp_path / "other.gguf"
    shutil.copy(nano_gguf, other)
    with client.Child(LoadOptions(str(nano_gguf))) as child:
        child.load()
        child.options = LoadOptions(str(other))
        with pytest.raises(EngineError, match="Permission denied"):
            child.load()
        assert child.alive


def test_a_sequence_is_saved_and_put_back_by_an_engine_that_is_closed(nano_gguf, home):
    long = ask("What is 12 * 34? " * 12, max_tokens=4)
    cached = []
    for _ in range(2):
        options = LoadOptions(str(nano_gguf), prompt_cache=True)
        with Engine.of(options) as engine, engine.generate(long) as reply:
            cached.append(reply.reply.stats.cached_tokens)
    assert len(list((home / "sequences").glob("*.sequence"))) == 1
    assert cached[0] == 0 and cached[1] > 64


def test_the_home_of_the_user_is_never_in_view(tmp_path, monkeypatch, home):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    model = tmp_path / "models" / "deepseek-v4.gguf"
    monkeypatch.setattr(sys, "path", [str(tmp_path), "/", *sys.path])
    model.parent.mkdir()
    drafting = model.with_name("deepseek-v4-MTP.gguf")
    for one in (model, drafting, model.with_name("letters.gguf")):
        one.touch()
    view = view_of(LoadOptions(str(model), prompt_cache=True))
    seen = {*view.read, *view.written, *view.used}
    assert not any(tmp_path.is_relative_to(one) for one in seen)
    assert {model, drafting} <= set(view.read)
    assert not any((tmp_path / name).is_relative_to(one)
                   for name in (".ssh", "models/letters.gguf") for one in seen)  # fmt: skip
    assert view.listed == (model.parent,)
    assert view.written == (home / "sequences",)


def test_a_state_among_the_programs_is_closed_and_the_programs_stay_in_view(tmp_path, monkeypatch):
    programs = tmp_path / "programs"
    (programs / "state" / "history").mkdir(parents=True)
    (programs / "package").mkdir()
    monkeypatch.setenv("LOCALSEEK_HOME", str(programs / "state"))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(programs))
    read = view_of(LoadOptions()).read
    assert programs / "package" in read
    assert not any((programs / "state" / "history").is_relative_to(one) for one in read)


def test_device_files_and_a_drivers_caches_are_in_view_only_where_there_is_a_device(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("CUDA_CACHE_PATH", str(tmp_path / "compiled"))
    monkeypatch.setattr(visible, "_devices", list)
    without = view_of(LoadOptions())
    monkeypatch.setattr(visible, "_devices", lambda: [Path("/dev/nvidia0")])
    with_one = view_of(LoadOptions())
    assert set(with_one.used) - set(without.used) >= {Path("/dev/nvidia0"), Path("/dev/shm")}
    assert without.written == () and tmp_path / "compiled" in with_one.written


def test_a_name_that_claims_ten_thousand_parts_and_more_is_no_trouble(tmp_path):
    model = tmp_path / "huge-00001-of-99999.gguf"
    assert len(view_of(LoadOptions(str(model))).read) < 11_000


def test_wrong_words_stop_a_library_user_too(monkeypatch):
    monkeypatch.setenv("LOCALSEEK_LAYERS_OFF", "seccomp,moat")
    with pytest.raises(UsageError, match="'moat'"):
        client.Child(LoadOptions("model.gguf"))
