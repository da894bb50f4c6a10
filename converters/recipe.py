"""Which ggml type each tensor gets, and why.

Takes names and shapes, the mixture's name and a few facts about the model; gives a type with its
reason for every tensor. Mixtures follow llama-quantize (src/llama-quant.cpp), plain types follow
convert_hf_to_gguf.py, so the result can be compared tensor by tensor. One rule is our own: the
MTP layer stays at Q8_0 or above, for a draft that guesses badly costs more than it saves.
Does not know data, files or offsets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gguf import GGMLQuantizationType as Kind
from gguf import LlamaFileType

from converters.errors import ConvertError
from converters.quantize import block_length


@dataclass(frozen=True)
class Mixture:
    """A value of --type: the type of most tensors, and its number in general.file_type."""

    base: Kind
    file_type: LlamaFileType


MIXTURES: dict[str, Mixture] = {
    "F32": Mixture(Kind.F32, LlamaFileType.ALL_F32),
    "F16": Mixture(Kind.F16, LlamaFileType.MOSTLY_F16),
    "BF16": Mixture(Kind.BF16, LlamaFileType.MOSTLY_BF16),
    "Q8_0": Mixture(Kind.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "Q6_K": Mixture(Kind.Q6_K, LlamaFileType.MOSTLY_Q6_K),
    "Q5_K_M": Mixture(Kind.Q5_K, LlamaFileType.MOSTLY_Q5_K_M),
    "Q4_K_M": Mixture(Kind.Q4_K, LlamaFileType.MOSTLY_Q4_K_M),
    "Q4_K_S": Mixture(Kind.Q4_K, LlamaFileType.MOSTLY_Q4_K_S),
    "Q3_K_M": Mixture(Kind.Q3_K, LlamaFileType.MOSTLY_Q3_K_M),
    "Q2_K": Mixture(Kind.Q2_K, LlamaFileType.MOSTLY_Q2_K),
}
TYPE_NAMES: tuple[str, ...] = tuple(MIXTURES)

# Types that --tensor-type may name: every type that a mixture here can produce.
TENSOR_TYPES: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q6_K, Kind.Q5_K, Kind.Q4_K, Kind.Q3_K,
        Kind.Q2_K, Kind.Q5_1, Kind.Q5_0, Kind.Q4_1, Kind.Q4_0,
    )
}  # fmt: skip

_PLAIN = (Kind.F32, Kind.F16, Kind.BF16)
# What a row that is no multiple of 256 falls back to, in blocks of 32.
_NARROW = {
    Kind.Q2_K: Kind.Q4_0, Kind.Q3_K: Kind.Q4_0, Kind.Q4_K: Kind.Q5_0,
    Kind.Q5_K: Kind.Q5_1, Kind.Q6_K: Kind.Q8_0,
}  # fmt: skip
_DRAFT_FLOOR = (*_PLAIN, Kind.Q8_0)


@dataclass(frozen=True)
class Shape:
    """A tensor's name and its shape, outermost first."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Choice:
    """A type and the reason for it."""

    kind: Kind
    why: str


@dataclass(frozen=True)
class Facts:
    """What the rules ask about a model; `n_layer_all` counts the MTP layer, `n_layer` does not."""

    n_layer: int
    n_layer_all: int
    n_expert: int
    n_gqa: int
    is_llama_70b: bool = False


@dataclass
class _Counters:
    """Where the walk stands: some rules go by the how-manyeth attention or down tensor."""

    n_attention_v: int
    tied: bool
    attention_v: int = 0
    ffn_down: int = 0


def choose_types(
    tensors: Sequence[Shape],
    type_name: str,
    facts: Facts,
    overrides: Sequence[tuple[str, str]] = (),
) -> dict[str, Choice]:
    """Choose a type for every tensor; raise ConvertError for a bad type name or override."""
    if type_name not in MIXTURES:
        raise ConvertError(f"unknown type {type_name!r}: choose from {', '.join(TYPE_NAMES)}")
    patterns = [_compile(pattern, kind) for pattern, kind in overrides]
    matched = [False] * len(patterns)
    counters = _Counters(
        n_attention_v=sum(_role(tensor.name) == "attn_v" for tensor in tensors),
        tied=all(tensor.name != "output.weight" for tensor in tensors),
    )
    choices: dict[str, Choice] = {}
    for tensor in sorted(tensors, key=_walk_order):
        if why := _kept_in_f32(tensor):
            choices[tensor.name] = Choice(Kind.F32, why)
            continue
        choice = _by_mixture(tensor, type_name, facts, counters)
        if _layer(tensor.name) >= facts.n_layer and choice.kind not in _DRAFT_FLOOR:
            choice = Choice(Kind.Q8_0, "the MTP layer stays at Q8_0")
        for index, (pattern, kind) in enumerate(patterns):
            if pattern.search(tensor.name):
                choice = Choice(kind, f"--tensor-type {pattern.pattern}")
                matched[index] = True
                break
        choices[tensor.name] = _fit(choice, tensor.shape[-1])
    for (pattern, _), used in zip(patterns, matched, strict=True):
        if not used:
            raise ConvertError(
                f"--tensor-type {pattern.pattern} decides no tensor: look for its GGUF name, and "
                "for an earlier pattern that already matches"
            )
    return choices


def _compile(pattern: str, kind: str) -> tuple[re.Pattern[str], Kind]:
    if kind.upper() not in TENSOR_TYPES:
        raise ConvertError(
            f"--tensor-type {pattern}: unknown type {kind!r}, choose from {', '.join(TENSOR_TYPES)}"
        )
    try:
        return re.compile(pattern), TENSOR_TYPES[kind.upper()]
    except re.error as error:
        raise ConvertError(f"--tensor-type {pattern!r} is no valid pattern: {error}") from error


