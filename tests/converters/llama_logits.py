"""Run a GGUF file through llama.cpp and store its logits: a program, run in a child process.

    python llama_logits.py MODEL.gguf OUT.npz TOKEN[,TOKEN...] [MODEL.gguf OUT.npz TOKENS…]

OUT gets `logits` [n, vocab], one row a token, and, if the file has an MTP layer, `mtp_logits`
[n - 1, vocab]: row i predicts token i + 2 from token i + 1 and the trunk's hidden row i.
Caches are F32, so that differences are the converter's and not the cache's.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as llama
from llama_cpp import llama_cpp_ext

LLAMA_CONTEXT_TYPE_MTP = llama.LLAMA_CONTEXT_TYPE_MTP


def context_params(n: int) -> Any:
    params = llama.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = max(n, 64)
    params.n_threads = params.n_threads_batch = 2
    params.type_k = params.type_v = llama.GGML_TYPE_F32
    # Flash attention on the CPU rounds queries and values to F16.
    params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return params


def fill(batch: Any, tokens: list[int]) -> None:
    batch.n_tokens = len(tokens)
    for row, token in enumerate(tokens):
        batch.token[row] = token
        batch.pos[row] = row
        batch.n_seq_id[row] = 1
        batch.seq_id[row][0] = 0
        batch.logits[row] = 1


def logits_of(context: Any, rows: int, n_vocab: int) -> Any:
    found = [llama.llama_get_logits_ith(context, row) for row in range(rows)]
    return np.stack([np.ctypeslib.as_array(row, shape=(n_vocab,)).copy() for row in found])


def mtp_logits(model: Any, target: Any, tokens: list[int], hidden: Any, n_vocab: int) -> Any:
    params = context_params(len(tokens))
    params.ctx_type = LLAMA_CONTEXT_TYPE_MTP
    params.ctx_other = target
    context = llama.llama_init_from_model(model, params)
    assert context, "no MTP context"
    llama_cpp_ext.llama_set_embeddings_nextn(context, True, True)
    follow = tokens[1:]
    n_embd = hidden.shape[1]
    batch = llama.llama_batch_init(len(follow), n_embd, 1)
    # A batch with hidden rows has no room for tokens: it borrows ours.
    own = (llama.llama_token * len(follow))()
    batch.token = own
    fill(batch, follow)
    rows = np.ctypeslib.as_array(batch.embd, shape=(len(follow), n_embd))
    rows[:] = hidden[: len(follow)]
    assert llama.llama_decode(context, batch) == 0, "MTP decode failed"
    return logits_of(context, len(follow), n_vocab)


def main(path: str, out: str, tokens: list[int]) -> None:
    params = llama.llama_model_default_params()
    params.n_gpu_layers = 0
    params.load_mtp = True
    params.use_extra_bufts = False  # AMX tiles take no latent attention
    model = llama.llama_model_load_from_file(path.encode(), params)
    assert model, f"cannot load {path}"
    n_vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    n_embd = llama.llama_model_n_embd(model)
    context = llama.llama_init_from_model(model, context_params(len(tokens)))
    has_mtp = llama.llama_model_n_layer_nextn(model) > 0
    if has_mtp:
        llama_cpp_ext.llama_set_embeddings_nextn(context, True, False)
    batch = llama.llama_batch_init(len(tokens), 0, 1)
    fill(batch, tokens)
    assert llama.llama_decode(context, batch) == 0, "decode failed"
    result = {"logits": logits_of(context, len(tokens), n_vocab)}
    if has_mtp:
        pointer = llama_cpp_ext.llama_get_embeddings_nextn(context)
        hidden = np.ctypeslib.as_array(
            ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), shape=(len(tokens), n_embd)
        ).copy()
        result["mtp_logits"] = mtp_logits(model, context, tokens, hidden, n_vocab)
    np.savez(out, **result)


if __name__ == "__main__":
    llama.llama_backend_init()
    for first in range(1, len(sys.argv), 3):
        path, out, tokens = sys.argv[first : first + 3]
        main(path, out, [int(token) for token in tokens.split(",")])
