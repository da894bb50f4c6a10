import json
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes import hub

from converters import ConvertOptions, convert
from converters.errors import UnfinishedError
from localseek import nano
from localseek.errors import LocalseekError

NANO = {path.name: path.read_bytes() for path in sorted(nano.CHECKPOINT.iterdir())}
NAME = "deepseek-ai/Nano"
COUNT = 5


def shard_name(number):
    return f"model-{number:05}-of-{COUNT:05}.safetensors"


def shard(number):
    head = json.dumps({"x": {"dtype": "U8", "shape": [9000], "data_offsets": [0, 9000]}}).encode()
    return struct.pack("<Q", len(head)) + head + bytes([number]) * 9000


SHARDS = {shard_name(number): shard(number) for number in range(1, COUNT + 1)}
INDEX = {"weight_map": {f"t{n}": shard_name(n) for n in range(1, COUNT + 1)}}
SPLIT = {
    "config.json": b"{}", "model.safetensors.index.json": json.dumps(INDEX).encode(), **SHARDS,
}  # fmt: skip


class Conversion:
    """A conversion that takes shards as the real one does, and keeps a journal of what it made."""

    def __init__(self):
        self.most, self.orders, self.tables = 0, [], {}
        self.stop_after = None

    def __call__(self, source, target, _options, progress, _notice, shards):
        journal = target.with_name(f"{target.name}.partial.journal")
        done = json.loads(journal.read_bytes()) if journal.exists() else []
        for name, content in SHARDS.items():
            header = (source / f"{name}.header").read_bytes()
            size = 8 + struct.unpack("<Q", header[:8])[0]
            assert json.loads(header[size:]) == {
                "size_bytes": len(content), "identity": hub.lfs(content)["sha256"],
            }  # fmt: skip
            self.tables[name] = header[:size]
        left = [name for name in SHARDS if name not in done]
        self.orders.append(left)
        shards.order(left)
        progress(SimpleNamespace(
            done_bytes=len(done), total_bytes=COUNT, tensor="", elapsed_s=0.0, resumed_bytes=0
        ))  # fmt: skip
        for name in left:
            shards.take(name)
            self.most = max(self.most, len(list(source.glob("*.safetensors"))))
            with target.with_name(f"{target.name}.partial").open("ab") as out:
                out.write((source / name).read_bytes())
            done.append(name)
            journal.write_text(json.dumps(done))
            shards.give_back(name)
            if name == self.stop_after:
                raise UnfinishedError("the test stops here")
        target.with_name(f"{target.name}.partial").replace(target)
        journal.unlink()
        return SimpleNamespace(
            path=target, parts=(), architecture="fake", size_bytes=target.stat().st_size,
            tensors=COUNT, types={"U8": COUNT}, elapsed_s=0.1, warnings=(), fitted=None,
        )  # fmt: skip


@pytest.fixture
def conversion(monkeypatch):
    fake = Conversion()
    monkeypatch.setattr("converters.convert", fake)
    monkeypatch.setattr("converters.preview", lambda *_: SimpleNamespace(size_bytes=50_000))
    return fake


@pytest.fixture
def served(serve):
    return serve({NAME: NANO, "a/Split": SPLIT, "a/Bin": {
        "config.json": b"{}", "pytorch_model.bin": b"x",
    }})  # fmt: skip


FREE = ("pull", "a/Split", "--convert", "Q8_0", "--free-source")


def test_a_checkpoint_is_pulled_and_converted_into_the_library(served, run_cli, home, tmp_path):
    done = run_cli("pull", NAME, "--convert", "q8_0")
    assert done.status == 0, done.err
    made = home / "models" / "Nano-Q8_0.gguf"
    assert 'Next: localseek ask -m Nano-Q8_0 "Hello"' in done.out
    direct = tmp_path / "direct.gguf"
    convert(nano.CHECKPOINT, direct, ConvertOptions(type="Q8_0", name="Nano"))
    assert made.read_bytes() == direct.read_bytes()
    before = len(served.downloads())
    done = run_cli("pull", NAME, "--convert", "Q8_0", "--json")
    assert done.status == 0 and "was converted already" in done.err
    assert json.loads(done.out)["converted"] == {"path": str(made), "model": "Nano-Q8_0"}
    assert len(served.downloads()) == before


def test_a_finished_conversion_needs_neither_shards_nor_hub(served, conversion, run_cli):
    assert run_cli(*FREE).status == 0
    served.faults.down = True
    done = run_cli(*FREE)
    assert done.status == 0 and "was converted already" in done.err


