"""Which of llama.cpp's orders of weights are used; each test in a process of its own."""

import subprocess
import sys

import pytest

from converters import ConvertOptions, convert
from localseek import nano

REPACK, AMX = "CPU_REPACK", "AMX"
LOADED = """
import os, sys
from localseek.engine.llama import Model, backend
from localseek.engine.llama.devices import leave_out
backend.start_backend()
for kind in sys.argv[2:]:
    leave_out(kind.encode())
    leave_out(kind.encode())
Model(sys.argv[1], load_mtp=False).close()
"""


def orders(path, *left_out):
    """Load a model in a new process; give the log's lines on its weights."""
    command = [sys.executable, "-c", LOADED, str(path), *left_out]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    log = done.stderr.decode(errors="replace").splitlines()
    return [line for line in log if "model buffer size" in line]


def test_weights_are_never_kept_for_amx_tiles(nano_gguf):
    assert orders(nano_gguf)
    assert not any(AMX in line for line in orders(nano_gguf))


def test_what_is_left_out_is_not_used_and_the_rest_is(q4_0):
    if not any(REPACK in line for line in orders(q4_0)):
        pytest.skip("this build repacks no weights")
    left = orders(q4_0, REPACK)
    assert left and not any(REPACK in line for line in left)


@pytest.fixture(scope="module")
def q4_0(nano_gguf, tmp_path_factory):
    """A model of the type that is repacked on most processors."""
    path = tmp_path_factory.mktemp("q4_0") / "nano.gguf"
    convert(nano.CHECKPOINT, path, ConvertOptions(type="Q4_0"))
    return path
