"""Where the bytes of a model are: by layer, routed experts apart, and what a token adds to a cache.

Takes the facts of a GGUF file (or of one that a conversion would write), gives a frozen
`ModelShape`. Names of tensors and keys are llama.cpp's (src/llama-arch.cpp). Knows nothing about
machines.
"""

import re
from dataclasses import dataclass, replace

from localseek.gguf.info import GGUFInfo
from localseek.placing.caches import CompressedCache, read_compressed, type_bytes

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
LAYER = re.compile(r"blk\.(\d+)\.(.+)")
RECURRENT = re.compile(r"\.(?:ssm|time_mix|shortconv)_?")  # parts of layers with a state
EXPERTS = re.compile(r"ffn_(gate|up|down|gate_up)_exps\.")
INDEXER_CACHE = ("deepseek32",)  # keeps f16 keys of its indexer beside the latent vectors


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor by name and size."""

    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer: what every token reads, and the routed experts, of which it reads a few."""

    index: int
    draft: bool  # the multi-token prediction layer
    always: tuple[Part, ...]  # attention, norms, router, shared experts, dense FFN
    experts: tuple[Part, ...]  # gate, up, down, each the stack of all experts

    @property
    def always_bytes(self) -> int:
        """Give the bytes that every token reads."""
        return sum(part.size_bytes for part in self.always)

    @property
    def experts_bytes(self) -> int:
        """Give the bytes of all routed experts."""
        return sum(part.size_bytes for part in self.experts)


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What placement needs to know of a model; sizes in bytes."""

    name: str
    architecture: str
    type: str
    layers: tuple[Layer, ...]
    input: tuple[Part, ...]  # token embeddings and what belongs to no layer; always in RAM
    output: tuple[Part, ...]  # the head and its norm
    context_trained: int
    n_embd: int
    n_vocab: int
    n_head: int
    head_floats: int  # keys and values of all heads of a token, were they kept whole
    cache_floats: tuple[int, ...]  # by layer, what a token leaves in the cache
    indexer_floats: int  # a layer, in f16 whatever the cache's type
    latent: bool  # latent attention: the cache holds one compressed vector
    n_expert: int
    n_expert_used: int
    n_ff: int  # the widest FFN that a token passes
    compressed: CompressedCache | None = None  # V4's, which are no sum over tokens
    draft_file: str = ""  # the file of the draft layer, if it is another

    @property
    def weights_bytes(self) -> int:
        """Give the bytes of all tensors."""
        loose = sum(part.size_bytes for part in (*self.input, *self.output))
        return loose + sum(layer.always_bytes + layer.experts_bytes for layer in self.layers)

    @property
    def draft_layers(self) -> tuple[Layer, ...]:
        """Give the multi-token prediction layers."""
        return tuple(layer for layer in self.layers if layer.draft)

    @property
    def branches(self) -> bool:
        """Tell whether several sequences can share a context: not with states or V4's cache."""
        names = (part.name for layer in self.layers for part in layer.always)
        return self.compressed is None and not any(RECURRENT.search(name) for name in names)

    def layer_cache_bytes(self, index: int, cache_type: str) -> int:
        """Give what a token adds to the cache of a layer."""
        if self.compressed:
            return self.compressed.token_bytes(index, self.layers[index].draft, cache_type)
        indexer = 2 * self.indexer_floats
        return type_bytes(cache_type, self.cache_floats[index]) + indexer

    def cache_bytes(self, cache_type: str, draft: bool = False) -> int:
        """Give what a token adds to the cache of the trunk's layers, or of the draft layers."""
        chosen = (layer.index for layer in self.layers if layer.draft == draft)
        return sum(self.layer_cache_bytes(index, cache_type) for index in chosen)

    @property
    def full_attention_bytes(self) -> int:
        """Give what a token would add at f16 if every head kept its keys and values."""
        return sum(2 * self.head_floats for layer in self.layers if not layer.draft)


