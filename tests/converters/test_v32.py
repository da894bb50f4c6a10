from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import checkpoints
import checkpoints_v32
import numpy as np
import pytest

from converters import ConvertOptions, audit, convert
from converters.errors import ConvertError
from converters.families import deepseek_v32
from converters.layout import Target
from converters.planning.plan import make_plan
from converters.source.checkpoint import Checkpoint
from converters.source.config import Config
from localseek import Engine
from localseek.events import AnswerDelta, Finished, ReasoningDelta
from localseek.gguf.info import read_info
from localseek.gguf.runnable import check_runnable
from localseek.options import LoadOptions, Message, Request, Sampling

HERE = Path(__file__).parent
TYPES = json.loads((HERE / "golden_types_v32_v4.json").read_text())
LOGITS = np.load(HERE / "golden_v32_v4.npz")
CONFIG = checkpoints_v32.v32_config(checkpoints.Dims())


class Released:
    """A checkpoint as far as a family's description looks at one: it has an MTP layer."""

    tensors = {"model.layers.61.eh_proj.weight": None}


@pytest.fixture(scope="module")
def v32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints_v32.make_v32(tmp_path_factory.mktemp("v32") / "v32-fp8")


@pytest.fixture(scope="module")
def v32_gguf(v32: Path) -> Path:
    convert(v32, v32.with_suffix(".gguf"), ConvertOptions(type="F32", threads=1))
    return v32.with_suffix(".gguf")


def test_logits_of_trunk_and_mtp_layer_are_those_of_transformers(
    v32_gguf: Path, tmp_path: Path
) -> None:
    tokens = ",".join(map(str, LOGITS["v32-fp8.tokens"]))
    command = [sys.executable, str(HERE / "llama_logits.py"), str(v32_gguf)]
    subprocess.run([*command, str(tmp_path / "o.npz"), tokens], check=True, capture_output=True)
    found = np.load(tmp_path / "o.npz")
    for key in ("logits", "mtp_logits"):
        expected = LOGITS[f"v32-fp8.{key}"]
        np.testing.assert_allclose(found[key][2::4], expected, atol=1e-4, rtol=0)


def test_types_are_those_of_llama_quantize(v32: Path) -> None:
    for kind, expected in TYPES["v32-fp8"].items():
        with Checkpoint(v32) as checkpoint:
            plan = make_plan(checkpoint, kind)
        trunk = [one for one in plan.tensors if not one.name.startswith("blk.3.")]
        found = {one.name: one.kind.name for one in trunk if one.kind.name != "F32"}
        assert found == {
            name: kind for name, kind in expected.items() if not name.startswith("blk.3.")
        }


def test_norms_and_the_weights_of_indexer_heads_stay_in_f32(v32: Path) -> None:
    with Checkpoint(v32) as checkpoint:
        kinds = {one.name: one.kind.name for one in make_plan(checkpoint, "Q8_0").tensors}
    for part in ("k_norm.weight", "k_norm.bias", "proj.weight"):
        assert {kinds[f"blk.{layer}.indexer.{part}"] for layer in range(4)} == {"F32"}
    assert kinds["blk.0.indexer.attn_k.weight"] == "Q8_0"


def test_text_is_the_same_with_and_without_drafts(v32_gguf: Path, home: Path) -> None:
    check_runnable(read_info(v32_gguf))
    texts, drafted = [], 0
    for mtp in ("off", 1, 3):
        options = LoadOptions(str(v32_gguf), mtp=mtp, threads=1, ctx=256)
        with Engine.of(options) as engine:
            assert engine.load().drafting == (mtp != "off")
            request = Request(
                (Message("user", "in the end, on a thin line"),),
                sampling=Sampling(temperature=0.0),
                max_tokens=40,
            )
            events = list(engine.generate(request))
        assert isinstance(events[-1], Finished), events[-1]
        draft = events[-1].stats.draft
        drafted += draft.drafted if draft else 0
        texts.append([e.text for e in events if isinstance(e, AnswerDelta | ReasoningDelta)])
    assert drafted > 0
    assert "".join(texts[0]) == "".join(texts[1]) == "".join(texts[2]) != ""


@pytest.mark.parametrize("mtp", ["keep", "drop"])
def test_a_file_is_verified_against_its_checkpoint(
    v32: Path, tmp_path: Path, mtp: Literal["keep", "drop"]
) -> None:
    path = tmp_path / "out.gguf"
    convert(v32, path, ConvertOptions(type="Q4_K_M", mtp=mtp, threads=1))
    found = audit(path, v32, threads=1)
    assert found.sound, [one for one in found.tensors if one.problems]
    assert all(one.rmse is not None for one in found.tensors)
    assert any("indexer.attn_q_b" in one.name for one in found.tensors)


def test_real_dimensions_give_a_tensor_for_every_part_that_the_loader_asks_for() -> None:
    changes = {"num_hidden_layers": 61, "first_k_dense_replace": 3, "n_routed_experts": 8}
    # V3's tensors (deepseek.md 5A) and five of the indexer a layer.
    for mtp, count in ((False, 1086 + 5 * 61), (True, 1108 + 5 * 62)):
        found = deepseek_v32.tensors(Config(CONFIG | changes), Released(), mtp)  # type: ignore[arg-type]
        names = [one.name for one in found if isinstance(one, Target)]
        assert len(names) == len(set(names)) == count


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"index_head_dim": 96}, "index_head_dim 96 is not supported"),
        ({"index_head_dim": 32}, "index_head_dim 32 is not supported"),
        ({"index_topk": None}, "lacks index_topk"),
        ({"q_lora_rank": None}, "lacks q_lora_rank"),
        ({"scoring_func": "softmax"}, "scoring_func 'softmax' is not supported"),
    ],
)
def test_a_config_that_the_runtime_would_not_run_is_refused_by_name(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConvertError) as caught:
        deepseek_v32.metadata(Config(CONFIG | changes), Released(), False)  # type: ignore[arg-type]
    assert message in str(caught.value)
