"""Makes a random GGUF with a NextN layer foreseeable: most tokens follow from the one before.

The head is turned towards a chain of tokens (each has one successor), by as much as leaves some
choices to the context; the NextN layer is led to see mostly the last token's embedding. Its drafts
are then often accepted and often not, which random weights would never give. F32 files only.
"""

from pathlib import Path

import gguf
import numpy as np

FIRST = 5  # tokens before it are special


def foreshadow(path: Path, pull: float, seed: int = 1) -> Path:
    """Turn a file's head towards a chain by `pull`, in place, and lead its NextN layer by it."""
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path, "r+").tensors}
    embedding, head = tensors["token_embd.weight"], tensors["output.weight"]
    successor = np.arange(len(embedding))
    np.random.default_rng(seed).shuffle(successor[FIRST:])  # no token leads to one that ends
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    head[successor] += np.float32(pull) * unit
    head.flush()
    for name, joint in tensors.items():
        if name.endswith("nextn.eh_proj.weight"):
            joint[:] = np.float32(0.2) * joint
            joint[:, : len(joint)] += 4 * np.eye(len(joint), dtype=np.float32)
            joint.flush()
    return path
