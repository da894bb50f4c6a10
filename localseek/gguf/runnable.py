"""Can llama.cpp run a GGUF file without aborting?

Takes a `GGUFInfo`; `check_runnable` refuses what would end in a failed assertion of llama.cpp
0.3.36 (src/llama-model.cpp load_hparams, src/models/deepseek2.cpp, src/llama-vocab.cpp), which
kills the process instead of raising.
"""

from localseek.errors import ModelError
from localseek.gguf.head import STRING
from localseek.gguf.header import StoredArray, Value
from localseek.gguf.info import GGUFInfo
from localseek.gguf.nextn import holds_only_nextn, nextn_problem
from localseek.gguf.sparse import sparse_problem

ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
MAX_LAYERS, MAX_EXPERTS = 512, 1024  # LLAMA_MAX_LAYERS, LLAMA_MAX_EXPERTS


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
        return "tokenizer.ggml.tokens is not a list of strings"
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
