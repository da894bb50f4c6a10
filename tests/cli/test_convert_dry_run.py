import json
import re
from pathlib import Path

import pytest

from converters.checking import estimate
from localseek import nano
from localseek.system.sizes import parse_size

V3 = Path(__file__).parents[1] / "converters" / "configs" / "DeepSeek-V3.json"


@pytest.fixture(autouse=True)
def _measure_briefly(monkeypatch):
    monkeypatch.setattr(estimate, "BUDGET_S", 0.01)


def test_a_dry_run_says_what_a_config_alone_tells(run_cli):
    outcome = run_cli("convert", str(V3), "--type", "Q4_K_M", "--dry-run", "--threads", "2")
    assert (outcome.status, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[:2] == [
        "DeepSeek-V3 as Q4_K_M: deepseek2, 415,857,452,032 bytes (415.9 GB), 4.87 bits a weight",
        "682,636,487,424 parameters (36.6 B active, 11.6 B in the MTP layer) in 1,108 tensors",
    ]
    assert lines[3].split() == ["part", "tensors", "parameters", "bytes", "type", "why"]
    rows = [line.split() for line in lines[4:]]
    assert ["routed", "experts,", "up", "58", "217,969,590,272", "122,607,894,528", "Q4_K"] in [
        row[:7] for row in rows
    ]
    assert max(map(len, lines)) <= 110
    assert lines[-4:-1] == [
        "Left out: 1,853,358,080 stored parameters: copies, what the runtime does not need, what "
        "--mtp leaves out.",
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
    assert outcome.err.startswith(f"localseek: {tmp_path} is empty")


def test_without_a_target_only_a_dry_run_is_possible(run_cli):
    outcome = run_cli("convert", str(V3))
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err == (
        "localseek: Give the file to write: localseek convert SOURCE OUT.gguf.\n"
    )


def test_a_fit_prints_what_it_chose_and_what_more_would_cost(run_cli):
    outcome = run_cli("convert", str(V3), "--fit", "400GB", "--dry-run")
    assert (outcome.status, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0].startswith("DeepSeek-V3 as a mixture for 400.0 GB: deepseek2, 399,9")
    start = lines.index(
        "Chosen to fit 400,000,000,000 bytes, 8.3 MB of them kept free for the tokenizer "
        "(the smallest possible: 233,028,581,408):"
    )
    header = ["part", "layers", "type", "bytes", "of the loss", "the next type up"]
    assert re.split(r"\s{2,}", lines[start + 1]) == header
    row = next(line for line in lines[start:] if line.startswith("routed experts, gate"))
    assert re.split(r"\s{2,}", row)[1].split()[0] == "3–60"


def test_a_conversion_to_a_size_says_what_it_chose(run_cli, tmp_path):
    target = tmp_path / "nano.gguf"
    words = ("convert", str(nano.CHECKPOINT), str(target), "--fit", "5MB")
    outcome = run_cli(*words)
    assert outcome.status == 0
    assert target.stat().st_size <= 5_000_000
    assert "Chosen to fit 5,000,000 bytes (the smallest possible: " in outcome.out
    found = json.loads(run_cli(*words, "--force", "--json").out)
    assert found["fitted"]["limit_bytes"] == 5_000_000
    assert {line["group"] for line in found["fitted"]["lines"]} >= {"output", "MTP layer"}


@pytest.mark.parametrize("size", ["24 apples", "0GB", "", "-3G", "1e9"])
def test_a_size_that_is_none_is_one_line_and_status_2(run_cli, size):
    outcome = run_cli("convert", str(V3), f"--fit={size}", "--dry-run")
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err == (
        f"localseek: --fit {size!r} is not a size: write it like 24GB, 24GiB or 1.5T.\n"
    )


@pytest.mark.parametrize(
    ("text", "size"),
    [("24GB", 24 * 10**9), ("24G", 24 * 10**9), ("24GiB", 24 * 2**30), ("400g", 400 * 10**9),
     ("1.5 T", 15 * 10**11), ("800MiB", 800 * 2**20), ("123456789", 123456789)],
)  # fmt: skip
def test_a_size_is_read_as_it_is_written(text, size):
    assert parse_size("--fit", text) == size


def test_a_fit_and_a_type_are_one_too_many(run_cli):
    outcome = run_cli("convert", str(V3), "--fit", "1T", "--type", "Q8_0", "--dry-run")
    assert outcome.status == 2
    assert "not allowed with argument" in outcome.err


def test_a_dry_run_counts_the_files_of_a_split_model_and_their_heads(run_cli, tmp_path):
    words = ("convert", str(nano.CHECKPOINT), str(tmp_path / "out.gguf"), "--split-size", "2M")
    found = json.loads(run_cli(*words, "--dry-run", "--json").out)
    assert "bytes (6.8 MB) in 4 files, " in run_cli(*words, "--dry-run").out.splitlines()[0]
    run_cli(*words)
    written = list(tmp_path.iterdir())
    assert found["files"] == len(written)
    assert found["size_bytes"] == sum(path.stat().st_size for path in written)


def test_a_dry_run_refuses_a_split_that_cannot_be(run_cli):
    outcome = run_cli("convert", str(nano.CHECKPOINT), "--dry-run", "--split-size", "1k")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err == (
        "localseek: --split-size is too small: blk.1.ffn_gate_exps.weight alone has 278,528 "
        "bytes.\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--split-size", ""], ["--tensor-type", "x=Q9"], ["--tensor-type", "(=Q8_0"],
        ["--type", "keep"], ["--add-mtp", "x"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_options_that_are_wrong_whatever_the_source_are_wrong_use(run_cli, tmp_path, words, dry):
    outcome = run_cli("convert", str(nano.CHECKPOINT), str(tmp_path / "x.gguf"), *words, *dry)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("config.json", "has no weights: give its folder, or add --dry-run."),
        ("model.safetensors", "is a part of a checkpoint: give the folder it is in."),
        ("absent.gguf", "does not exist: give a checkpoint folder or a GGUF file."),
    ],
)
def test_a_source_that_is_none_is_told_what_to_give(run_cli, tmp_path, name, told):
    source = nano.CHECKPOINT / name
    outcome = run_cli("convert", str(source), str(tmp_path / "x.gguf"))
    assert (outcome.status, outcome.err) == (1, f"localseek: {source} {told}\n")


def test_a_narrow_terminal_cuts_no_numbers_and_no_types_off(run_cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("localseek.commands.parts.convert_table.is_terminal", lambda stream: True)
    outcome = run_cli("convert", str(V3), "--type", "Q4_K_M", "--dry-run")
    assert "122,607,894,528  Q4_K" in outcome.out
    assert "…" not in outcome.out
