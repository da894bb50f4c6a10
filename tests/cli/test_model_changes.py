import hashlib
import json
import os
import pty
import subprocess
from pathlib import Path

import pytest
from fakes import programs as fake
from fakes.gguf_file import write_dense

from localseek.store import pulled
from localseek.store.pulled import Pulled


@pytest.fixture
def models(run_cli, home: Path) -> Path:
    (home / "user").mkdir()
    return home / "models"


def test_rename_gives_a_model_another_name_and_says_what_it_answers_to(run_cli, models):
    outcome = run_cli("models", "rename", "tiny:q8_0", "问答")
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == f"{models}/问答.gguf\nIt answers to 问答:q8_0 now.\n"
    assert run_cli("ask", "-q", "-m", "问答", "say one").out == "one\n"
    done = json.loads(run_cli("models", "rename", "问答", "tiny", "--json").out)
    assert done == {"path": f"{models}/tiny.gguf", "name": "tiny", "short_name": "tiny:q8_0"}


def test_a_model_is_renamed_by_the_path_of_its_file_too(run_cli, models):
    assert run_cli("models", "rename", str(models / "tiny.gguf"), "small").status == 0
    assert (models / "small.gguf").is_file()


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("tiny", "../out"), 2, "'../out' cannot be a model's name: '/' cannot stand in it."),
        (("tiny", "nano"), 2, "that is the embedded model's"),
        (("nano", "mine"), 1, "nano was not prepared yet: there is no file."),
        (("tiny", "other"), 1, "other.gguf. Take another name."),
        (("gone", "new"), 1, "There is no model 'gone'"),
        (("phi:3b", "new"), 1,
         "phi:q8_0 belongs to Ollama; only the library's models can be renamed here."),
    ],
)  # fmt: skip
def test_what_cannot_be_renamed_is_one_line(run_cli, models, home, words, status, says):
    (models / "folder").mkdir()
    write_dense(models / "folder" / "other.gguf")
    fake.ollama(home / "user/ollama", "phi", "3b", **{"general.name": "Phi"})
    before = sorted(home.glob("models/**/*.gguf"))
    outcome = run_cli("models", "rename", *words)
    assert outcome.status == status and says in outcome.err and outcome.err.count("\n") == 1
    assert sorted(home.glob("models/**/*.gguf")) == before


def test_a_file_outside_of_the_library_is_neither_renamed_nor_removed(run_cli, models, tmp_path):
    path = write_dense(tmp_path / "mine.gguf")
    for words in (("rename", str(path), "new"), ("remove", "--yes", str(path))):
        outcome = run_cli("models", *words)
        assert outcome.status == 1 and f"{path} is not in the library" in outcome.err
    assert path.is_file()


def test_remove_tells_what_is_free_then(run_cli, models):
    parts = fake.split(models / "owner", "big", 3)
    size = sum(part.stat().st_size for part in parts)
    outcome = run_cli("models", "remove", "--yes", "big", "tiny", "big:q8_0", "--json")
    assert outcome.status == 0
    found = json.loads(outcome.out)
    assert found["removed"] == [*map(str, parts), str(models / "tiny.gguf")]
    assert found["freed_bytes"] > size and list(models.iterdir()) == []


def test_a_model_without_some_of_its_parts_can_be_removed(run_cli, models):
    parts = fake.split(models, "big", 3)
    parts[1].unlink()
    outcome = run_cli("models", "remove", "--yes", "big")
    assert outcome.out == "Removed: big:q8_0; 12.9 kB are free.\n"
    assert [path.name for path in models.glob("*.gguf")] == ["tiny.gguf"]


def test_a_damaged_file_can_be_removed_by_its_name(run_cli, models):
    (models / "broken.gguf").write_bytes(b"GGUF")
    assert run_cli("models", "remove", "--yes", "broken").status == 0
    assert not (models / "broken.gguf").exists()


def test_nothing_is_removed_unasked_or_when_one_name_is_wrong(run_cli, models):
    outcome = run_cli("models", "remove", "tiny")
    assert outcome.status == 2
    assert outcome.err == (
        "localseek: Nothing was removed: there is no terminal to ask on. --yes removes unasked.\n"
    )
    assert run_cli("models", "remove", "--yes", "tiny", "gone").status == 1
    assert (models / "tiny.gguf").is_file()


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (lambda user: fake.hub(user, "org/repo", "m-Q8_0.gguf"),
         "m:q8_0 belongs to Hugging Face; only the library's models can be removed here. "
         "There: hf cache rm model/org/repo"),
        (lambda user: fake.lm_studio(user, "pub/repo/m-Q8_0.gguf"),
         "There: remove it under My Models in LM Studio"),
        (lambda user: fake.ollama(user / "ollama", "x", "1b", **{"general.name": "m"}),
         "There: ollama rm x:1b"),
        (lambda user: fake.llama_cpp(user, "m-Q8_0.gguf"), "There: rm "),
    ],
)  # fmt: skip
def test_another_programs_model_is_left_to_its_command(run_cli, models, home, place, says):
    path = place(home / "user")
    outcome = run_cli("models", "remove", "--yes", "m")
    assert outcome.status == 1 and says in outcome.err and outcome.err.count("\n") == 1
    assert path.is_file()


