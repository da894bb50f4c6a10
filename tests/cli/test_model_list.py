import json
from pathlib import Path

import pytest
from fakes import programs as fake
from fakes.gguf_file import write_experts
from rich.cells import cell_len

from localseek import nano
from localseek.commands.library import devices
from localseek.errors import EngineError
from localseek.store import changing, pulled
from localseek.store.pulled import Pulled
from localseek.system.machine import Device, Machine

R1 = {"general.name": "DeepSeek R1 Distill Qwen 7B", "general.file_type": fake.Q4_K_M}


@pytest.fixture
def user(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(nano, "CHECKPOINT", tmp_path / "none")
    folder = home / "user"
    folder.mkdir()
    return folder


def test_the_list_tells_what_is_elsewhere_and_what_cannot_run(run_cli, user, home):
    fake.hub(user, "bartowski/R1", "DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf", **R1)
    fake.ollama(user / "ollama", "vision", "11b", architecture="mllama",
                **{"general.name": "Vision"})  # fmt: skip
    fake.split(home / "models", "big", 3)[1].unlink()
    outcome = run_cli("models", "list")
    assert outcome.status == 0 and outcome.out == (
        "NAME                                FAMILY              TYPE    SIZE     CONTEXT  MTP  "
        "FITS                      WHERE\n"
        "big:q8_0                            llama               Q8_0    12.9 kB  2,048    no   "
        "no: 1 of 3 parts missing  library\n"
        "tiny:q8_0                           llama               Q8_0    13.0 kB  2,048    no   "
        "yes                       library\n"
        "deepseek-r1-distill-qwen-7b:q4_k_m  R1 distill (Qwen2)  Q4_K_M  13.0 kB  2,048    no   "
        "yes                       Hugging Face\n"
        "vision:q8_0                         mllama (unknown)    Q8_0    13.0 kB  2,048    no   "
        "no                        Ollama\n"
    )


@pytest.mark.parametrize("columns", [80, 120])
def test_the_list_stays_a_table_on_a_narrow_terminal(run_cli, user, home, monkeypatch, columns):
    fake.hub(user, "bartowski/R1", "DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf", **R1)
    fake.model(home / "models" / f"{'very-long-' * 12}-Q8_0.gguf")
    fake.model(home / "models" / f"{'模型' * 30}-Q8_0.gguf")
    monkeypatch.setattr("localseek.commands.models.width_of", lambda _: columns)
    lines = run_cli("models", "list").out.splitlines()
    assert len(lines) == 5 and max(map(cell_len, lines)) <= columns
    assert lines[0].startswith("NAME") and "FITS" in lines[0]
    assert ("MTP" in lines[0]) == (columns == 120)
    assert any("very-long" in line and "…" in line and "ng-:q8_0 " in line or "long:q8_0 " in line
               for line in lines)  # fmt: skip
    assert any(line.startswith("deepseek-r1-distill-qwen-7b:q4_k_m ") for line in lines)


def test_what_lies_behind_a_link_is_used_and_never_changed(run_cli, home, tmp_path):
    path = fake.model(tmp_path / "disk" / "far-Q8_0.gguf")
    (home / "models" / "link").symlink_to(tmp_path / "disk")
    for words in (("remove", "far", "--yes"), ("rename", "far", "near")):
        outcome = run_cli("models", *words)
        assert outcome.status == 1 and "far:q8_0 lies behind a link, in" in outcome.err
    assert path.is_file() and "far:q8_0" in run_cli("models", "list").out


def test_the_list_for_machines_keeps_its_fields_and_has_new_ones(run_cli, user):
    link = fake.hub(user, "bartowski/R1", "DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf", **R1)
    tiny, r1 = json.loads(run_cli("models", "list", "--json").out)
    assert {"name", "title", "path", "architecture", "type", "size_bytes", "parameters",
            "context_length", "layers", "experts", "experts_used", "mtp", "only_mtp"} <= set(r1)
    assert (tiny["name"], tiny["short_name"], tiny["where"]) == ("tiny", "tiny:q8_0", "library")
    assert r1["name"] == r1["short_name"] == "deepseek-r1-distill-qwen-7b:q4_k_m"
    assert (r1["path"], r1["called"], r1["where"]) == (str(link), "bartowski/R1", "Hugging Face")
    assert (r1["fits"], r1["runs"], r1["missing"], r1["also"]) == ("yes", True, [], [])
    assert "deepseek-r1-distill-qwen-7b" in r1["names"] and r1["family"] == "R1 distill (Qwen2)"


@pytest.mark.parametrize(
    ("machine", "fits"),
    [
        (Machine((), 8 * 10**9, 8 * 10**9, 4), "yes"),
        (Machine((Device("GPU0", "gpu", 10**9, 10**9),), 8 * 10**9, 8 * 10**9, 4), "yes"),
        (Machine((Device("GPU0", "gpu", 30 * 10**6, 30 * 10**6),), 8 * 10**9, 8 * 10**9, 4),
         "experts in RAM"),
        (Machine((), 30 * 10**6, 8 * 10**9, 4), "no"),
    ],
)  # fmt: skip
def test_the_list_says_what_placing_says_for_this_machine(
    run_cli, home, monkeypatch, nano_gguf, machine, fits
):
    (home / "models" / "moe.gguf").symlink_to(nano_gguf)
    monkeypatch.setattr(devices, "machine_here", lambda: machine)
    for _ in range(2):  # from the file, then from what is kept of it
        rows = {row["name"]: row for row in json.loads(run_cli("models", "list", "--json").out)}
        assert rows["moe"]["fits"] == fits, rows["moe"]["why"]


def test_devices_that_cannot_be_asked_for_are_said_and_the_list_is_there(run_cli, monkeypatch):
    def broken():
        raise EngineError("The engine died of signal 4.")

    monkeypatch.setattr(devices, "machine_here", broken)
    outcome = run_cli("models", "list")
    assert outcome.status == 0 and "tiny:q8_0" in outcome.out
    assert outcome.err.startswith("Devices are not counted: The engine died of signal 4.\n")


def test_a_damaged_file_of_another_program_is_noted_and_no_error(run_cli, user):
    path = fake.lm_studio(user, "pub/repo/half-Q8_0.gguf")
    path.write_bytes(path.read_bytes()[:999])
    outcome = run_cli("models", "list")
    assert outcome.status == 0 and "half" not in outcome.out
    assert f"Other programs' files that cannot be read: {path}.\n" in outcome.err


def test_names_are_a_line_each_and_fail_silently(run_cli, user, home, monkeypatch):
    fake.ollama(user / "ollama", "phi", "3b", **{"general.name": "Phi"})
    assert run_cli("models", "list", "--names").out == "nano\ntiny\nphi:3b\n"
    run_cli("models", "list")
    assert run_cli("models", "list", "--names").out == "nano\ntiny:q8_0\nphi:q8_0\nphi:3b\n"


def test_every_verb_takes_short_names_and_other_programs_models(run_cli, user):
    fake.ollama(user / "ollama", "phi", "3b", **{"general.name": "Phi Three"})
    for name in ("tiny:q8_0", "phi:3b", "phi-three", "phi-three:q8_0@ollama"):
        assert run_cli("ask", "-q", "-m", name, "say one").out == "one\n"
        assert json.loads(run_cli("models", "show", name, "--json").out)["architecture"]
    planned = run_cli("plan", "phi:3b", "--ram", "8GB", "--json")
    assert json.loads(planned.out)["model"] == "Phi Three"


def test_show_tells_where_a_model_is_from_and_what_it_answers_to(run_cli, home, user):
    folder = home / "models" / "owner" / "repo"
    path = fake.model(folder / "R1-Q4_K_M.gguf", **R1)
    pulled.record(folder, Pulled("owner/repo", "0123456789abcdef", "mit", {path.name: ""}))
    lines = run_cli("models", "show", "r1").out.splitlines()
    assert lines[:6] == [
        f"file          {path}",
        "names         r1:q4_k_m, r1, owner/repo/R1-Q4_K_M",
        "where         library",
        "from          owner/repo@0123456789ab, licence mit",
        "title         DeepSeek R1 Distill Qwen 7B",
        "family        R1 distill (Qwen2)",
    ]
    shown = json.loads(run_cli("models", "show", "r1", "--json").out)
    assert (shown["repository"], shown["commit"]) == ("owner/repo", "0123456789abcdef")
    other = fake.model(home / "elsewhere" / "x.gguf")
    assert "\nwhere" not in run_cli("models", "show", str(other)).out


def test_an_interrupted_renaming_is_said_in_the_list(run_cli, home):
    parts = fake.split(home / "models", "big", 2)
    pairs = [(path.name, path.name.replace("big", "new")) for path in parts]
    note = {"old": "big", "new": "new", "files": pairs}
    (home / "models" / changing.NOTE).write_text(json.dumps(note))
    parts[1].rename(home / "models" / pairs[1][1])
    listed = run_cli("models", "list")
    assert "no: 1 of 2 parts missing" in listed.out
    command = "localseek models rename big new"
    assert f"Renaming big to new was interrupted: {command} finishes it.\n" in listed.err
    finished = run_cli("models", "rename", "big", "new")
    assert finished.status == 0 and "it is done now" in finished.err
    assert finished.out.endswith("It answers to new:q8_0 now.\n")
    assert sorted(path.name for path in (home / "models").glob("new*")) == [new for _, new in pairs]


def test_a_machine_without_devices_is_asked_for_them_once(home, monkeypatch):
    from localseek.engine.process import client

    monkeypatch.setattr(client, "program", lambda: ["cat"])  # an engine that does nothing
    asked = []

    def ask(engine, op):
        asked.append(op)
        machine = {"devices": [], "ram_free": 1, "ram_total": 1, "cores": 1}
        return {"machine": machine}

    monkeypatch.setattr(client.Child, "ask", ask)
    first, second = devices.machine_here(), devices.machine_here()
    assert asked == ["machine"] and first.devices == second.devices == ()
    assert second.ram_total > 1, "memory is looked at each time"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    devices.machine_here()
    assert asked == ["machine"] * 2, "what hides devices from a driver counts"


def test_experts_of_other_architectures_keep_their_columns(run_cli, home):
    write_experts(home / "models" / "DeepSeek-V3-0324-Q8_0.gguf")
    assert "deepseek-v3-0324:q8_0  V3" in run_cli("models", "list").out
