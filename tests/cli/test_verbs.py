import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import converters
from converters.types.mixtures import NAMES_BY_GROUP
from converters.types.recipe import NEED_IMATRIX
from localseek import cli
from localseek.api import looking
from localseek.commands import convert
from localseek.errors import EngineError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("verb", sorted(cli.VERBS))
def test_the_help_of_every_verb_has_examples_and_a_way_for_machines(run_cli, verb):
    outcome = run_cli(verb, "--help", home_model=False)
    assert outcome.status == 0
    assert f"\nexamples:\n  localseek {verb}" in outcome.out
    assert "--json" in outcome.out
    assert max(len(line) for line in outcome.out.splitlines()) <= 100


def test_the_help_names_every_verb(run_cli):
    outcome = run_cli("--help")
    assert (outcome.status, outcome.err) == (0, "")
    for verb, summary in cli.VERBS.items():
        assert f"  {verb:10} {summary}\n" in outcome.out
    assert "\nexamples:\n" in outcome.out


def test_the_help_answers_within_150_ms_of_processor_time():
    program = (
        "import sys; sys.argv = ['localseek', '--help']; from localseek import cli; cli.main()"
    )
    before = os.times()
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    after = os.times()
    used = after.children_user + after.children_system
    assert used - before.children_user - before.children_system < 0.15


def test_the_help_imports_nothing_heavy():
    program = (
        "import sys; sys.argv = ['localseek', '--help']; from localseek import cli; cli.main();"
        "heavy = {'numpy', 'rich', 'textual', 'llama_cpp', 'jinja2', 'psutil', 'converters'};"
        "sys.exit(','.join(heavy & set(sys.modules)) or 0)"
    )
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, check=False, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_version_is_one_line(run_cli):
    assert run_cli("--version").out == f"localseek {cli.__version__}\n"


def test_an_unknown_verb_is_answered_with_the_verbs(run_cli):
    outcome = run_cli("aks", "hi")
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err == (
        "localseek: There is no verb 'aks'. "
        "Did you mean ask? "
        "The verbs are: ask, chat, batch, serve, convert, plan, bench, pull, models, history, "
        "worker, doctor, completion.\n"
    )


def test_an_unknown_option_is_one_line(run_cli):
    outcome = run_cli("ask", "hi", "--fast")
    assert outcome.status == 2
    assert outcome.err == ("localseek: unrecognized arguments: --fast. See localseek ask --help.\n")


def fake_conversion(monkeypatch, outcome, reports=range(0, 101, 25), resumed=0):
    asked = {}

    def convert_(source, target, options, progress, notice, shards=None):
        asked.update(source=source, target=target, options=options)
        for done in reports:
            share = converters.Progress(
                done * 10**6, 10**8, f"blk.{done}.ffn", done / 2, resumed * 10**6
            )
            progress(share)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(converters, "convert", convert_)
    return asked


RESULT = converters.ConvertResult(
    Path("r1.gguf"), 98_400_000, 12, 61.4, "deepseek2", {"Q8_0": 10, "F32": 2}, ("A warning.",)
)


def test_a_conversion_tells_what_it_wrote_and_how_it_went(run_cli, monkeypatch):
    asked = fake_conversion(monkeypatch, RESULT)
    outcome = run_cli(
        "convert", "R1", "r1.gguf", "--type", "q4_k_m", "--tensor-type", "a=b=Q6_K",
        "--mtp", "drop", "--threads", "3", "--force",
    )  # fmt: skip
    assert outcome.status == 0
    assert outcome.out == ("r1.gguf: deepseek2, 98.4 MB, 12 tensors (2 F32, 10 Q8_0), 1 min 1 s\n")
    assert outcome.err == (
        " 25% 25.0 MB of 100.0 MB, 2 MB/s, 38 s left\n"
        " 50% 50.0 MB of 100.0 MB, 2 MB/s, 25 s left\n"
        " 75% 75.0 MB of 100.0 MB, 2 MB/s, 12 s left\n"
        "100% 100.0 MB of 100.0 MB, 2 MB/s, 0.0 s left\n"
        "warning: A warning.\n"
    )
    assert asked["options"] == converters.ConvertOptions(
        "Q4_K_M", "drop", (("a=b", "Q6_K"),), threads=3, force=True
    )


def test_a_conversion_as_json_is_one_object(run_cli, monkeypatch):
    fake_conversion(monkeypatch, RESULT)
    outcome = run_cli("convert", "R1", "r1.gguf", "--json")
    assert json.loads(outcome.out) == {
        "path": "r1.gguf", "architecture": "deepseek2", "size_bytes": 98_400_000, "tensors": 12,
        "types": {"Q8_0": 10, "F32": 2}, "elapsed_s": 61.4, "warnings": ["A warning."],
    }  # fmt: skip


def test_a_conversion_that_fails_is_one_line_and_status_1(run_cli, monkeypatch):
    fake_conversion(monkeypatch, converters.ConvertError("R1 holds no config.json"))
    outcome = run_cli("convert", "R1", "r1.gguf", "--json")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err == "localseek: R1 holds no config.json.\n"


def test_a_conversion_that_fails_names_paths_as_they_were_given(run_cli, monkeypatch):
    fake_conversion(monkeypatch, converters.ConvertError("../nothere is not a folder."))
    outcome = run_cli("convert", "../nothere", "r1.gguf")
    assert outcome.err.endswith("localseek: ../nothere is not a folder.\n")