@pytest.mark.parametrize(("typed", "goes"), [("y", True), ("n", False), ("", False)])
def test_a_terminal_is_asked(environment, command, home, typed, goes):
    main, terminal = pty.openpty()
    words = [*command, "models", "remove", "tiny"]
    process = subprocess.Popen(
        words, env={**environment, "NO_COLOR": "1"}, stdin=terminal, stdout=terminal,
        stderr=terminal, close_fds=True,
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    while b"[y/N] " not in shown:
        shown += os.read(main, 1000)
    os.write(main, typed.encode() + b"\n" if typed else b"\x04")
    while True:
        try:
            piece = os.read(main, 1000)
        except OSError:  # Linux says so when the last writer has left
            break
        if not piece:
            break
        shown += piece
    assert process.wait() == (0 if goes else 1)
    os.close(main)
    assert b"tiny:q8_0: " in shown and b"frees 13.0 kB" in shown
    assert (b"Removed: tiny:q8_0; 13.0 kB are free." in shown) == goes
    assert (home / "models" / "tiny.gguf").exists() != goes


def test_a_model_in_use_says_that_its_memory_is_free_later(run_cli, models):
    import mmap

    path = models / "tiny.gguf"
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        outcome = run_cli("models", "remove", "--yes", "tiny")
    words = f"tiny:q8_0 is in use by process {os.getpid()}: its memory on the disk is free when"
    assert outcome.status == 0 and words in outcome.err and not path.exists()


def test_a_link_is_removed_and_what_it_leads_to_stays(run_cli, models, tmp_path):
    path = write_dense(tmp_path / "mine.gguf")
    (models / "link.gguf").symlink_to(path)
    outcome = run_cli("models", "remove", "--yes", "link")
    assert outcome.out == "Removed: link:q8_0; 0 B are free." + "\n" and path.is_file()


def sums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.glob("*.gguf")}  # fmt: skip


def test_verify_compares_the_checksums_of_a_download(run_cli, models, nano_gguf):
    folder = models / "owner" / "repo"
    folder.mkdir(parents=True)
    path = folder / "m.gguf"
    path.write_bytes(nano_gguf.read_bytes())
    pulled.record(folder, Pulled("owner/repo", "c0ffee", "", sums(folder)))
    outcome = run_cli("models", "verify", "m")
    lines = outcome.out.splitlines()
    assert outcome.status == 0 and lines[0] == "SHA-256: the file is what owner/repo published"
    assert "sound, 92 tensors read" in lines[-1]
    data = bytearray(path.read_bytes())
    data[-5000] ^= 1
    path.write_bytes(data)
    damaged = run_cli("models", "verify", "m")
    assert damaged.status == 1 and damaged.out.startswith(
        f"problem: {path} is not what was published: its SHA-256 is {sums(folder)['m.gguf']}, not "
    )
    assert damaged.out.endswith("Delete it and run: localseek pull owner/repo\n")
    found = json.loads(run_cli("models", "verify", "m", "--json").out)
    assert found["sound"] is False and found["checksums"][0]["same"] is False


def test_verify_names_each_damaged_part(run_cli, models):
    parts = fake.split(models / "repo", "big", 3)
    pulled.record(parts[0].parent, Pulled("o/r", "c", "", sums(parts[0].parent)))
    parts[1].write_bytes(parts[1].read_bytes()[:-1] + b"x")
    outcome = run_cli("models", "verify", "big")
    assert outcome.status == 1 and outcome.out.count("problem: ") == 1
    assert str(parts[1]) in outcome.out


def test_a_download_without_checksums_is_verified_as_any_file(run_cli, models, nano_gguf):
    (models / "m.gguf").symlink_to(nano_gguf)
    pulled.record(models, Pulled("o/r", "c", "", {"m.gguf": ""}))
    outcome = run_cli("models", "verify", "m")
    assert outcome.status == 0 and "SHA-256" not in outcome.out
