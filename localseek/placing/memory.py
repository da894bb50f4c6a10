"""Memory by device and part: weights, caches, compute buffers, and estimates of the latter.

llama.cpp allots its compute buffers while it loads; a load that allots nothing tells their true
size. Where that is not possible, for a machine that is not there, `estimate_compute` follows what
the graphs of llama.cpp 0.3.36 were seen to need (tests/bench/memory.py compares). Sizes in bytes.
"""

from dataclasses import dataclass

from localseek.placing.shape import ModelShape

CONTEXT_STEP = 256  # tokens; llama.cpp's caches come in multiples of it
FLOAT, MASK = 4, 2  # bytes of an activation, of an entry of the attention mask


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """What lies on a device, by part."""

    device: str
    weights: int = 0
    cache: int = 0
    draft_cache: int = 0
    compute: int = 0  # of the target's and the draft's context together

    @property
    def total(self) -> int:
        """Give the sum of all parts."""
        return self.weights + self.cache + self.draft_cache + self.compute


def cells(n_ctx: int) -> int:
    """Give the cache cells of a context: whole steps."""
    return -(-n_ctx // CONTEXT_STEP) * CONTEXT_STEP


def layer_cache(
    shape: ModelShape, index: int, cache_type: str, n_ctx: int, batch: int, snapshots: int
) -> int:
    """Give the cache of a layer for a context; a layer that drafts has it in f16.

    `snapshots`: how many tokens must be taken back from a cache that folds tokens together.
    """
    draft = shape.layers[index].draft
    kind = "f16" if draft else cache_type
    if shape.compressed:
        return shape.compressed.layer_bytes(index, draft, kind, cells(n_ctx), batch, snapshots)
    return shape.layer_cache_bytes(index, kind) * cells(n_ctx)


@dataclass(frozen=True, slots=True)
class Role:
    """What a device has to compute."""

    layers: bool = True  # attention and FFN of some layers
    output: bool = True
    experts: bool = False  # for layers whose attention is elsewhere
    inputs: bool = False  # embeds tokens for other devices


def estimate_compute(shape: ModelShape, n_ctx: int, n_ubatch: int, role: Role) -> int:
    """Estimate a context's compute buffer on a device with flash attention.

    The largest of the moments that follow each other: logits with the last hidden rows, attention
    with its queries and results (in the latent space, if it is latent), the widest FFN.
    """
    embedded = shape.n_embd
    moments = [0]
    if role.output:
        moments.append(shape.n_vocab + (shape.n_expert_used + 1) * embedded)
    if role.layers:
        queries = 2 * shape.head_floats
        if shape.latent:
            queries += 2 * shape.n_head * max(shape.cache_floats, default=0)
        moments += [queries + embedded, 2 * shape.n_ff + 3 * embedded]
    if role.experts:
        routed = shape.n_ff * shape.n_expert_used // (shape.n_expert_used + 1)
        moments.append(shape.n_expert_used * embedded + 2 * routed)
    if role.inputs:
        moments[:] = [max(moments) + 2 * embedded]
    return n_ubatch * (FLOAT * max(moments) + MASK * cells(n_ctx))
