"""The values of --type, and llama-quantize's rules for which tensor gets which ggml type.

Takes a tensor's name and shape and a few facts about the model, gives the type that llama-quantize
gives it under a mixture: the rules of llama_tensor_get_type_impl (src/llama-quant.cpp), one table a
role, first match wins. Some rules go by how many tensors of a role came before, so a walk visits
the tensors in llama-quantize's order.
Does not know overrides, widths that no block divides, nor missing importance: recipe.py does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gguf import GGML_QUANT_SIZES, LlamaFileType
from gguf import GGMLQuantizationType as Kind

from converters.types.groups import layer_of


@dataclass(frozen=True)
class Mixture:
    """A value of --type: the type of most tensors, and its number in general.file_type."""

    base: Kind
    file_type: LlamaFileType


# The type of most tensors of each mixture, by kind of type, from many bits to few.
_GROUPS: dict[str, dict[str, Kind]] = {
    "unquantized": {"F32": Kind.F32, "BF16": Kind.BF16, "F16": Kind.F16},
    "plain blocks": {
        "Q8_0": Kind.Q8_0, "Q5_1": Kind.Q5_1, "Q5_0": Kind.Q5_0, "Q4_1": Kind.Q4_1,
        "Q4_0": Kind.Q4_0,
    },
    "K-quants": {
        "Q6_K": Kind.Q6_K, "Q5_K_M": Kind.Q5_K, "Q5_K_S": Kind.Q5_K, "Q4_K_M": Kind.Q4_K,
        "Q4_K_S": Kind.Q4_K, "Q3_K_L": Kind.Q3_K, "Q3_K_M": Kind.Q3_K, "Q3_K_S": Kind.Q3_K,
        "Q2_K": Kind.Q2_K, "Q2_K_S": Kind.Q2_K,
    },
    "I-quants": {
        "IQ4_NL": Kind.IQ4_NL, "IQ4_XS": Kind.IQ4_XS, "IQ3_M": Kind.IQ3_S, "IQ3_S": Kind.IQ3_S,
        "IQ3_XS": Kind.IQ3_S, "IQ3_XXS": Kind.IQ3_XXS, "IQ2_M": Kind.IQ2_S, "IQ2_S": Kind.IQ2_XS,
        "IQ2_XS": Kind.IQ2_XS, "IQ2_XXS": Kind.IQ2_XXS, "IQ1_M": Kind.IQ1_M, "IQ1_S": Kind.IQ1_S,
    },
    "experts in FP4": {"MXFP4_MOE": Kind.MXFP4},
    "ternary and one bit": {"TQ2_0": Kind.TQ2_0, "TQ1_0": Kind.TQ1_0, "Q1_0": Kind.Q1_0},
}  # fmt: skip


def _file_type(name: str) -> LlamaFileType:
    return LlamaFileType[f"ALL_{name}" if name == "F32" else f"MOSTLY_{name}"]


MIXTURES: dict[str, Mixture] = {
    name: Mixture(base, _file_type(name))
    for group in _GROUPS.values()
    for name, base in group.items()
}
NAMES_BY_GROUP = {group: tuple(names) for group, names in _GROUPS.items()}
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}  # llama-quantize's own

PLAIN = (Kind.F32, Kind.F16, Kind.BF16)


@dataclass(frozen=True)
class Shape:
    """A tensor's name, its shape, outermost first, and what its stored codes are, if ggml has it.

    `stored` is I32 for tables of whole numbers, which stay, and MXFP4 for packed FP4.
    """

    name: str
    shape: tuple[int, ...]
    stored: Kind | None = None

    @property
    def layer(self) -> int:
        """The number in blk.N., or -1."""
        return layer_of(self.name)


@dataclass(frozen=True)
class Choice:
    """A type and the reason for it; `instead_of` a type for which importance is missing."""

    kind: Kind
    why: str
    instead_of: Kind | None = None


@dataclass(frozen=True)
class Facts:
    """What the rules ask about a model; `n_layer_all` counts the MTP layer, `n_layer` does not."""

    n_layer: int
    n_layer_all: int
    n_expert: int
    n_gqa: int
    is_70b: bool = False  # 80 layers of llama with grouped attention, or of qwen2
    has_imatrix: bool = False


@dataclass(frozen=True)
class _Place:
    """Where a tensor stands among those of its role."""

    facts: Facts
    seen: int  # how many of its role came before
    layer: int  # of the feed-forward tensors of a model with experts, else the same as `seen`
    of: int  # how many layers (of attention values: tensors) there are


_Condition = Callable[[_Place], bool]


def _always(place: _Place) -> bool:
    return True


def _eight_experts(place: _Place) -> bool:
    return place.facts.n_expert == 8


def _grouped(place: _Place) -> bool:
    """Say whether four or more query heads share a key and value."""
    return place.facts.n_gqa >= 4


def _early(part: int) -> _Condition:
    """Return the condition for the first eighth or sixteenth of the layers."""
    return lambda place: place.layer < place.of // part


def _more_bits(place: _Place) -> bool:
    """Say whether a layer is in the first or last eighth, or a third of those between."""
    first = place.of // 8
    layer = place.layer
    return layer < first or layer >= 7 * place.of // 8 or (layer - first) % 3 == 2


def _in_the_middle(place: _Place) -> bool:
    """Say whether a layer is in neither the first nor the last eighth."""
    return place.of // 8 <= place.layer < 7 * place.of // 8


@dataclass(frozen=True)
class _Rule:
    mixtures: tuple[str, ...]
    kind: Kind
    when: _Condition


def _rule(mixtures: str, kind: Kind, when: _Condition = _always) -> _Rule:
    return _Rule(tuple(mixtures.split()), kind, when)


_ALL = " ".join(MIXTURES)
_LOW = "IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M"  # these have rules of their own

_RULES: dict[str, tuple[_Rule, ...]] = {
    "output": (
        _rule("Q8_0 MXFP4_MOE", Kind.Q8_0),
        _rule(f"{_LOW} IQ3_XXS", Kind.Q5_K),
        _rule(_ALL, Kind.Q6_K),
    ),
    "token_embd": (
        _rule("IQ1_S IQ1_M IQ2_XXS IQ2_XS", Kind.Q2_K),
        _rule("IQ2_S IQ2_M IQ3_XXS", Kind.IQ3_S),
        _rule("TQ1_0 TQ2_0", Kind.Q4_K),
    ),
    "attn_v": (
        _rule(_LOW, Kind.Q4_K, lambda at: _grouped(at) or at.facts.n_expert >= 4),
        _rule("IQ2_S IQ2_M", Kind.IQ3_S),
        _rule(_LOW, Kind.Q2_K),
        _rule(_ALL, Kind.Q8_0, _eight_experts),
        _rule("Q2_K Q2_K_S IQ3_XXS IQ3_XS IQ3_S", Kind.Q4_K, _grouped),
        _rule("IQ4_NL IQ4_XS", Kind.Q5_K, _grouped),
        _rule("Q2_K", Kind.Q3_K),
        _rule("IQ3_XXS", Kind.IQ3_S, lambda at: not at.facts.has_imatrix),
        _rule("Q3_K_M", Kind.Q5_K, lambda at: at.seen < 2),
        _rule("Q3_K_M IQ3_M", Kind.Q4_K),
        _rule("Q3_K_L", Kind.Q5_K),
        _rule("Q4_K_M Q5_K_M", Kind.Q6_K, _more_bits),
        _rule("Q4_K_S", Kind.Q5_K, lambda at: at.seen < 4),
    ),
    "attn_k": (
        _rule(_LOW, Kind.Q4_K, _eight_experts),
        _rule(_ALL, Kind.Q8_0, _eight_experts),
        _rule("IQ3_XS", Kind.IQ3_XXS),
        _rule("IQ3_XXS", Kind.IQ2_S),
    ),
    "attn_q": (
        _rule("IQ3_XS", Kind.IQ3_XXS),
        _rule("IQ3_XXS", Kind.IQ2_S),
    ),
    "attn_output": (
        _rule(
            f"{_LOW} Q2_K Q3_K_S Q3_K_M Q4_K_S Q4_K_M IQ3_XXS IQ3_XS IQ3_S IQ3_M IQ4_NL IQ4_XS",
            Kind.Q5_K,
            _eight_experts,
        ),
        _rule("IQ1_S IQ1_M", Kind.IQ2_XXS),
        _rule("IQ2_S IQ2_M IQ3_XXS", Kind.IQ3_S),
        _rule("Q2_K", Kind.Q3_K),
        _rule("Q3_K_M IQ3_M", Kind.Q4_K),
        _rule("Q3_K_L", Kind.Q5_K, lambda at: not _eight_experts(at)),
    ),
    "ffn_down": (
        _rule("IQ2_S IQ2_M", Kind.IQ3_S, lambda at: at.seen < at.of // 8),
        _rule(_LOW, Kind.Q2_K, lambda at: at.seen < at.of // 8),
        _rule("Q2_K", Kind.Q3_K),
        _rule("Q2_K_S", Kind.Q4_K, _early(8)),
        _rule("IQ3_XXS", Kind.Q4_K, lambda at: not at.facts.has_imatrix and _early(8)(at)),
        _rule("IQ3_XXS", Kind.Q3_K, lambda at: not at.facts.has_imatrix),
        _rule("Q3_K_M", Kind.Q5_K, _early(16)),
        _rule("Q3_K_M", Kind.Q4_K),
        _rule("IQ3_M", Kind.Q4_K, _early(8)),
        _rule("IQ3_M", Kind.Q4_K, lambda at: _eight_experts(at) and _more_bits(at)),
        _rule("Q3_K_L", Kind.Q5_K),
        _rule("Q4_K_M Q5_K_M", Kind.Q6_K, _more_bits),
        _rule("Q4_K_S", Kind.Q5_K, _early(8)),
        _rule("IQ4_NL IQ4_XS", Kind.Q5_K, lambda at: not at.facts.has_imatrix and _early(8)(at)),
        _rule("Q4_0", Kind.Q4_1, lambda at: at.facts.has_imatrix and _early(8)(at)),
        _rule("Q5_0", Kind.Q5_1, lambda at: at.facts.has_imatrix and _early(8)(at)),
    ),
    "ffn_gate": (_rule("IQ3_XS", Kind.IQ3_XXS, _in_the_middle),),
    "ffn_up": (_rule("IQ3_XS", Kind.IQ3_XXS, _in_the_middle),),
}


# Substrings in the order in which llama-quantize asks for them, and what a reason calls them.
_ROLES = (
    ("attn_qkv.weight", "attn_v"), ("attn_kv_b.weight", "attn_v"), ("attn_v.weight", "attn_v"),
    ("attn_k.weight", "attn_k"), ("attn_q.weight", "attn_q"), ("attn_output.weight", "attn_output"),
    ("ffn_up", "ffn_up"), ("ffn_gate", "ffn_gate"), ("ffn_down", "ffn_down"),
)  # fmt: skip
_WORDS = {
    "output": "the output matrix", "token_embd": "the token embeddings",
    "attn_v": "attention values", "attn_k": "attention keys", "attn_q": "attention queries",
    "attn_output": "attention outputs", "ffn_up": "up projections", "ffn_gate": "gate projections",
    "ffn_down": "down projections",
}  # fmt: skip


class Walk:
    """llama-quantize's visit of a model's tensors, which counts what it has seen."""

    def __init__(self, type_name: str, facts: Facts, tensors: Iterable[Shape]) -> None:
        names = [tensor.name for tensor in tensors]
        self._type_name = type_name
        self._base = MIXTURES[type_name].base
        self._facts = facts
        self._tied = "output.weight" not in names
        self._values = sum(_role(name) == "attn_v" for name in names)
        self._seen: Counter[str] = Counter()

    @staticmethod
    def order(tensors: Iterable[Shape]) -> list[Shape]:
        """Sort tensors as llama-quantize visits them: by layer, then by name."""
        return sorted(tensors, key=lambda tensor: (tensor.layer, tensor.name))

    def visit(self, tensor: Shape) -> Choice:
        """Choose the type of the next tensor in order; one that is never quantized is left out."""
        base = Choice(self._base, f"{self._type_name} base type")
        if self._base in PLAIN:
            return base
        role = _role(tensor.name)
        if role == "token_embd" and self._tied:
            role = "output"
        if role == "output" and tensor.shape[-1] % GGML_QUANT_SIZES[self._base][0]:
            return Choice(Kind.Q8_0, "the output matrix, its rows not whole blocks")
        if self._type_name == "MXFP4_MOE" and role != "output":
            if len(tensor.shape) > 2 and tensor.shape[-3] > 1:
                return Choice(Kind.MXFP4, "stacks of matrices are in FP4")
            return Choice(Kind.Q8_0, "what is no stack of matrices is in Q8_0")
        kind = self._by_table(role, tensor)
        if kind == self._base:
            return base
        more = "more" if _bits(kind) > _bits(self._base) else "fewer"
        gets = "gets" if role == "output" else "get"
        return Choice(kind, f"{_WORDS[role]} {gets} {more} bits in {self._type_name}")

    def _by_table(self, role: str, tensor: Shape) -> Kind:
        seen = self._seen[role]
        self._seen[role] += 1
        # In a model with experts a layer has several such tensors, so the name tells the layer.
        by_name = role.startswith("ffn") and self._facts.n_expert > 1
        place = _Place(
            self._facts,
            seen,
            layer=tensor.layer if by_name else seen,
            of=self._values if role == "attn_v" else self._facts.n_layer_all,
        )
        kind = next(
            (
                rule.kind
                for rule in _RULES.get(role, ())
                if self._type_name in rule.mixtures and rule.when(place)
            ),
            self._base,
        )
        lifted = role == "attn_v" and self._facts.is_70b and self._type_name not in _LOW.split()
        return Kind.Q5_K if lifted and kind in (Kind.Q3_K, Kind.Q4_K) else kind


def _bits(kind: Kind) -> float:
    block, size = GGML_QUANT_SIZES[kind]
    return 8 * size / block


def _role(name: str) -> str:
    if name in ("output.weight", "token_embd.weight"):
        return name.removesuffix(".weight")
    return next((role for part, role in _ROLES if part in name), "other")
