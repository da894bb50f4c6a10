import json
from pathlib import Path

import pytest

from converters import estimate
from localseek import nano

V3 = Path(__file__).parents[1] / "converters" / "configs" / "DeepSeek-V3.json"


@pytest.fixture(autouse=True)
def _measure_briefly(monkeypatch):
    monkeypatch.setattr(estimate, "BUDGET_S", 0.01)


def test_a_dry_run_says_what_a_config_alone_tells(run_cli):
    outcome = run_cli("convert", str(V3), "--type", "Q4_K_M", "--dry-run", "--threads", "2")
    assert (outcome.status, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[:2] == [
        "DeepSeek-V3 as Q4_K_M: deepseek2, 415,857,451,840 bytes (415.9 GB), 4.87 bits a weight",
        "682,636,487,424 parameters (36.6 B active, 11.6 B in the MTP layer) in 1,108 tensors",
    ]
    assert lines[3].split() == ["part", "tensors", "parameters", "bytes", "type", "why"]
    rows = [line.split() for line in lines[4:]]
    assert ["routed", "experts,", "up", "58", "217,969,590,272", "122,607,894,528", "Q4_K"] in [
        row[:7] for row in rows
    ]
    assert max(map(len, lines)) <= 110
    assert lines[-4:-1] == [
        "Left out: 1,853,358,080 stored parameters that the runtime has already (copies) or does "
        "not need.",
        "No weights here: shapes are those that the config asks for (688.6 GB as released).",
        "No tokenizer here: its metadata comes on top. The tensors take exactly "
        "415,857,378,304 bytes.",
    ]
    assert lines[-1].startswith("Expected time: ")
    assert " on 2 threads (an estimate: " in lines[-1]


def test_a_dry_run_as_json_has_it_all_and_writes_nothing(run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = run_cli("convert", str(nano.CHECKPOINT), "out.gguf", "--dry-run", "--json")
    found = json.loads(outcome.out)
    assert list(tmp_path.iterdir()) == []
    run_cli("convert", str(nano.CHECKPOINT), "out.gguf")
    assert found["size_bytes"] == (tmp_path / "out.gguf").stat().st_size
    assert {part["group"] for part in found["parts"]} >= {"attention", "router", "MTP layer"}
    one = found["parts"][0]
    assert (one["group"], one["types"][0]["type"]) == ("embedding", "Q8_0")
    assert one["types"][0]["reasons"] == ["Q8_0 base type"]
    assert found["expected_s"] > 0


def test_a_dry_run_that_cannot_be_is_one_line(run_cli, tmp_path):
    outcome = run_cli("convert", str(tmp_path), "--dry-run")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.startswith(f"localseek: {tmp_path} is no checkpoint")


def test_without_a_target_only_a_dry_run_is_possible(run_cli):
    outcome = run_cli("convert", str(V3))
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err == (
        "localseek: Give the file to write: localseek convert SOURCE OUT.gguf.\n"
    )
