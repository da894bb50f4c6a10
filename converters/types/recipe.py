"""Which ggml type each tensor gets, and why.

Takes names and shapes, the mixture's name, a few facts about the model and which tensors have
importance; gives a type with its reason for every tensor. Mixtures follow llama-quantize (see
mixtures.py), plain types follow convert_hf_to_gguf.py, recipes.py has our own for experts. Under
all of them the MTP layer stays at Q8_0 or above, for a draft that guesses badly costs more than it
saves; and where an importance matrix lacks a tensor whose type needs it, a type that needs none
stands in (llama-quantize stops).
Does not know data, files or offsets.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

from gguf import GGML_QUANT_SIZES, LlamaFileType
from gguf import GGMLQuantizationType as Kind

from converters.errors import ConvertError, OptionError
from converters.kernels.quantize import NEEDS_IMPORTANCE, block_length
from converters.layout import Metadata
from converters.types.mixtures import ALIASES, MIXTURES, PLAIN, Choice, Facts, Shape, Walk
from converters.types.recipes import RECIPES, recipe_visit

TYPE_NAMES: tuple[str, ...] = (*MIXTURES, *ALIASES, *RECIPES)
Visit = Callable[[Shape], Choice]  # of tensors in the order of Walk.order

# Types that --tensor-type may name: all that ggml can quantize to and the gguf package knows.
TENSOR_TYPES: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        *PLAIN, Kind.Q8_0, Kind.Q5_1, Kind.Q5_0, Kind.Q4_1, Kind.Q4_0,
        Kind.Q6_K, Kind.Q5_K, Kind.Q4_K, Kind.Q3_K, Kind.Q2_K,
        Kind.IQ4_NL, Kind.IQ4_XS, Kind.IQ3_S, Kind.IQ3_XXS, Kind.IQ2_S, Kind.IQ2_XS, Kind.IQ2_XXS,
        Kind.IQ1_M, Kind.IQ1_S, Kind.MXFP4, Kind.NVFP4, Kind.TQ2_0, Kind.TQ1_0, Kind.Q1_0,
    )
}  # fmt: skip

# What a row falls back to that holds no whole blocks of a type: blocks of 32.
_NARROW = {
    Kind.Q6_K: Kind.Q8_0, Kind.Q5_K: Kind.Q5_1, Kind.Q4_K: Kind.Q5_0,
    **dict.fromkeys((Kind.Q3_K, Kind.Q2_K, Kind.TQ2_0, Kind.TQ1_0), Kind.Q4_0),
    **dict.fromkeys((Kind.IQ4_XS, Kind.IQ3_S, Kind.IQ3_XXS), Kind.IQ4_NL),
    **dict.fromkeys((Kind.IQ2_S, Kind.IQ2_XS, Kind.IQ2_XXS, Kind.IQ1_M, Kind.IQ1_S), Kind.IQ4_NL),
    **dict.fromkeys((Kind.NVFP4, Kind.Q1_0), Kind.Q4_0),  # ours: llama-quantize stops
}  # fmt: skip

# Types that are garbage without importance (llama-quantize's list, longer than ggml's), and the
# type of about their size that needs none.
_WITHOUT_IMPORTANCE = {
    Kind.IQ3_XXS: Kind.IQ3_S,
    **dict.fromkeys((Kind.IQ2_S, Kind.IQ2_XS, Kind.IQ2_XXS), Kind.Q2_K),
    **dict.fromkeys((Kind.IQ1_M, Kind.IQ1_S), Kind.Q2_K),
    Kind.Q2_K: Kind.Q3_K,  # only in Q2_K_S
}
# Mixtures in which such a type is a rule for some tensor of every model.
NEED_IMATRIX = (
    "IQ3_XS", "IQ3_XXS", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "Q2_K_S",
)  # fmt: skip
KEEP = "KEEP"  # for a GGUF source: every tensor keeps its type, and what is added to it gets Q8_0
_NO_WEIGHTS = (Kind.I8, Kind.I16, Kind.I32, Kind.I64, Kind.F64)  # as tables of token ids have
# Parts of names that llama-quantize leaves alone in models of other makers (src/llama-quant.cpp).
_SMALL_PARTS = (
    "altup", "laurel", "per_layer_model_proj", "position_embd.", "token_types.", "ssm_conv1d",
    "shortconv.conv.", "indexer.k_proj.", "indexer.q_proj.", "time_mix_first.", "time_mix_w",
    "time_mix_v0.", "time_mix_v1.", "time_mix_v2.", "time_mix_a", "time_mix_g", "time_mix_decay_w",
    "time_mix_lerp_fused.", "attn_rel_b.",
)  # fmt: skip
_DRAFT_FLOOR = (*PLAIN, Kind.Q8_0)


def canonical_type(name: str) -> str:
    """Return the mixture that a value of --type names, in any case; raise ConvertError if none."""
    known = ALIASES.get(name.upper(), name.upper())
    if known not in MIXTURES and known not in RECIPES:
        raise OptionError(f"unknown type {name!r}: choose from {', '.join(TYPE_NAMES)}")
    return known


def file_type(type_name: str) -> LlamaFileType:
    """Return general.file_type for a canonical name; GGUF has no number for our own recipes."""
    if type_name in RECIPES:
        return RECIPES[type_name].file_type
    return MIXTURES[type_name].file_type


def nearest_file_type(choices: Mapping[str, Choice], tensors: Sequence[Shape]) -> LlamaFileType:
    """Return general.file_type for free choices: of a mixture of the type that most values have."""
    values: Counter[Kind] = Counter()
    for tensor in tensors:
        values[choices[tensor.name].kind] += math.prod(tensor.shape)
    most = max(values, key=lambda kind: values[kind])
    return next(one.file_type for one in MIXTURES.values() if one.base == most)


def model_facts(architecture: str, values: Metadata, has_imatrix: bool = False) -> Facts:
    """Collect what the type rules ask about a model from its metadata, keys without the prefix."""

    def count(key: str, default: int) -> int:
        value = values.get(key, default)
        if isinstance(value, tuple) and value:  # a layer's own: the first stands for all
            value = value[0]
        return value if isinstance(value, int) else default

    blocks = count("block_count", 0)
    heads = count("attention.head_count", 1)
    heads_kv = count("attention.head_count_kv", heads)
    # llama.cpp calls a model of 80 layers 70B, but for llama only with grouped attention.
    is_70b = blocks == 80 and (architecture == "qwen2" or heads != heads_kv)
    return Facts(
        n_layer=blocks - count("nextn_predict_layers", 0),
        n_layer_all=blocks,
        n_expert=count("expert_count", 0),
        n_gqa=heads // max(1, heads_kv),
        is_70b=is_70b and architecture in ("llama", "qwen2"),
        has_imatrix=has_imatrix,
    )


def choose_types(
    tensors: Sequence[Shape],
    mixture: str | Visit,
    facts: Facts,
    overrides: Sequence[tuple[str, str]] = (),
    important: Container[str] = frozenset(),
) -> dict[str, Choice]:
    """Choose a type for every tensor; `important` are the tensors that an imatrix has data for.

    `mixture` is a value of --type, or what chooses a type before the rules that hold for all.
    Raises ConvertError for a bad type name or override, and without an imatrix for a type that
    needs one.
    """
    keep = mixture == KEEP
    if isinstance(mixture, str):
        mixture = "Q8_0" if keep else canonical_type(mixture)
    type_name = mixture if isinstance(mixture, str) else ""
    patterns = [_Override.parse(pattern, kind) for pattern, kind in overrides]
    visit = _visit(type_name, facts, tensors) if isinstance(mixture, str) else mixture
    choices: dict[str, Choice] = {}
    for tensor in Walk.order(tensors):
        if why := _never_quantized(tensor, type_name):
            choices[tensor.name] = Choice(tensor.stored or Kind.F32, why)
            continue
        override = next((one for one in patterns if one.pattern.search(tensor.name)), None)
        if override:
            override.used = True
            choice = Choice(override.kind, f"--tensor-type {override.pattern.pattern}")
        elif keep and tensor.stored is not None:
            choice = Choice(tensor.stored, "stays as it is")
        else:
            choice = visit(tensor)
            if tensor.layer >= facts.n_layer and choice.kind not in _DRAFT_FLOOR:
                choice = Choice(Kind.Q8_0, "the MTP layer stays at Q8_0")
            if tensor.stored is Kind.MXFP4 and _bits(choice.kind) >= _bits(tensor.stored):
                choice = Choice(tensor.stored, "stored in FP4: more bits would add nothing")
        choice = _fit(choice, tensor.shape[-1])
        known = tensor.name in important or choice.kind == tensor.stored  # its bytes are copied
        if not known and _needs_importance(choice.kind, tensor.name, type_name):
            choice = _without_importance(choice, tensor.name, facts)
        choices[tensor.name] = choice
    for override in patterns:
        if not override.used:
            raise ConvertError(
                f"--tensor-type {override.pattern.pattern} decides no tensor: look for its GGUF "
                "name, and for an earlier pattern that already matches"
            )
    return choices


def _bits(kind: Kind) -> float:
    length, size = GGML_QUANT_SIZES[kind]
    return 8 * size / length


def _visit(type_name: str, facts: Facts, tensors: Sequence[Shape]) -> Visit:
    if type_name not in RECIPES:
        return Walk(type_name, facts, tensors).visit
    if not facts.n_expert:
        raise ConvertError(f"{type_name} is for models with routed experts: choose another type")
    return recipe_visit(RECIPES[type_name], tensors, facts.n_layer)


@dataclass
class _Override:
    """One --tensor-type, and whether it decided anything."""

    pattern: re.Pattern[str]
    kind: Kind
    used: bool = False

    @classmethod
    def parse(cls, pattern: str, kind: str) -> _Override:
        if kind.upper() not in TENSOR_TYPES:
            known = ", ".join(TENSOR_TYPES)
            raise OptionError(
                f"--tensor-type {pattern}: unknown type {kind!r}, choose from {known}"
            )
        try:
            return cls(re.compile(pattern), TENSOR_TYPES[kind.upper()])
        except re.error as error:
            raise OptionError(f"--tensor-type {pattern!r} is no valid pattern: {error}") from error


def _never_quantized(tensor: Shape, type_name: str) -> str:
    """Return why a tensor stays in F32, or as another GGUF file has it; else an empty string."""
    if tensor.stored in _NO_WEIGHTS:
        return "no weights: stays as it is"
    if tensor.stored is not None and any(part in tensor.name for part in _SMALL_PARTS):
        return "small: stays as it is"
    # ggml does not count outer dimensions of 1.
    if len(tensor.shape) < 2 or math.prod(tensor.shape[:-1]) == 1:
        return "vectors stay in F32"
    if not tensor.name.endswith(".weight"):
        return "biases stay in F32"
    if "_norm.weight" in tensor.name:
        return "norms stay in F32"
    if "ffn_gate_inp.weight" in tensor.name:
        return "the router stays in F32"
    if re.search(r"(^output_hc_|\.hc_|_ape\.)", tensor.name):
        return "hyper-connections and compressor positions stay in F32, as stored"
    return _kept_by_converter(tensor.name, type_name)


def _kept_by_converter(name: str, type_name: str) -> str:
    # convert_hf_to_gguf.py keeps these, llama-quantize does not; so it is with its mixtures.
    mixture = MIXTURES.get(type_name)
    mixed = mixture and mixture.base not in PLAIN and type_name != "Q8_0"
    if not mixed and "indexer.proj.weight" in name:
        return "the indexer's weights of heads stay in F32"
    return ""


def _fit(choice: Choice, cols: int) -> Choice:
    """Replace a type whose blocks do not divide the row."""
    if cols % block_length(choice.kind) == 0:
        return choice
    narrow = _NARROW.get(choice.kind, choice.kind)
    if cols % block_length(narrow):
        return Choice(Kind.F16, f"rows of {cols} fit no block type")
    length = block_length(choice.kind)
    return Choice(narrow, f"rows of {cols} are no multiple of {length}: no {choice.kind.name}")


def _needs_importance(kind: Kind, name: str, type_name: str) -> bool:
    """Say whether a tensor of this type is garbage without importance, as llama-quantize judges."""
    if kind in NEEDS_IMPORTANCE:
        return True
    if name in ("token_embd.weight", "output.weight"):
        return False
    return type_name == "Q2_K_S" if kind == Kind.Q2_K else kind in _WITHOUT_IMPORTANCE


def _without_importance(choice: Choice, name: str, facts: Facts) -> Choice:
    """Return what stands in for a type that needs importance; without an imatrix, raise."""
    if not facts.has_imatrix:
        free = ", ".join(one for one in MIXTURES if one not in NEED_IMATRIX)
        raise ConvertError(
            f"{name} would be {choice.kind.name} ({choice.why}), which needs an importance matrix: "
            f"give --imatrix FILE, or choose one of the types that need none: {free}"
        )
    kind = _WITHOUT_IMPORTANCE[choice.kind]
    return Choice(kind, f"the imatrix lacks it: no {choice.kind.name}", instead_of=choice.kind)
