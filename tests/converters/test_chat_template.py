from __future__ import annotations

from pathlib import Path

import checkpoints_v4
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from converters.metadata.chat_template import known_template, missing_template
from converters.planning.plan import make_plan
from converters.source.checkpoint import Checkpoint

CHAT = [
    {"role": "system", "content": "S1"},
    {"role": "system", "content": "S2"},
    {"role": "user", "content": "U1"},
    {"role": "assistant", "content": "A1"},
    {"role": "user", "content": "U2"},
]


@pytest.mark.parametrize(("thinking", "end"), [(None, "</think>"), (True, "<think>")])
def test_a_chat_is_laid_out_as_the_release_describes_it(thinking: bool | None, end: str) -> None:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    switch = {} if thinking is None else {"thinking": thinking}
    text = environment.from_string(known_template("deepseek4", "V4")).render(
        messages=CHAT, bos_token="<BOS>", add_generation_prompt=True, **switch
    )
    assert text == (
        "<BOS>S1\n\nS2<｜User｜>U1<｜Assistant｜></think>A1<｜end▁of▁sentence｜>"
        f"<｜User｜>U2<｜Assistant｜>{end}"
    )


def test_v4_gets_ours_and_says_so(tmp_path: Path) -> None:
    dims = checkpoints_v4.Dims(compress_ratios=(0, 0))
    with Checkpoint(checkpoints_v4.make_v4(tmp_path / "v4", dims, mtp=False)) as checkpoint:
        plan = make_plan(checkpoint, "Q8_0")
    assert plan.metadata["tokenizer.chat_template"] == known_template("deepseek4", "v4")
    assert "localseek.chat_template" in plan.metadata
    assert plan.metadata["localseek.notes"] == plan.warnings
    assert "ours is written" in plan.warnings[0]


def test_a_template_of_the_checkpoint_is_kept_and_missing_tokens_are_named() -> None:
    assert not missing_template("deepseek4", "V4", {"tokenizer.chat_template": "x"}).values
    assert not missing_template("deepseek2", "V3", {}).warnings
    without = missing_template("deepseek32", "V3.2", {"tokenizer.ggml.tokens": ("a", "b")})
    assert not without.values
    assert "nor the token" in without.warnings[0]