def test_a_run_that_ended_just_after_the_file_got_its_name_is_finished(
    served, conversion, run_cli, monkeypatch
):
    from localseek.commands.library import pull_convert

    def full(*_):
        raise LocalseekError("the test ends it here")

    monkeypatch.setattr(pull_convert, "keep_record", full)
    assert run_cli(*FREE).status == 1
    done = run_cli(*FREE)
    assert done.status == 0 and "was converted already" in done.err
    assert len(conversion.orders) == 1


def test_shards_come_one_ahead_and_go_when_they_are_used_up(served, conversion, run_cli, home):
    done = run_cli(*FREE)
    assert done.status == 0, done.err
    made = home / "models" / "Split-Q8_0.gguf"
    assert made.read_bytes() == b"".join(SHARDS.values())
    folder = home / "checkpoints" / "a" / "Split"
    assert not list(folder.glob("*.safetensors")) and not list(folder.rglob("*.part"))
    assert conversion.most <= 2
    # One request for each table of tensors, and one for each shard.
    assert len(served.downloads()) == 2 * COUNT
    record = json.loads((folder / ".localseek-pull.json").read_bytes())
    assert set(record["files"]) == {"config.json", "model.safetensors.index.json"}


def test_a_conversion_that_was_stopped_goes_on_with_the_shards_that_are_left(
    served, conversion, run_cli, home
):
    conversion.stop_after = shard_name(2)
    done = run_cli(*FREE)
    assert done.status == 1 and done.err.endswith("localseek: the test stops here.\n")
    conversion.stop_after = None
    assert run_cli(*FREE).status == 0
    assert conversion.orders[1] == [shard_name(n) for n in (3, 4, 5)]
    made = home / "models" / "Split-Q8_0.gguf"
    assert made.read_bytes() == b"".join(SHARDS.values())
    whole = [one for one in served.downloads(shard_name(1)) if one.method == "GET"]
    assert len(whole) == 2  # its table, and itself once


def test_a_shard_that_stays_wrong_ends_it_with_what_is_done_kept(
    served, conversion, run_cli, home
):
    served.faults.wrong[shard_name(3)] = 3  # its table is read from it as well
    done = run_cli(*FREE)
    assert done.status == 1
    assert f"{shard_name(3)} came twice with a wrong checksum" in done.err.splitlines()[-1]
    assert run_cli(*FREE).status == 0
    assert (home / "models" / "Split-Q8_0.gguf").read_bytes() == b"".join(SHARDS.values())


def test_a_table_that_came_damaged_is_found_out_and_read_anew(
    served, conversion, run_cli, home
):
    served.faults.wrong[shard_name(2)], served.faults.wrong_at = 1, 10
    done = run_cli(*FREE)
    assert done.status == 1
    assert f"The table of {shard_name(2)} came damaged" in done.err.splitlines()[-1]
    assert conversion.tables[shard_name(2)] != SHARDS[shard_name(2)][:66]
    assert run_cli(*FREE).status == 0
    assert conversion.tables == {name: content[:-9000] for name, content in SHARDS.items()}
    assert (home / "models" / "Split-Q8_0.gguf").read_bytes() == b"".join(SHARDS.values())


def test_output_and_two_shards_must_fit(served, conversion, run_cli, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=60_000))
    done = run_cli(*FREE)
    assert done.status == 1 and conversion.orders == []
    last = done.err.splitlines()[-1]
    assert "Split-Q8_0.gguf with two shards beside it takes 68.1 kB more" in last
    assert "--to or --out" in last


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("a/Bin", "--free-source"), 2, "has its weights in .bin files"),
        ((NAME, "--out", "/nowhere/x.gguf"), 2, "/nowhere is not a folder. Create it first."),
        ((NAME, "--type", "Q8_0"), 2, "--convert takes a whole checkpoint"),
    ],
)
def test_what_cannot_be_converted_is_refused_before_any_download(
    served, run_cli, words, status, message
):
    done = run_cli("pull", *words, "--convert", "Q8_0")
    assert done.status == status and message in done.err.splitlines()[-1]
    assert served.downloads() == []


def test_a_file_of_the_users_is_not_replaced(served, run_cli, tmp_path):
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(b"mine")
    done = run_cli("pull", NAME, "--convert", "Q8_0", "--out", str(mine))
    assert done.status == 2 and f"{mine} exists already" in done.err
    assert Path(mine).read_bytes() == b"mine" and served.downloads() == []
