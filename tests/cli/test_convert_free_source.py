import io
import sys
from pathlib import Path

import checkpoints
import pytest

from localseek.commands import convert as verb
from localseek.terminal import messages


@pytest.fixture
def source(tmp_path: Path) -> Path:
    dims = checkpoints.Dims(
        hidden_size=32, intermediate_size=32, moe_intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, n_routed_experts=8, num_experts_per_tok=2, q_lora_rank=32,
        kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16,
    )  # fmt: skip
    return checkpoints.make_v3(tmp_path / "深度求索 🐋", dims, shards=3)


def shards(source: Path) -> int:
    return len(list(source.glob("*.safetensors")))


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    real = verb._confirm

    def confirm(arguments):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO(answer))
            patch.setattr(verb, "is_terminal", lambda _: True)
            patch.setattr(messages, "is_terminal", lambda _: True)
            real(arguments)

    monkeypatch.setattr(verb, "_confirm", confirm)


def test_shards_are_removed_only_after_a_yes(run_cli, monkeypatch, source, tmp_path):
    out = tmp_path / "v3.gguf"
    for answer in ("n\n", "\n", ""):
        with monkeypatch.context() as patch:
            at_a_terminal(patch, answer)
            outcome = run_cli("convert", str(source), str(out), "--free-source")
        assert outcome.status == 1
        assert "localseek: Nothing was removed, nothing was written.\n" in outcome.err
        assert (shards(source), out.exists()) == (3, False)
    at_a_terminal(monkeypatch, "y\n")
    outcome = run_cli("convert", str(source), str(out), "--free-source")
    assert "Each shard is removed for good once it is converted: 3 shards, 188.0 kB, of" in (
        outcome.err
    )
    assert f"{out} is what remains of them." in outcome.err
    assert "Remove them? [y/N] " in outcome.err
    assert (outcome.status, shards(source), out.exists()) == (0, 0, True)


def test_where_nobody_can_be_asked_it_takes_a_yes_on_the_command_line(run_cli, source, tmp_path):
    out = tmp_path / "v3.gguf"
    outcome = run_cli("convert", str(source), str(out), "--free-source")
    assert (outcome.status, shards(source)) == (2, 3)
    assert outcome.err == (
        f"localseek: --free-source removes 3 shards, 188.0 kB, of {source}. Add --yes where nobody "
        "can be asked.\n"
    )
    outcome = run_cli("convert", str(source), str(out), "--free-source", "--yes")
    assert (outcome.status, outcome.err, shards(source)) == (0, "", 0)
    outcome = run_cli("convert", str(source), str(out), "--free-source", "--yes", "--force")
    assert (outcome.status, out.exists()) == (1, True)
    assert outcome.err == (
        f"localseek: --force begins again, but all shards of {source} are missing, only headers "
        "are there (model-00001-of-00003.safetensors first): leave it out, or download them.\n"
    )


def test_a_gguf_file_is_never_removed(run_cli, tmp_path, home):
    model = home / "models" / "tiny.gguf"
    words = ("convert", str(model), str(tmp_path / "out.gguf"), "--type", "Q8_0")
    outcome = run_cli(*words, "--free-source", "--yes")
    assert (outcome.status, model.exists()) == (2, True)
    assert outcome.err == (
        "localseek: --free-source removes the safetensors shards of a checkpoint: "
        f"{model} is a file.\n"
    )
