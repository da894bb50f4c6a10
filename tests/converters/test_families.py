from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from gguf import GGUFReader

from converters import ConvertOptions, convert
from converters.errors import ConvertError
from converters.families import deepseek_v2, deepseek_v3, find_family
from converters.layout import Described
from converters.metadata.sampling import sampling_metadata
from converters.metadata.tokenizer import tokenizer_metadata
from converters.planning.plan import make_plan
from converters.source.checkpoint import Checkpoint
from converters.source.config import Config

V3 = checkpoints.v3_config(checkpoints.Dims())


class NoTensors:
    """A checkpoint as far as metadata() looks at one."""

    tensors: dict[str, None] = {}


def v3_metadata(**changes: Any) -> Described:
    return deepseek_v3.metadata(Config(V3 | changes), NoTensors(), False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("n_group", "topk_group", "written", "warned"),
    [
        (4, 2, (4, 2), False),
        (4, 4, None, False),  # llama.cpp aborts on this one, which limits nothing anyway
        (1, 1, None, False),
        (16, 8, None, True),  # one expert a group
        (3, 2, None, True),  # 16 experts do not divide
    ],
)
def test_expert_groups_are_written_only_where_the_runtime_takes_them(
    n_group: int, topk_group: int, written: tuple[int, int] | None, warned: bool
) -> None:
    described = v3_metadata(n_group=n_group, topk_group=topk_group)
    keys = ("expert_group_count", "expert_group_used_count")
    found = tuple(described.values[key] for key in keys if key in described.values)
    assert (found or None) == written
    assert bool(described.warnings) == warned


def test_group_limited_greedy_routing_warns() -> None:
    config = V3 | {
        "architectures": ["DeepseekV2ForCausalLM"], "scoring_func": "softmax",
        "norm_topk_prob": False, "topk_method": "group_limited_greedy",
    }  # fmt: skip
    family = find_family(Config(config))
    assert family.ARCHITECTURES == deepseek_v2.ARCHITECTURES
    described = family.metadata(Config(config), NoTensors(), False)  # type: ignore[arg-type]
    assert "group_limited_greedy" in described.warnings[0]
    assert described.values["expert_group_count"] == 4


def test_both_spellings_of_the_rope_settings_mean_the_same() -> None:
    old = v3_metadata()
    scaling = dict(checkpoints.YARN)
    scaling["rope_type"] = scaling.pop("type")
    new = v3_metadata(
        rope_scaling=None, rope_theta=None, rope_parameters=scaling | {"rope_theta": 10000}
    )
    assert old == new
    assert old.values["rope.scaling.yarn_log_multiplier"] == pytest.approx(0.1)


def test_a_model_without_scaling_gets_no_scaling_keys() -> None:
    described = v3_metadata(rope_scaling=None)
    assert not [key for key in described.values if key.startswith("rope.scaling")]


def test_an_mtp_layer_without_low_rank_queries_must_be_dropped(tmp_path: Path) -> None:
    dims = checkpoints.Dims(num_hidden_layers=1, q_lora_rank=None, n_routed_experts=8)
    folder = checkpoints.make_v3(tmp_path / "v3", dims)
    with Checkpoint(folder) as checkpoint:
        with pytest.raises(ConvertError, match="--mtp drop"):
            make_plan(checkpoint, "Q8_0")
        names = [tensor.name for tensor in make_plan(checkpoint, "Q8_0", mtp="drop").tensors]
    assert "blk.1.attn_norm.weight" not in names


def test_inverse_frequencies_and_a_tied_head_are_left_out(tmp_path: Path) -> None:
    tensors = checkpoints.Tensors()
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    tensors.add(name, checkpoints.fp8_values()[:16], "F32")
    folder = checkpoints.make_v2_lite(
        tmp_path / "v2", extra=tensors, config={"tie_word_embeddings": True}
    )
    with Checkpoint(folder) as checkpoint:
        plan = make_plan(checkpoint, "Q4_K_M")
    assert {one.source for one in plan.dropped} == {name, "lm_head.weight"}
    types = {tensor.name: tensor.kind.name for tensor in plan.tensors}
    assert "output.weight" not in types
    assert types["token_embd.weight"] == "Q6_K"  # it serves as the output matrix


