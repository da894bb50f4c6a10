import subprocess

import checkpoints
import pytest
from test_pull_stopped import until

from converters import ConvertOptions, convert

NAME = "deepseek-ai/V3"
COUNT = 5


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return checkpoints.make_v3(tmp_path_factory.mktemp("whole") / "V3", shards=COUNT)


@pytest.fixture
def served(serve, checkpoint):
    return serve({NAME: {path.name: path.read_bytes() for path in checkpoint.iterdir()}})


@pytest.fixture
def expected(checkpoint, tmp_path):
    convert(checkpoint, tmp_path / "whole.gguf", ConvertOptions(type="Q4_K_M"))
    return (tmp_path / "whole.gguf").read_bytes()


FREE = (NAME, "--convert", "Q4_K_M", "--free-source")


def test_a_freed_checkpoint_gives_the_same_file(served, run_cli, home, expected):
    done = run_cli("pull", *FREE)
    assert done.status == 0, done.err
    assert (home / "models" / "V3-Q4_K_M.gguf").read_bytes() == expected
    assert not list((home / "checkpoints").rglob("*.safetensors"))


def test_a_killed_pull_that_frees_goes_on_to_the_same_file(served, pull_command, home, expected):
    folder = home / "checkpoints" / NAME
    third = f"model-00003-of-{COUNT:05}.safetensors"
    served.faults.bytes_per_s = 10_000_000
    process = subprocess.Popen(**pull_command(served, *FREE))
    until(lambda: len(served.downloads(third)) > 1, process)  # the first is for its table
    assert len(list(folder.glob("*.safetensors"))) <= 2
    process.kill()
    process.communicate()
    served.faults.bytes_per_s = 0
    done = subprocess.run(**pull_command(served, *FREE), check=False)
    assert done.returncode == 0, done.stderr
    assert "Going on where it stopped, at " in done.stderr
    assert (home / "models" / "V3-Q4_K_M.gguf").read_bytes() == expected
    assert not list(folder.glob("*.safetensors"))
