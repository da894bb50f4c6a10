import json

import pytest
from fakes import gguf_file, hub

GIB = 2**30
REPOSITORIES = {
    "deepseek-ai/Tiny": {
        "config.json": b'{"architectures": ["X"]}',
        "model-00001-of-00002.safetensors": b"a" * 3000,
        "model-00002-of-00002.safetensors": b"b" * 2000,
        "tokenizer.json": b"{}",
        "pytorch_model.bin": b"c" * 9000,
        "onnx/model.json": b"no",
        "modeling.py": b"print('never run')",
        "LICENSE": b"as you like",
    },
    "deepseek-ai/Early": {
        "config.json": b"{}", "pytorch_model-00001-of-00001.bin": b"a" * 100,
        "pytorch_model.bin.index.json": json.dumps(
            {"weight_map": {"x": "pytorch_model-00001-of-00001.bin"}}
        ).encode(),
        "training_args.bin": b"no",
    },
    "someone/Tiny-GGUF": {
        "tiny-Q4_K_M.gguf": b"GGUF4", "tiny-Q8_0.gguf": b"GGUF8", "README.md": b"",
        "mmproj-F16.gguf": b"eyes",
    },
    "someone/Split-GGUF": {
        "big-00001-of-00002.gguf": b"GGUF1", "big-00002-of-00002.gguf": b"GGUF2",
    },
    "another/Split-GGUF": {
        "big-00001-of-00002.gguf": b"other", "big-00002-of-00002.gguf": b"again",
    },
    "someone/Dated-GGUF": {"m-05-01-Q4.gguf": b"GGUF4", "m-05-01-Q8.gguf": b"GGUF8"},
    "someone/Text": {"README.md": b"hello"},
    "someone/Lacking-GGUF": {"big-00001-of-00003.gguf": b"GGUF1"},
    "someone/Climbing-GGUF": {"../../up-Q8_0.gguf": b"no"},
}  # fmt: skip
CARDS = {
    "deepseek-ai/Tiny": {"license": "mit"},
    "deepseek-ai/Early": {
        "license": "other", "license_name": "deepseek", "license_link": "LICENSE-MODEL",
    },
}  # fmt: skip


@pytest.fixture
def served(serve, machine):
    return serve(REPOSITORIES, cards=CARDS)


def test_a_checkpoint_comes_without_what_localseek_does_not_read(served, run_cli, home):
    done = run_cli("pull", "deepseek-ai/Tiny")
    assert done.status == 0, done.err
    folder = home / "checkpoints" / "deepseek-ai" / "Tiny"
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {f for f in files if not f.startswith(".localseek")} == {
        "config.json", "tokenizer.json", "LICENSE",
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    }  # fmt: skip
    assert (folder / "model-00002-of-00002.safetensors").read_bytes() == b"b" * 2000
    assert f"localseek convert {folder}" in done.out
    assert "checkpoint, 5 files, 5.0 kB\nLicence: mit\n" in done.err


def test_an_early_checkpoint_comes_as_pytorch_files(served, run_cli, home):
    done = run_cli("pull", "deepseek-ai/Early")
    assert done.status == 0, done.err
    folder = home / "checkpoints" / "deepseek-ai" / "Early"
    assert {p.name for p in folder.glob("[!.]*") if p.is_file()} == {
        "config.json", "pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json",
    }  # fmt: skip


def test_what_came_is_recorded_with_licence_and_checksums(served, run_cli, home):
    assert run_cli("pull", "deepseek-ai/Early").status == 0
    folder = home / "checkpoints" / "deepseek-ai" / "Early"
    found = json.loads((folder / ".localseek-pull.json").read_bytes())
    page = f"{served.address}/deepseek-ai/Early/blob/{hub.COMMIT}/LICENSE-MODEL"
    assert found["repository"] == "deepseek-ai/Early" and found["commit"] == hub.COMMIT
    assert found["licence"] == f"deepseek ({page})"
    assert found["files"]["pytorch_model-00001-of-00001.bin"] == hub.lfs(b"a" * 100)["sha256"]
    assert found["files"]["config.json"] == hub.lfs(b"{}")["sha256"]


def test_a_second_pull_downloads_nothing_again(served, run_cli, home):
    run_cli("pull", "deepseek-ai/Tiny")
    before = len(served.downloads())
    done = run_cli("pull", "deepseek-ai/Tiny")
    assert done.status == 0 and "Everything is here already." in done.err
    assert len(served.downloads()) == before == 2


def test_one_of_several_gguf_files_must_be_chosen(served, run_cli, home):
    done = run_cli("pull", "someone/Tiny-GGUF")
    assert done.status == 2
    assert done.err.splitlines()[:3] == [
        "TYPE    FILE              SIZE  FITS",
        "Q4_K_M  tiny-Q4_K_M.gguf   5 B   yes",
        "Q8_0    tiny-Q8_0.gguf     5 B   yes",
    ]
    assert done.err.splitlines()[-1] == (
        "localseek: someone/Tiny-GGUF holds 2 models. Write which, such as "
        "localseek pull someone/Tiny-GGUF:Q4_K_M, or --fit for the best that fits here."
    )
    assert not (home / "models" / "someone").exists()


@pytest.mark.parametrize(
    "words",
    [("someone/Tiny-GGUF:q4_k_m",), ("someone/Tiny-GGUF", "--type", "q4_K_m"),
     ("someone/Tiny-GGUF", "--file", "*Q4*")],
)  # fmt: skip
def test_one_is_chosen_by_type_in_any_case_or_by_name(served, run_cli, home, words):
    done = run_cli("pull", *words)
    assert done.status == 0, done.err
    folder = home / "models" / "someone" / "Tiny-GGUF"
    assert [p.name for p in folder.glob("*.gguf")] == ["tiny-Q4_K_M.gguf"]
    assert "localseek ask -m someone/Tiny-GGUF/tiny-Q4_K_M" in done.out