def test_a_conversion_that_is_interrupted_says_how_it_goes_on(run_cli, monkeypatch):
    fake_conversion(monkeypatch, KeyboardInterrupt(), reports=(0, 25, 50))
    outcome = run_cli("convert", "R1", "r1.gguf")
    assert outcome.status == 130
    assert outcome.err.endswith("\nStopped at 50%; run the same command to go on.\n")


def test_a_conversion_that_is_interrupted_while_it_plans_says_that_nothing_was_written(
    run_cli, monkeypatch
):
    fake_conversion(monkeypatch, KeyboardInterrupt(), reports=())
    outcome = run_cli("convert", "R1", "r1.gguf")
    assert (outcome.status, outcome.err) == (130, "Stopped; nothing was written.\n")


def test_a_conversion_that_goes_on_says_so_and_measures_its_own_speed(run_cli, monkeypatch):
    fake_conversion(monkeypatch, RESULT, reports=(40, 60), resumed=40)
    outcome = run_cli("convert", "R1", "r1.gguf", "--restart")
    assert outcome.err.startswith(
        "Going on where it stopped, at 40%.\n"
        " 40% 40.0 MB of 100.0 MB, 0 MB/s\n"
        " 60% 60.0 MB of 100.0 MB, 1 MB/s, 1 min 0 s left\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--type", "Q9"], "There is no type Q9. Types: "),
        (["--tensor-type", "Q6_K"], "--tensor-type 'Q6_K' is not REGEX=TYPE."),
        (["--threads", "0"], "--threads is 0; 1 or more is possible."),
    ],
)
def test_a_conversion_asked_for_wrongly_is_status_2(run_cli, words, message):
    outcome = run_cli("convert", "R1", "r1.gguf", *words)
    assert outcome.status == 2
    assert outcome.err.startswith(f"localseek: {message}")


def test_an_importance_matrix_is_handed_to_the_conversion(run_cli, monkeypatch):
    asked = fake_conversion(monkeypatch, RESULT)
    run_cli("convert", "R1", "r1.gguf", "--type", "iq2_xxs", "--imatrix", "m.dat")
    assert (asked["options"].type, asked["options"].imatrix) == ("IQ2_XXS", Path("m.dat"))


def test_the_help_of_convert_lists_every_type_in_its_group_and_what_needs_an_imatrix():
    _, _, listing = convert.EXAMPLES.partition("\ntypes, ")
    words = iter(listing.partition(":\n")[2].partition("--tensor-type")[0].split())
    for group, names in NAMES_BY_GROUP.items():
        assert [next(words) for _ in group.split()] == group.split()
        marked = [name + "*" * (name in NEED_IMATRIX) for name in names]
        assert [next(words) for _ in names] == marked
    assert list(words) == []


def test_doctor_names_what_was_looked_at_and_the_engine_says_what_it_is(run_cli, monkeypatch):
    facts = {"gpu_offload": "no", "devices": "CPU"}
    monkeypatch.setattr(looking, "diagnose", lambda _remote: facts)
    outcome = run_cli("doctor")
    assert (outcome.status, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    for words in ("localseek", "Python", "llama-cpp-python", "memory", "C++ compiler", "disk"):
        assert any(line[8:].startswith(words) for line in lines)
    assert any(line.endswith("engine: gpu offload  no") for line in lines)


def test_doctor_warns_of_a_build_that_lacks_something_and_says_how_to_mend_it(run_cli, monkeypatch):
    facts = {"gpu_offload": "no", "rpc": "no", "mtp": "no", "network": "reachable: no seccomp"}
    monkeypatch.setattr(looking, "diagnose", lambda _remote: facts)
    checks = {c["name"]: c for c in json.loads(run_cli("doctor", "--json").out)["checks"]}
    states = {name: checks[f"engine: {name}"]["state"] for name in ("rpc", "mtp", "network")}
    assert states == {"rpc": "warn", "mtp": "warn", "network": "warn"}
    assert checks["engine: gpu offload"]["state"] == "ok"
    for name in ("rpc", "mtp"):
        remedy = checks[f"engine: {name}"]["remedy"]
        assert "uv sync --reinstall-package llama-cpp-python" in remedy
    assert "-DGGML_RPC=ON" in checks["engine: rpc"]["remedy"]


def test_doctor_says_of_a_home_that_cannot_be_written_only_that(run_cli, monkeypatch, tmp_path):
    monkeypatch.setattr(looking, "diagnose", lambda _remote: {})
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOCALSEEK_HOME", str(tmp_path / "file" / "home"))
    outcome = run_cli("doctor", "--json")
    checks = [one for one in json.loads(outcome.out)["checks"] if one["name"] in ("home", "models")]
    assert outcome.status == 1
    assert [(one["name"], one["state"]) for one in checks] == [("home", "missing")]
    assert "Set LOCALSEEK_HOME" in checks[0]["remedy"]


def test_doctor_fails_when_the_engine_does_not_start(run_cli, monkeypatch):
    def diagnose(_remote):
        raise EngineError("The engine died of signal 4.", "Build llama.cpp for this processor.")

    monkeypatch.setattr(looking, "diagnose", diagnose)
    outcome = run_cli("doctor", "--json")
    report = json.loads(outcome.out)
    assert (outcome.status, report["ok"]) == (1, False)
    assert {
        "name": "engine",
        "state": "missing",
        "value": "The engine died of signal 4.",
        "remedy": "Build llama.cpp for this processor.",
    } in report["checks"]
