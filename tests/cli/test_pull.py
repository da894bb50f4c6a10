import json
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import hub

REPOSITORIES = {
    "deepseek-ai/Tiny": {
        "config.json": b'{"architectures": ["X"]}',
        "model-00001-of-00002.safetensors": b"a" * 3000,
        "model-00002-of-00002.safetensors": b"b" * 2000,
        "tokenizer.json": b"{}",
        "pytorch_model.bin": b"c" * 9000,
        "onnx/model.json": b"no",
        "modeling.py": b"print('never run')",
    },
    "deepseek-ai/Early": {
        "config.json": b"{}", "pytorch_model-00001-of-00001.bin": b"a" * 100,
        "pytorch_model.bin.index.json": b"{}", "training_args.bin": b"no",
    },
    "someone/Tiny-GGUF": {
        "tiny-Q4_K_M.gguf": b"GGUF4", "tiny-Q8_0.gguf": b"GGUF8", "README.md": b"",
    },
    "someone/Split-GGUF": {
        "big-00001-of-00002.gguf": b"GGUF1", "big-00002-of-00002.gguf": b"GGUF2",
    },
    "another/Split-GGUF": {"big-00001-of-00002.gguf": b"other"},
    "someone/Dated-GGUF": {"m-05-01-Q4.gguf": b"GGUF4", "m-05-01-Q8.gguf": b"GGUF8"},
    "someone/Text": {"README.md": b"hello"},
}  # fmt: skip


@pytest.fixture
def pull(environment):
    with hub.serving(REPOSITORIES) as served:

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "localseek", "pull", *words],
                env={**environment, "HF_ENDPOINT": served.address,
                     "HF_HOME": str(Path(environment["LOCALSEEK_HOME"]) / "hf")},
                capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip

        yield run


def test_a_checkpoint_comes_without_what_localseek_does_not_read(pull, home):
    done = pull("deepseek-ai/Tiny")
    assert done.returncode == 0, done.stderr
    folder = home / "checkpoints" / "deepseek-ai" / "Tiny"
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {f for f in files if not f.startswith(".cache")} == {
        "config.json", "tokenizer.json",
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    }  # fmt: skip
    assert (folder / "model-00002-of-00002.safetensors").read_bytes() == b"b" * 2000
    assert f"localseek convert {folder}" in done.stdout
    assert "checkpoint, 4 files, 5.0 kB" in done.stderr


def test_an_early_checkpoint_comes_as_pytorch_files(pull, home):
    done = pull("deepseek-ai/Early")
    assert done.returncode == 0, done.stderr
    folder = home / "checkpoints" / "deepseek-ai" / "Early"
    assert {p.name for p in folder.glob("*.*") if p.is_file()} == {
        "config.json", "pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json",
    }  # fmt: skip


def test_a_second_pull_downloads_nothing_again(pull, home):
    pull("deepseek-ai/Tiny")
    file = home / "checkpoints" / "deepseek-ai" / "Tiny" / "config.json"
    before = file.stat().st_mtime_ns
    assert pull("deepseek-ai/Tiny").returncode == 0
    assert file.stat().st_mtime_ns == before


def test_one_of_several_gguf_files_must_be_chosen(pull, home):
    done = pull("someone/Tiny-GGUF")
    assert done.returncode == 2
    assert "tiny-Q4_K_M.gguf, tiny-Q8_0.gguf" in done.stderr and "--file" in done.stderr
    done = pull("someone/Tiny-GGUF", "--file", "*Q4*")
    assert done.returncode == 0, done.stderr
    folder = home / "models" / "someone" / "Tiny-GGUF"
    assert [p.name for p in folder.glob("*.gguf")] == ["tiny-Q4_K_M.gguf"]
    assert "localseek ask -m someone/Tiny-GGUF/tiny-Q4_K_M" in done.stdout


def test_numbers_in_names_do_not_make_two_models_one(pull):
    done = pull("someone/Dated-GGUF")
    assert done.returncode == 2
    assert "holds several models: m-05-01-Q4.gguf, m-05-01-Q8.gguf" in done.stderr


def test_repositories_of_two_owners_do_not_mix(pull, home):
    for owner in ("someone", "another"):
        assert pull(f"{owner}/Split-GGUF").returncode == 0
    for owner, content in (("someone", b"GGUF1"), ("another", b"other")):
        file = home / "models" / owner / "Split-GGUF" / "big-00001-of-00002.gguf"
        assert file.read_bytes() == content


def test_the_parts_of_a_split_model_come_together(pull, home):
    done = pull("someone/Split-GGUF", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["files"] == [
        "big-00001-of-00002.gguf", "big-00002-of-00002.gguf",
    ]  # fmt: skip


def test_a_dry_run_downloads_nothing(pull, home):
    done = pull("deepseek-ai/Tiny", "--dry-run")
    assert done.returncode == 0
    assert "config.json" in done.stdout.splitlines()
    assert not (home / "checkpoints").exists() or not list((home / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("deepseek-ai/Nothing",), 1, "no repository deepseek-ai/Nothing"),
        (("someone/Text",), 1, "nothing that localseek can use"),
        (("deepseek-ai/Tiny", "--file", "*.zip"), 1, "matches *.zip"),
        (("no name",), 2, "not a repository name"),
    ],
)
def test_what_cannot_be_downloaded_is_one_line(pull, words, status, message):
    done = pull(*words)
    assert done.returncode == status
    assert message in done.stderr
    assert done.stderr.startswith("localseek: ") and done.stderr.count("\n") == 1


def test_no_connection_is_one_line(environment):
    done = subprocess.run(
        [sys.executable, "-m", "localseek", "pull", "a/b"],
        env={**environment, "HF_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "could not be downloaded" in done.stderr and done.stderr.count("\n") == 1
