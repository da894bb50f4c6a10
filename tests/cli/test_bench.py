import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

import pytest
from engine.margins import CLEAR, least_lead

from converters import ConvertOptions, convert
from localseek import nano
from localseek.bench import loads, page_cache
from localseek.bench.chart import Bar, Group, draw
from localseek.bench.findings import WARM_UP, Findings, Loads
from localseek.bench.report import make_report, ratio, spread
from localseek.bench.rounds import PARTS, Rounds
from localseek.commands import bench
from localseek.commands.parts.bench_page import page, picture
from localseek.engine.llama import Model
from localseek.nano import prompts

SHORT = ["--threads", "1", "--prompt-tokens", "40", "--tokens", "24", "--runs", "2"]
WAYS = ["off", "1", "2", "3", "4", "auto"]


@pytest.fixture(scope="module")
def done(nano_gguf, tmp_path_factory):
    """A whole bench in a process of its own: its output and its picture."""
    folder = tmp_path_factory.mktemp("bench")
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "LOCALSEEK_HOME": str(folder / "home")}
    words = ["bench", str(nano_gguf), *SHORT, "--json", "--plot", str(folder / "bench.svg")]
    words += [word for part in PARTS if part != "load" for word in ("--only", part)]
    finished = subprocess.run(
        [sys.executable, "-m", "localseek", *words], env=environment, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    return json.loads(finished.stdout), (folder / "bench.svg").read_text(), finished.stderr


def test_the_json_has_every_part(done):
    found, _, err = done
    assert err == "" and found["complete"]
    assert list(found) == [
        "complete", "localseek", "llama_cpp", "system", "machine", "model", "settings", "prompt",
        "decode", "drafts", "no_drafts", "pipe", "first_token_s", "first_token_prompt", "cold",
        "cold_problem", "warm", "memory", "texts",
    ]  # fmt: skip
    assert list(found["prompt"]) == ["off", "on"] and list(found["drafts"]) == WAYS
    assert list(found["pipe"]) == list(found["first_token_s"]) == ["off", "auto"]
    assert found["settings"]["threads"] == 1 and found["model"]["mtp_layers"] == 1
    assert found["system"].startswith("CPU : ")
    assert os.uname().nodename not in json.dumps(found["machine"])


def test_figures_are_medians_of_the_rounds_and_ratios_are_taken_within_one(done):
    drafts = done[0]["drafts"]
    plain = drafts["off"]["tps"]["rounds"]
    for way in WAYS[1:]:
        tps, times = drafts[way]["tps"], drafts[way]["ratio"]
        assert len(tps["rounds"]) == 2 and tps["warm_up"] > 0
        assert tps["median"] == median(tps["rounds"])
        assert times["rounds"] == pytest.approx(
            [fast / slow for fast, slow in zip(tps["rounds"], plain, strict=True)]
        )
        assert (times["low"], times["high"]) == (min(times["rounds"]), max(times["rounds"]))


def test_drafts_are_counted_by_position(done):
    drafts = done[0]["drafts"]
    for depth in (1, 2, 3, 4):
        found = drafts[str(depth)]
        assert len(found["acceptance"]) == depth and found["acceptance"][0] > 0.8
        assert found["tokens_per_step"] > 1.5 and found["tokens"] == 48
    texts = done[0]["texts"]
    assert texts[0]["question"] == "981 * 87" and len(texts[0]["prompt_tokens"]) > 4


def test_memory_and_the_first_token_are_there(done):
    found = done[0]
    assert found["memory"]["peak_bytes"] > found["model"]["size_bytes"]
    assert found["memory"]["llama_cpp"][0]["weights"] > 6_000_000
    assert 0 < found["first_token_prompt"] <= 40
    assert found["first_token_s"]["auto"]["low"] > 0 and found["cold"] is found["warm"] is None


def test_loads_are_timed_from_the_disk_and_from_memory(real_engine, nano_gguf, monkeypatch):
    monkeypatch.setattr(loads, "TURNS", 1)
    found = json.loads(real_engine("bench", str(nano_gguf), "--only", "load", "--json").out)
    for where in ("cold", "warm"):
        assert 0 < found[where]["ready_s"]["median"] <= found[where]["first_token_s"]["median"]
        assert len(found[where]["ready_s"]["rounds"]) == 1
    cold = [share for share in found["cold"]["in_memory"] if share is None or share > loads.COLD]
    assert bool(cold) == bool(found["cold_problem"])
    assert found["prompt"] == {} and found["decode"] is None


def test_the_picture_holds_every_label(done):
    texts = [one.text for one in ET.fromstring(done[1]).iter("{http://www.w3.org/2000/svg}text")]
    for label in ("drafts off", "always 1", "always 4", "drafts automatic", "Answers"):
        assert label in texts
    assert sum("tok/s" in text for text in texts) == 11


def test_a_picture_survives_any_name():
    drawn = draw("<b>&'\"]]>" * 40, "x", [Group("a<", (Bar("&", 1, 0.5, 2, "<"),)), Group("b", ())])
    assert ET.fromstring(drawn)[0].text == "<b>&'\"]]>" * 40


def test_a_machine_that_becomes_slower_does_not_change_ratios():
    plain = {WARM_UP: 1.0, 0: 100.0, 1: 50.0, 2: 10.0}
    drafting = {WARM_UP: 90.0, 0: 150.0, 1: 75.0, 2: 15.0}
    assert ratio(drafting, plain).rounds == (1.5, 1.5, 1.5)
    found = spread(drafting)
    assert (found.median, found.low, found.high, found.warm_up) == (75.0, 15.0, 150.0, 90.0)
    assert spread({WARM_UP: 3.0}) is None
    assert ratio({0: 2.0, 1: 9.0}, {0: 1.0}).rounds == (2.0,)  # a round that was cut off


def test_a_model_without_the_layer_says_why_it_has_no_drafts(real_engine, tmp_path):
    path = tmp_path / "plain.gguf"
    convert(nano.CHECKPOINT, path, ConvertOptions(type="Q8_0", mtp="drop"))
    words = [*SHORT, "--only", "prompt", "--only", "drafts"]
    outcome = real_engine("bench", str(path), *words)
    assert outcome.status == 0 and "always" not in outcome.out and "drafts on" not in outcome.out
    assert "\nNo drafts: the file has no multi-token prediction layer.\n" in outcome.out
    assert "\nread 40 tokens" in outcome.out and "\ndrafts off" in outcome.out


def test_what_mtp_fixes_is_measured_alone(real_engine, nano_gguf):
    words = [*SHORT, "--only", "drafts", "--json"]
    found = json.loads(real_engine("bench", str(nano_gguf), *words, "--mtp", "2").out)
    assert list(found["drafts"]) == ["off", "2"] and found["cold"] is None


def test_drafts_change_no_text_that_is_clear(real_engine, nano_gguf, tmp_path):
    question = "Calculate 348 + 257"
    model = Model(str(nano_gguf), load_mtp=False)
    assert least_lead(model, model.tokenize(prompts.prompt(question))) > CLEAR
    model.close()
    (tmp_path / "sum.txt").write_text(question)
    words = [*SHORT, "--only", "drafts", "--mtp", "3", "--json"]
    outcome = real_engine("bench", str(nano_gguf), *words, "--prompt", str(tmp_path / "sum.txt"))
    drafts = json.loads(outcome.out)["drafts"]
    assert drafts["3"]["tokens_per_step"] > 1.5 and drafts["3"]["same_text"]


def test_a_text_of_ones_own_is_answered(real_engine, nano_gguf, tmp_path):
    (tmp_path / "sum.txt").write_text("348 + 257")
    words = [*SHORT, "--only", "drafts", "--mtp", "off", "--json"]
    outcome = real_engine("bench", str(nano_gguf), *words, "--prompt", str(tmp_path / "sum.txt"))
    found = json.loads(outcome.out)
    assert [one["question"] for one in found["texts"]] == ["348 + 257"]
    assert list(found["drafts"]) == ["off"] and "not loaded" in found["no_drafts"]


def test_ctrl_c_shows_what_is_known(real_engine, nano_gguf, monkeypatch):
    decode = Rounds._decode

    def interrupted(self, number):
        if number == 1:
            os.kill(os.getpid(), signal.SIGINT)
        decode(self, number)

    monkeypatch.setattr(Rounds, "_decode", interrupted)
    words = [*SHORT, "--only", "decode", "--runs", "9000", "--json"]
    outcome = real_engine("bench", str(nano_gguf), *words)
    found = json.loads(outcome.out)
    assert outcome.status == 130 and not found["complete"]
    assert len(found["decode"]["tps"]["rounds"]) == 1


def test_ctrl_c_before_anything_is_known_says_so(real_engine, nano_gguf, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "measure_loads", interrupted)
    outcome = real_engine("bench", str(nano_gguf), "--plot", "never.svg")
    assert (outcome.status, outcome.out) == (130, "")
    assert outcome.err == "Nothing was measured yet.\n" and not Path("never.svg").exists()


def test_an_engine_that_dies_leaves_what_was_measured(real_engine, nano_gguf, monkeypatch):
    decode = Rounds._decode

    def killed(self, number):
        if number == 1:
            os.kill(self._engine.pid, signal.SIGKILL)
        decode(self, number)

    monkeypatch.setattr(Rounds, "_decode", killed)
    outcome = real_engine("bench", str(nano_gguf), *SHORT, "--only", "decode")
    assert outcome.status == 1 and "\ndecode 24 tokens" in outcome.out
    assert "The engine died of signal 9" in outcome.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--runs", "0"], "'0' is not a number from 1 to 10,000"),
        (["--tokens", "1"], "'1' is not a number from 2"),
        (["--prompt-tokens", "many"], "'many' is not a number from 2"),
        (["--ctx", "500"], "--ctx 500 is too small for prompts of 512 tokens"),
        (["--only", "speed"], "invalid choice: 'speed'"),
        (["--plot", "nowhere/at/all.svg"], "is in no folder that is there"),
        (["--prompt", "nothere.txt"], "nothere.txt cannot be read"),
        (["--mtp", "9"], "is not auto, off or a number"),
        (["--device", "CUDA9"], "no device 'CUDA9'"),
    ],
)
def test_wrong_use_ends_in_one_line(real_engine, nano_gguf, words, says):
    outcome = real_engine("bench", str(nano_gguf), *words)
    assert outcome.status in (1, 2) and says in outcome.err and outcome.err.count("\n") == 1
    assert outcome.status == 2 or "CUDA9" in words
    assert outcome.out == ""


