"""What a GGUF file says about its model, and whether llama.cpp can run it without aborting.

Takes a path (of the first part, if the model is split), gives a frozen `GGUFInfo`. All parts are
checked by header; `check_runnable` refuses what would end in a failed assertion of
llama.cpp 0.3.36 (src/llama-model.cpp load_hparams, src/models/deepseek2.cpp, src/llama-vocab.cpp),
which kills the process instead of raising.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from localseek.errors import ModelError
from localseek.gguf.header import STRING, Scalar, StoredArray, Tensor, Value, read_header
from localseek.gguf.nextn import holds_only_nextn, nextn_problem
from localseek.gguf.sparse import sparse_problem

FILE_TYPES = {  # general.file_type; from llama.h, enum llama_ftype
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4", 39: "NVFP4",
    40: "Q1_0",
}  # fmt: skip
ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
SPLIT_NAME = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")
MAX_LAYERS, MAX_EXPERTS = 512, 1024  # LLAMA_MAX_LAYERS, LLAMA_MAX_EXPERTS


@dataclass(frozen=True)
class GGUFInfo:
    """A model file's facts; `parts` lists its files, `missing` the parts that are not there."""

    path: Path
    parts: tuple[Path, ...]
    missing: tuple[Path, ...]
    size_bytes: int
    version: int
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]

    def get(self, key: str) -> Scalar | None:
        """Give a single metadata value, None when it is absent or an array."""
        value = self.metadata.get(key)
        return None if isinstance(value, tuple | StoredArray) else value

    def array(self, key: str) -> tuple[Scalar, ...]:
        """Give an array from the metadata, read from the file if it is long; () when absent."""
        value = self.metadata.get(key)
        if isinstance(value, StoredArray):
            return value.read()
        return value if isinstance(value, tuple) else ()

    def count(self, key: str) -> int:
        """Give a count under the architecture's prefix, 0 when it is absent; no negatives."""
        value = self.get(f"{self.architecture}.{key}")
        if value is None:
            return 0
        if type(value) is not int or value < 0:
            raise ModelError(f"{self.path}: {self.architecture}.{key} is {value!r}, not a count.")
        return value

    def _text(self, key: str) -> str:
        value = self.get(key)
        return value if isinstance(value, str) else ""

    @property
    def architecture(self) -> str:
        """Name the architecture as llama.cpp knows it."""
        name = self._text("general.architecture")
        return name if name.isprintable() else ""

    @property
    def name(self) -> str:
        """Give the model's own name, or the file's."""
        return self._text("general.name") or self.path.stem

    @property
    def chat_template(self) -> str:
        """Give the jinja source of the chat template, "" when there is none."""
        return self._text("tokenizer.chat_template")

    @property
    def n_params(self) -> int:
        """Count the weights."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def context_length(self) -> int:
        """Give the tokens that the model was trained to see."""
        return self.count("context_length")

    @property
    def block_count(self) -> int:
        """Count the layers, the multi-token prediction layer included."""
        return self.count("block_count")

    @property
    def nextn_layers(self) -> int:
        """Count the multi-token prediction layers."""
        return self.count("nextn_predict_layers")

    @property
    def experts(self) -> tuple[int, int]:
        """Give (routed experts a layer, used for a token); (0, 0) for a dense model."""
        used = [n for n in self.array(f"{self.architecture}.expert_used_count") if type(n) is int]
        return self.count("expert_count"), max(used, default=self.count("expert_used_count"))

    @property
    def type_name(self) -> str:
        """Name the quantization: what the file says, or else the type with most weights."""
        stated = self.get("general.file_type")
        if isinstance(stated, int) and stated in FILE_TYPES:
            return FILE_TYPES[stated]
        weights: Counter[str] = Counter()
        for tensor in self.tensors:
            weights[tensor.type] += tensor.elements
        return weights.most_common(1)[0][0] if weights else "?"


def read_info(path: Path) -> GGUFInfo:
    """Read and check the GGUF at `path` and its other parts; raises ModelError with the reason."""
    header = read_header(path)
    parts, missing = _other_parts(path, header.metadata)
    others = [read_header(part) for part in parts]
    for part, other in zip(parts, others, strict=True):
        _check_part(part, other.metadata)
    tensors = header.tensors + tuple(t for other in others for t in other.tensors)
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise ModelError(f"{path} is damaged: two of its parts hold the same tensor.")
    return GGUFInfo(
        path=path,
        parts=(path, *parts),
        missing=missing,
        size_bytes=header.size_bytes + sum(other.size_bytes for other in others),
        version=header.version,
        metadata=header.metadata,
        tensors=tensors,
    )


def is_later_part(path: Path) -> bool:
    """Tell whether a file name says: part of a split model, not its first."""
    match = SPLIT_NAME.match(path.name)
    return match is not None and int(match["number"]) > 1


def _other_parts(path: Path, metadata: dict[str, Value]) -> tuple[list[Path], tuple[Path, ...]]:
    count, number = metadata.get("split.count", 1), metadata.get("split.no", 0)
    if not isinstance(count, int) or not isinstance(number, int) or not 0 <= number < max(count, 1):
        raise ModelError(f"{path} is damaged: it says part {number!r} of {count!r}.")
    if count <= 1:
        return [], ()
    match = SPLIT_NAME.match(path.name)
    if not match or int(match["count"]) != count:
        raise ModelError(
            f"{path} is one of {count} parts, but its name does not say so.",
            f"Name the parts NAME-00001-of-{count:05}.gguf and so on.",
        )
    siblings = [
        path.with_name(f"{match['stem']}-{i:05}-of-{count:05}.gguf") for i in range(1, count + 1)
    ]
    if number != 0:
        raise ModelError(f"{path} is part {number + 1} of {count}.", f"Open {siblings[0]}.")
    there = [part for part in siblings[1:] if part.is_file()]
    return there, tuple(part for part in siblings[1:] if not part.is_file())


def _check_part(path: Path, metadata: dict[str, Value]) -> None:
    """Raise ModelError if a part is not the one that its name says: llama.cpp only says numbers."""
    match = SPLIT_NAME.match(path.name)
    said = metadata.get("split.no")
    if match is None or said != int(match["number"]) - 1:
        what = f"part {said + 1}" if isinstance(said, int) else "no part of a model"
        raise ModelError(
            f"{path} is {what} by what it holds.",
            "Give the parts their names back, or get them again.",
        )


def check_runnable(info: GGUFInfo, alone: bool = True) -> None:
    """Raise ModelError for a file that llama.cpp could not load, or would abort on.

    `alone`: it is to run by itself, and so must hold more than a layer that drafts.
    """

    def refuse(what: str, hint: str = "Convert the checkpoint again.") -> ModelError:
        return ModelError(f"{info.path} cannot run: {what}.", hint)

    if info.missing:
        names = ", ".join(part.name for part in info.missing[:3])
        raise refuse(f"it lacks {len(info.missing)} of its parts ({names})", "Download them.")
    if not info.architecture:
        raise refuse("it names no architecture")
    if not info.tensors:
        raise refuse("it holds no tensors", "It may be a vocabulary only; get the model itself.")
    for tensor in info.tensors:
        if tensor.type in ("Q8_1", "Q8_K"):  # kernels take these for activations only
            raise refuse(f"tensor {tensor.name} is stored as {tensor.type}, a type for activations")
    if not 0 < info.block_count <= MAX_LAYERS:
        raise refuse(f"it claims {info.block_count} layers, 1 to {MAX_LAYERS} are possible")
    if alone and holds_only_nextn(info):
        raise refuse(
            "it holds only a multi-token prediction layer, which drafts for another file",
            "Run the model's main file, and name this one with --draft-model.",
        )
    scaling = info.get(f"{info.architecture}.rope.scaling.type")
    if scaling is not None and scaling not in ROPE_SCALINGS:
        raise refuse(f"its rope.scaling.type is {scaling!r}", "Known: " + ", ".join(ROPE_SCALINGS))
    for find in (
        _expert_problem,
        nextn_problem,
        _heads_problem,
        _latent_problem,
        sparse_problem,
        _vocabulary_problem,
    ):
        problem = find(info)
        if problem:
            raise refuse(problem)


def _expert_problem(info: GGUFInfo) -> str:
    """Name the assertion of llama.cpp's load_hparams that the expert counts would fail."""
    n_expert, n_used = info.experts
    groups, groups_used = info.count("expert_group_count"), info.count("expert_group_used_count")
    if n_expert == 0:
        return f"no experts, but {n_used} used and {groups} groups" if n_used or groups else ""
    if not 0 < n_used <= n_expert <= MAX_EXPERTS:
        return f"{n_used} of {n_expert} experts are used for a token"
    if groups >= n_expert:
        return f"{n_expert} experts in {groups} groups"
    if groups > 1 and n_expert % groups:
        return f"{n_expert} experts do not divide into {groups} groups"
    if groups > 1 and not 0 < groups_used < groups:
        return f"{groups_used} of {groups} expert groups are used; fewer than all must be"
    return ""