def read_shape(info: GGUFInfo, draft: GGUFInfo | None = None) -> ModelShape:
    """Sort a file's tensors and counts into a shape, with the layer of a file that drafts."""
    shape = _read_shape(info)
    if draft is None:
        return shape
    own = _read_shape(draft)
    # It brings its own head, which lies where the layer does, and embeddings.
    layer = replace(own.layers[-1], always=(*own.layers[-1].always, *own.output))
    return replace(
        shape,
        layers=(*shape.layers, layer),
        input=(*shape.input, *own.input),
        cache_floats=(*shape.cache_floats, own.cache_floats[-1]),
        draft_file=str(draft.path),
    )


def _read_shape(info: GGUFInfo) -> ModelShape:
    count = info.block_count
    always: list[list[Part]] = [[] for _ in range(count)]
    experts: list[list[Part]] = [[] for _ in range(count)]
    loose: dict[bool, list[Part]] = {False: [], True: []}
    for tensor in info.tensors:
        part = Part(tensor.name, tensor.size_bytes)
        match = LAYER.match(tensor.name)
        if match is None or int(match[1]) >= count:
            loose[tensor.name.startswith("output")].append(part)
        else:
            kind = experts if EXPERTS.match(match[2]) else always
            kind[int(match[1])].append(part)
    if not any(part.name == "output.weight" for part in loose[True]):
        # Tied embeddings: llama.cpp puts a second copy where the head is.
        tied = next((p for p in loose[False] if p.name == "token_embd.weight"), None)
        loose[True] += [tied] if tied else []
    first_draft = count - info.nextn_layers
    n_head = _most(info, "attention.head_count")
    cache, heads = _cache_floats(info, n_head)
    n_expert, n_used = info.experts
    shared = info.count("expert_shared_count") or 1
    return ModelShape(
        name=info.name,
        architecture=info.architecture,
        type=info.type_name,
        layers=tuple(
            Layer(index, index >= first_draft, tuple(always[index]), tuple(experts[index]))
            for index in range(count)
        ),
        input=tuple(loose[False]),
        output=tuple(loose[True]),
        context_trained=info.context_length,
        n_embd=info.count("embedding_length"),
        n_vocab=info.count("vocab_size") or _vocabulary(info),
        n_head=n_head,
        head_floats=heads,
        cache_floats=cache,
        indexer_floats=info.count("attention.indexer.key_length")
        if info.architecture in INDEXER_CACHE
        else 0,
        latent=info.count("attention.key_length_mla") > 0,
        n_expert=n_expert,
        n_expert_used=n_used,
        n_ff=max(
            _most(info, "feed_forward_length"),
            info.count("expert_feed_forward_length") * (n_used + shared),
        ),
        compressed=read_compressed(info),
    )


def _most(info: GGUFInfo, key: str) -> int:
    """Give a count that may be a list with one for each layer: the largest."""
    listed = [n for n in info.array(f"{info.architecture}.{key}") if type(n) is int]
    return max(listed, default=0) or info.count(key)


def _vocabulary(info: GGUFInfo) -> int:
    sizes = (t.shape[-1] for t in info.tensors if t.name == "token_embd.weight")
    return next(sizes, 0)


def _cache_floats(info: GGUFInfo, n_head: int) -> tuple[tuple[int, ...], int]:
    """Give what a token leaves in each layer's cache, and what whole heads would leave, in floats.

    With latent attention the cache holds the compressed vector and the rotated part of the key
    only (DeepSeek-V2 paper, section 2.1); the values are a view of it.
    """
    width = info.count("embedding_length") // max(1, n_head)
    key = info.count("attention.key_length_mla") or info.count("attention.key_length") or width
    value = info.count("attention.value_length_mla") or info.count("attention.value_length")
    value = value or width
    whole = n_head * (key + value)
    count = info.block_count
    if info.count("attention.key_length_mla"):
        return (info.count("attention.key_length"),) * count, whole
    listed = [n for n in info.array(f"{info.architecture}.attention.head_count_kv")]
    heads = [n for n in listed if type(n) is int]
    if len(heads) != count:
        heads = [info.count("attention.head_count_kv") or n_head] * count
    return tuple(n * (key + value) for n in heads), whole