def test_a_cold_load_is_called_cold_only_if_the_file_was_out_of_memory():
    assert loads.cold_problem(Loads()) == ""
    assert loads.cold_problem(Loads(in_memory={0: 0.0, 1: 0.004})) == ""
    assert "65% of the file stayed" in loads.cold_problem(Loads(in_memory={0: 0.0, 1: 0.65}))
    assert "does not tell" in loads.cold_problem(Loads(in_memory={0: None}))


def test_pages_of_a_file_are_seen_in_memory(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(300_000))
    share = page_cache.resident([path, path])
    assert share == 1.0  # it was written just now
    assert 0.0 <= page_cache.drop([path]) <= 1.0


def test_the_page_is_calm_when_nothing_drafts():
    findings = Findings(complete=True)
    findings.decode = {0: 12.3456, 1: 14.0}
    model = {"name": "m", "architecture": "llama", "type": "Q4_0", "size_bytes": 10**8}
    facts = {"localseek": "0", "llama_cpp": "l", "machine": {"cpu": "c", "cores": 2}}
    settings = {"ctx": 704, "threads": 1, "runs": 2, "prompt_tokens": 512, "tokens": 128}
    report = make_report(findings, facts, model, settings, "")
    assert page(report) == [
        "m: llama, Q4_0, 100.0 MB, context 704, 1 thread, 2 rounds",
        "c, 2 cores; l",
        "",
        "                   tok/s   low–high  of plain",
        "decode 128 tokens   13.2  12.3–14.0",
    ]
    cut_off = page(replace(report, complete=False))
    assert cut_off[-2:] == ["", "Interrupted: these are the figures until then."]
    assert "random tokens" in picture(report) and asdict(report)["drafts"] == {}


def test_questions_from_an_empty_file_are_refused(run_cli, tmp_path):
    (tmp_path / "empty.txt").write_text(" \n")
    done = run_cli("bench", "tiny", "--prompt", str(tmp_path / "empty.txt"))
    assert done.status == 2 and "empty.txt is empty" in done.err and done.err.count("\n") == 1


def test_a_picture_that_would_be_a_folder_is_refused_before_anything_is_measured(run_cli, tmp_path):
    done = run_cli("bench", "tiny", "--plot", str(tmp_path))
    assert done.status == 2 and f"{tmp_path} is a folder" in done.err and done.err.count("\n") == 1