def _heads_problem(info: GGUFInfo) -> str:
    """Name what is wrong with the counts of heads: llama.cpp asserts on it with its first graph."""
    arch = info.architecture
    if any(info.array(f"{arch}.attention.{key}") for key in ("head_count", "head_count_kv")):
        return ""  # by layer, some of which may have none
    heads, shared = info.count("attention.head_count"), info.count("attention.head_count_kv")
    if f"{arch}.attention.head_count_kv" not in info.metadata or not heads:
        return ""
    if not 0 < shared <= heads or heads % shared:
        return f"{heads} attention heads share {shared} heads of keys and values"
    if info.count("attention.key_length_mla") and shared != 1:
        return f"{shared} heads of keys and values, where latent attention has 1"
    return ""


def _latent_problem(info: GGUFInfo) -> str:
    """Name what is wrong with the head sizes of latent attention (V2 to V3.2)."""
    if info.architecture not in ("deepseek2", "deepseek32"):
        return ""
    key, value = info.count("attention.key_length_mla"), info.count("attention.value_length_mla")
    if (key == 0) != (value == 0):
        return "only one of attention.key_length_mla and value_length_mla is there"
    rope = info.count("rope.dimension_count")
    heads = key or info.count("attention.key_length")
    if heads and rope >= heads:
        return f"{rope} of {heads} dimensions of a head are rotated; fewer than all must be"
    return ""


