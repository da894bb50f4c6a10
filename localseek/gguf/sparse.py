"""What llama.cpp demands of V3.2 (`deepseek32`) and V4 (`deepseek4`) files before it runs them.

Takes a file's facts, gives the first problem in words, or nothing. Each is an assertion that would
kill the process, or a division by what is not there (llama.cpp 0.3.36: src/models/deepseek32.cpp,
src/models/deepseek4.cpp, src/llama-kv-cache.cpp). Does not know the tensors' shapes: the loader
checks these itself, and says so.
"""

from localseek.gguf.info import GGUFInfo

_INDEXER = ("head_count", "key_length", "top_k")
_RATIOS = (0, 4, 128)
_STREAMS = 4  # of the residual, the only count that llama.cpp runs
_HADAMARD_LEAST = 64  # the smallest matrix by which indexer heads are rotated
_NEEDED_BY_V4 = (
    "attention.sliding_window", "attention.output_group_count", "attention.output_lora_rank",
    "hyper_connection.sinkhorn_iterations",
)  # fmt: skip


def sparse_problem(info: GGUFInfo) -> str:
    """Name what llama.cpp would abort on in a V3.2 or V4 file, "" for all other files."""
    if info.architecture == "deepseek32":
        return _indexer_problem(info)
    if info.architecture == "deepseek4":
        return _v4_problem(info) or _indexer_problem(info)
    return ""


def _indexer_problem(info: GGUFInfo) -> str:
    for key in _INDEXER:
        if not info.count(f"attention.indexer.{key}"):
            return f"attention.indexer.{key} is missing"
    size, rope = info.count("attention.indexer.key_length"), info.count("rope.dimension_count")
    if size < max(_HADAMARD_LEAST, rope) or size & (size - 1):
        return (
            f"attention.indexer.key_length is {size}; a power of two from {_HADAMARD_LEAST} and "
            f"from the {rope} rotated dimensions is needed"
        )
    return ""


def _v4_problem(info: GGUFInfo) -> str:
    for key in _NEEDED_BY_V4:
        if not info.count(key):
            return f"{key} is missing"
    if info.count("hyper_connection.count") != _STREAMS:
        return f"hyper_connection.count is {info.count('hyper_connection.count')}, not {_STREAMS}"
    ratios = info.array(f"{info.architecture}.attention.compress_ratios")
    if len(ratios) < info.block_count:
        return f"attention.compress_ratios has {len(ratios)} entries for {info.block_count} layers"
    if wrong := [ratio for ratio in ratios if ratio not in _RATIOS]:
        return f"attention.compress_ratios has {wrong[0]!r}; llama.cpp knows 0, 4 and 128"
    heads, groups = info.count("attention.head_count"), info.count("attention.output_group_count")
    if heads % groups:
        return f"{heads} heads do not divide into {groups} output groups"
    width, values = info.count("attention.key_length"), info.count("attention.value_length")
    if width != values or info.count("rope.dimension_count") > width:
        return f"its heads are {width} wide for keys and {values} for values"
    return ""