def test_a_second_type_joins_the_first_and_its_record(served, run_cli, home):
    for kind in ("Q4_K_M", "Q8_0"):
        assert run_cli("pull", "someone/Tiny-GGUF", "--type", kind).status == 0
    record = home / "models" / "someone" / "Tiny-GGUF" / ".localseek-pull.json"
    assert set(json.loads(record.read_bytes())["files"]) == {"tiny-Q4_K_M.gguf", "tiny-Q8_0.gguf"}


def test_numbers_in_names_do_not_make_two_models_one(served, run_cli):
    done = run_cli("pull", "someone/Dated-GGUF")
    assert done.status == 2 and "holds 2 models" in done.err


def test_repositories_of_two_owners_do_not_mix(served, run_cli, home):
    for owner in ("someone", "another"):
        assert run_cli("pull", f"{owner}/Split-GGUF").status == 0
    for owner, content in (("someone", b"GGUF1"), ("another", b"other")):
        file = home / "models" / owner / "Split-GGUF" / "big-00001-of-00002.gguf"
        assert file.read_bytes() == content


def test_the_parts_of_a_split_model_come_together(served, run_cli):
    done = run_cli("pull", "someone/Split-GGUF", "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert found["files"] == ["big-00001-of-00002.gguf", "big-00002-of-00002.gguf"]
    assert found["models"] == ["someone/Split-GGUF/big-00001-of-00002"]


def test_a_dry_run_downloads_nothing(served, run_cli, home):
    done = run_cli("pull", "deepseek-ai/Tiny", "--dry-run")
    assert done.status == 0 and "config.json" in done.out.splitlines()
    assert not (home / "checkpoints").exists()


def test_a_dry_run_lists_the_models_of_a_repository(served, run_cli, machine, home):
    done = run_cli("pull", "someone/Tiny-GGUF", "--dry-run")
    assert done.status == 0 and "Q4_K_M  tiny-Q4_K_M.gguf   5 B   yes" in done.out
    done = run_cli("pull", "someone/Tiny-GGUF", "--dry-run", "--json")
    assert [one["type"] for one in json.loads(done.out)] == ["Q4_K_M", "Q8_0"]
    assert not (home / "models" / "someone").exists()


def test_files_go_to_another_folder_if_one_is_named(served, run_cli, tmp_path, home):
    folder = tmp_path / "模型 🐳"
    done = run_cli("pull", "someone/Tiny-GGUF:Q8_0", "--to", str(folder))
    assert done.status == 0, done.err
    assert (folder / "tiny-Q8_0.gguf").read_bytes() == b"GGUF8"
    assert f"ask -m {folder / 'tiny-Q8_0.gguf'}" in done.out
    assert not (home / "models" / "someone").exists()


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("deepseek-ai/Nothing",), 1, "no repository deepseek-ai/Nothing"),
        (("someone/Text",), 1, "nothing that localseek can use"),
        (("deepseek-ai/Tiny", "--file", "*.zip"), 1, "matches *.zip"),
        (("no name",), 2, "not a repository name"),
        (("someone/Tiny-GGUF:Q2_K",), 2, "holds no Q2_K. It has: Q4_K_M (5 B), Q8_0 (5 B)."),
        (("someone/Tiny-GGUF:Q2_K", "--type", "Q8_0"), 2, "give the type once"),
        (("someone/Lacking-GGUF",), 1, "lacks 2 of 3 parts of big"),
        (("someone/Climbing-GGUF",), 1, "'../../up-Q8_0.gguf', which is not safe to write"),
        (("deepseek-ai/Tiny", "--revision", "v9"), 1, "has no such revision"),
        (("deepseek-ai/Tiny", "--free-source"), 2, "--free-source is for --convert"),
        (("deepseek-ai/Tiny", "--convert", "Q99"), 2, "There is no type Q99"),
        (("someone/Tiny-GGUF", "--convert", "Q8_0"), 2, "holds no checkpoint to convert"),
    ],
)
def test_what_cannot_be_downloaded_is_one_line(served, run_cli, words, status, message):
    done = run_cli("pull", *words)
    assert done.status == status
    assert message in done.err
    assert done.err.startswith("localseek: ") and done.err.count("\n") == 1


def sized(kind, megabytes):
    """A model with weights of so many megabytes, all zeros, which the fake hub makes up."""
    rows = megabytes * 10**6 // (64 // 32 * 34)
    tensors = [("token_embd.weight", (64, rows), 8), ("blk.0.attn_norm.weight", (64,), 0)]
    return gguf_file.build({**gguf_file.DENSE, "general.file_type": kind}, tensors)


def test_fit_takes_the_largest_that_fits_planned_with_its_own_head(serve, machine, run_cli, home):
    files = {
        "m-Q4_K_M.gguf": sized(15, 3), "m-Q6_K.gguf": sized(18, 6), "m-Q8_0.gguf": sized(7, 9),
        "m-BF16.gguf": sized(32, 4),
    }  # fmt: skip
    served = serve({"a/m-GGUF": files})
    for ram, chosen in ((10**12, "Q8_0"), (10**6, "")):
        machine(ram)
        done = run_cli("pull", "a/m-GGUF", "--fit", "--to", str(home / f"to-{ram}"))
        assert done.status == (0 if chosen else 1), done.err
        words = f"{chosen} is the best that fits: takes " if chosen else "None of the 4"
        assert words in done.err
    assert "--type Q4_K_M takes it all the same" in done.err
    first, *later = served.downloads("m-Q8_0.gguf")
    assert first.range == "bytes=0-1048575" and [one.range for one in later] == [""]