def _vocabulary_problem(info: GGUFInfo) -> str:
    """Name what llama_vocab would abort on, or read beyond the end of, in the list of tokens."""
    if "tokenizer.ggml.tokens" not in info.metadata:
        return ""
    tokens = info.metadata["tokenizer.ggml.tokens"]
    texts = _raw_texts(tokens)
    if texts is None:
        return "tokenizer.ggml.tokens is no list of texts"
    for key in ("tokenizer.ggml.scores", "tokenizer.ggml.token_type"):
        values = info.metadata.get(key, ())
        count = values.count if isinstance(values, StoredArray) else _length(values)
        if isinstance(values, StoredArray) and values.kind not in (4, 5, 6):
            return f"{key} holds no 32-bit numbers"  # llama.cpp takes them for such unseen
        if key in info.metadata and count != len(texts):
            return f"{key} has {count} entries for {len(texts)} tokens"
    # llama.cpp reads a text up to a zero byte, and makes up different ones for empty texts.
    ids: dict[bytes, int] = {}
    for token, text in enumerate(texts):
        seen = (text.partition(b"\0")[0] if 0 in text else text) or b"[EMPTY_%d]" % token
        first = ids.setdefault(seen, token)
        if first != token:
            shown = seen[:80].decode("utf-8", "replace")
            return f"its tokens {first} and {token} have the same text {shown!r}"
    return ""


def _raw_texts(value: Value) -> list[bytes] | None:
    """Give a list of texts as bytes, None when it holds anything else."""
    if isinstance(value, StoredArray):
        return value.read_raw_texts() if value.kind == STRING else None
    if not isinstance(value, tuple):
        return None
    texts = [item.encode() for item in value if isinstance(item, str)]
    return texts if len(texts) == len(value) else None


def _length(value: Value) -> int:
    return len(value) if isinstance(value, tuple) else 0