def tokenizer_of(tiny: Path, file: str, **changes: Any) -> dict[str, Any]:
    values = json.loads((tiny / file).read_text()) | changes
    (tiny / file).write_text(json.dumps(values))
    return dict(tokenizer_metadata(tiny, 320, {}).values)


def test_merges_as_pairs_are_those_as_texts(tiny: Path) -> None:
    tokenizer = json.loads((tiny / "tokenizer.json").read_text())
    before = tokenizer_metadata(tiny, 320, {}).values
    model = tokenizer["model"]
    model["merges"] = [merge.split(" ") for merge in model["merges"]]
    assert tokenizer_of(tiny, "tokenizer.json", model=model) == before


def test_chat_templates_are_read_from_a_text_a_list_or_a_file(tiny: Path) -> None:
    listed = [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]
    metadata = tokenizer_of(tiny, "tokenizer_config.json", chat_template=listed)
    assert metadata["tokenizer.chat_template"] == "A"
    assert metadata["tokenizer.chat_template.tool_use"] == "B"
    assert metadata["tokenizer.chat_templates"] == ("tool_use",)
    (tiny / "chat_template.jinja").write_text("C")
    assert tokenizer_metadata(tiny, 320, {}).values["tokenizer.chat_template"] == "C"


@pytest.mark.parametrize(
    ("changes", "adds"),
    [
        ({}, True),
        ({"add_bos_token": False}, False),
        ({"add_bos_token": None}, True),  # LlamaTokenizerFast adds it by default
        ({"add_bos_token": None, "tokenizer_class": "PreTrainedTokenizerFast"}, False),
    ],
)
def test_bos_is_added_as_the_tokenizer_class_does(
    tiny: Path, changes: dict[str, Any], adds: bool
) -> None:
    metadata = tokenizer_of(tiny, "tokenizer_config.json", **changes)
    assert metadata["tokenizer.ggml.add_bos_token"] is adds


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"temperature": 0.6, "top_p": 0.95, "do_sample": True}, {"temp": 0.6, "top_p": 0.95}),
        ({"temperature": 0.6, "do_sample": False}, {"temp": 0.0}),
        ({"top_k": 40, "repetition_penalty": 1, "eos_token_id": 1},
         {"top_k": 40, "penalty_repeat": 1.0}),
        ({}, {}),
    ],
)  # fmt: skip
def test_what_the_publisher_recommends_for_sampling_is_written(
    tiny: Path, values: dict[str, Any], expected: dict[str, float]
) -> None:
    (tiny / "generation_config.json").write_text(json.dumps(values))
    with Checkpoint(tiny) as checkpoint:
        found = sampling_metadata(checkpoint)
    assert found.warnings == ()
    assert found.values == {f"general.sampling.{name}": value for name, value in expected.items()}


@pytest.mark.parametrize(
    ("text", "kept", "warning"),
    [
        ('{"temperature": "hot", "top_p": 0.9}', {"top_p": 0.9}, "temperature is 'hot', not"),
        ('{"temperature": "0.6"}', {}, "temperature is '0.6', not a number"),
        ('{"top_k": 1.5, "temperature": 1}', {"temp": 1.0}, "top_k is 1.5, not a number"),
        ('{"top_p": [0.9], "top_k": 5}', {"top_k": 5}, r"top_p is \[0.9\], not a number"),
        ('{"min_p": true}', {}, "min_p is True, not a number"),
        ('{"min_p": NaN}', {}, "min_p is nan, not a number"),
        ("[]", {}, "no recommended sampling is written: .* is not a JSON object"),
        ("{", {}, "no recommended sampling is written: .* is not valid JSON"),
    ],
)
def test_a_recommendation_that_cannot_be_used_is_a_warning_and_not_written(
    tiny: Path, tmp_path: Path, text: str, kept: dict[str, float], warning: str
) -> None:
    (tiny / "generation_config.json").write_text(text)
    result = convert(tiny, tmp_path / "out.gguf", ConvertOptions(type="Q8_0"))
    assert any(re.search(warning, one) for one in result.warnings), result.warnings
    fields = GGUFReader(tmp_path / "out.gguf").fields
    prefix = "general.sampling."
    found = {name: fields[name].contents() for name in fields if name.startswith(prefix)}
    assert found == {prefix + name: pytest.approx(value) for name, value in kept.items()}
