import json
from pathlib import Path

from localseek import nano


def test_nano_is_verified_against_its_checkpoint(run_cli, nano_gguf: Path):
    done = run_cli("models", "verify", str(nano_gguf), "--against", str(nano.CHECKPOINT))
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["TENSOR", "TYPE", "ERROR", "WORST", "BLOCK", "AT", "LARGEST"]
    assert "sound, 92 tensors read, 92 compared with" in lines[-1]


def test_damage_is_told_and_makes_the_exit_status_one(run_cli, tmp_path: Path, nano_gguf: Path):
    path = tmp_path / "damaged.gguf"
    data = bytearray(nano_gguf.read_bytes())
    data[-40_000:-20_000] = bytes(20_000)
    path.write_bytes(data)
    done = run_cli("models", "verify", str(path), "--against", str(nano.CHECKPOINT), "--json")
    found = json.loads(done.out)
    assert done.status == 1 and found["sound"] is False
    assert "off its source" in found["tensors"][0]["problems"][0]


def test_a_source_that_is_none_is_one_line(run_cli, tmp_path: Path, nano_gguf: Path):
    done = run_cli("models", "verify", str(nano_gguf), "--against", str(tmp_path))
    assert done.status == 1 and done.err.count("\n") == 1