def _layer(name: str) -> int:
    found = re.match(r"blk\.(\d+)\.", name)
    return int(found[1]) if found else -1


def _walk_order(tensor: Shape) -> tuple[int, str]:
    """Order tensors as llama-quantize visits them: by layer, then by name."""
    return _layer(tensor.name), tensor.name


def _kept_in_f32(tensor: Shape) -> str:
    """Return why a tensor is never quantized, or an empty string."""
    if len(tensor.shape) < 2:
        return "vectors stay in F32"
    if not tensor.name.endswith(".weight"):
        return "biases stay in F32"
    if "_norm.weight" in tensor.name:
        return "norms stay in F32"
    if "ffn_gate_inp.weight" in tensor.name:
        return "the router stays in F32"
    return ""


def _fit(choice: Choice, cols: int) -> Choice:
    """Replace a type whose blocks do not divide the row."""
    if cols % block_length(choice.kind) == 0:
        return choice
    narrow = _NARROW.get(choice.kind, choice.kind)
    if cols % block_length(narrow):
        return Choice(Kind.F16, f"rows of {cols} fit no block type")
    return Choice(narrow, f"rows of {cols} are no multiple of 256: {choice.kind.name} falls back")


# Substrings in the order in which llama-quantize asks for them.
_ROLES = (
    ("attn_qkv.weight", "attn_v"), ("attn_kv_b.weight", "attn_v"), ("attn_v.weight", "attn_v"),
    ("attn_k.weight", "attn_k"), ("attn_q.weight", "attn_q"), ("attn_output.weight", "attn_output"),
    ("ffn_up", "ffn_up"), ("ffn_gate", "ffn_gate"), ("ffn_down", "ffn_down"),
)  # fmt: skip


def _role(name: str) -> str:
    if name in ("output.weight", "token_embd.weight"):
        return name.removesuffix(".weight")
    return next((role for part, role in _ROLES if part in name), "other")


def _more_bits(layer: int, layers: int) -> bool:
    """Say whether a layer is among the first and last eighth, or a third of those between."""
    first = layers // 8
    return layer < first or layer >= 7 * layers // 8 or (layer - first) % 3 == 2


def _by_mixture(tensor: Shape, type_name: str, facts: Facts, counters: _Counters) -> Choice:
    """Apply llama-quantize's rule for the tensor's role; the fallback for widths comes later."""
    base = MIXTURES[type_name].base
    choice = Choice(base, f"{type_name} base type")
    if base in _PLAIN or type_name == "Q8_0":
        return choice
    role = _role(tensor.name)
    if role == "output" or (role == "token_embd" and counters.tied):
        if tensor.shape[-1] % block_length(base):
            return Choice(Kind.Q8_0, "the output matrix, rows no multiple of 256")
        return Choice(Kind.Q6_K, "the output matrix keeps 6 bits")
    if role == "attn_v":
        return _attention_v(choice, type_name, facts, counters)
    if role == "ffn_down":
        return _ffn_down(choice, tensor.name, type_name, facts, counters)
    if role == "attn_k" and facts.n_expert == 8:
        return Choice(Kind.Q8_0, "small in a model of 8 experts")
    if role == "attn_output":
        return _attention_output(choice, type_name, facts)
    return choice


def _attention_v(choice: Choice, type_name: str, facts: Facts, counters: _Counters) -> Choice:
    index = counters.attention_v
    counters.attention_v += 1
    sensitive = "attention values are sensitive"
    kind = choice.kind
    if type_name == "Q2_K":
        kind = Kind.Q4_K if facts.n_gqa >= 4 else Kind.Q3_K
    elif type_name == "Q3_K_M":
        kind = Kind.Q5_K if index < 2 else Kind.Q4_K
    elif type_name in ("Q4_K_M", "Q5_K_M") and _more_bits(index, counters.n_attention_v):
        kind = Kind.Q6_K
    elif type_name == "Q4_K_S" and index < 4:
        kind = Kind.Q5_K
    if facts.is_llama_70b and kind in (Kind.Q3_K, Kind.Q4_K):
        kind = Kind.Q5_K
    if facts.n_expert == 8:
        return Choice(Kind.Q8_0, "small in a model of 8 experts")
    return choice if kind == choice.kind else Choice(kind, sensitive)


def _ffn_down(
    choice: Choice, name: str, type_name: str, facts: Facts, counters: _Counters
) -> Choice:
    layers = facts.n_layer_all
    # With experts a layer has several such tensors, so the name tells the layer.
    layer = _layer(name) if facts.n_expert > 1 else counters.ffn_down
    counters.ffn_down += 1
    kind = choice.kind
    if type_name == "Q2_K":
        kind = Kind.Q3_K
    elif type_name == "Q3_K_M":
        kind = Kind.Q5_K if layer < layers // 16 else Kind.Q4_K
    elif type_name in ("Q4_K_M", "Q5_K_M") and _more_bits(layer, layers):
        kind = Kind.Q6_K
    elif type_name == "Q4_K_S" and layer < layers // 8:
        kind = Kind.Q5_K
    if kind == choice.kind:
        return choice
    return Choice(kind, f"down projection of layer {layer} of {layers} is sensitive")


def _attention_output(choice: Choice, type_name: str, facts: Facts) -> Choice:
    why = "attention output is sensitive"
    if facts.n_expert == 8:
        if type_name in ("Q2_K", "Q3_K_M", "Q4_K_S", "Q4_K_M"):
            return Choice(Kind.Q5_K, why)
    elif type_name == "Q2_K":
        return Choice(Kind.Q3_K, why)
    elif type_name == "Q3_K_M":
        return Choice(Kind.Q4_K, why)
    return choice
