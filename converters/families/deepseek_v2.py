"""DeepSeek V2, V2-Lite, Coder-V2, V2.5 (`DeepseekV2ForCausalLM`) → `deepseek2`.

Softmax router without selection bias; the lite models have no low-rank query. The 236B models
limit routing to groups scored by their best expert, which llama.cpp can only approximate.
What it shares with V3 is in deepseek2.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from converters.errors import ConvertError
from converters.families import deepseek2
from converters.layout import Described, Dropped, Target
from converters.source.checkpoint import Checkpoint
from converters.source.config import Config

ARCHITECTURES = ("DeepseekV2ForCausalLM",)
GGUF_ARCHITECTURE = "deepseek2"

_GROUP_SCORE_WARNING = (
    "group_limited_greedy scores a group of experts by its best one, llama.cpp by its best two: "
    "some tokens will reach other experts than in the original"
)


def metadata(config: Config, checkpoint: Checkpoint, mtp: bool) -> Described:
    """Return the metadata; V2 has no MTP layer, so `mtp` changes nothing."""
    model = deepseek2.read_model(config, mtp=False, router="softmax")
    deepseek2.refuse_lite_depths(config, model)
    method = config.choice("topk_method", ("greedy", "group_limited_greedy"), "greedy")
    if model.experts_normalized and model.expert_scale != 1.0:
        # The original skips the scale when it normalizes; llama.cpp would apply both.
        raise ConvertError(
            f"{config.origin}: norm_topk_prob with routed_scaling_factor {model.expert_scale} "
            "is not supported for DeepseekV2ForCausalLM"
        )
    if method == "greedy":
        return deepseek2.describe(model, groups=None)
    groups, warnings = deepseek2.usable_groups(config, model)
    if groups is not None:
        # Grouping by the best two is nearer to the original than no limit at all.
        warnings = (*warnings, _GROUP_SCORE_WARNING)
    return deepseek2.describe(model, groups, warnings)


def tensors(config: Config, checkpoint: Checkpoint, mtp: bool) -> Iterator[Target | Dropped]:
    """Yield the targets in file order."""
    model = deepseek2.read_model(config, mtp=False, router="softmax")
    yield from deepseek2.trunk(model, checkpoint)
