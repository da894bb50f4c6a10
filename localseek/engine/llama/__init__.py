"""The only package that knows llama_cpp: models, contexts, batches, samplers as Python objects.

Thin wrappers over llama.cpp's C interface, pinned to llama-cpp-python 0.3.36 (struct layouts and
the NextN symbols are bound to that version). Each object frees what it holds in `close`. Runs in
the engine child only; knows nothing about requests or text streams.
"""

import ctypes
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np
from llama_cpp import llama_cpp_ext as ext
from llama_cpp._ggml import libggml

from localseek.engine.llama.batch import Batch
from localseek.engine.llama.sampler import Sampler
from localseek.engine.llama.types import Floats
from localseek.errors import EngineError

__all__ = [
    "AbortFlag", "Aborted", "Batch", "Context", "Floats", "Model", "Sampler", "backend_facts",
    "devices", "start_backend",
]  # fmt: skip

CONTEXT_STEP = 256  # tokens; llama.cpp's caches come in multiples of it
ABORTED = 2  # what llama_decode returns then
DEBUG, ERROR, CONTINUED = 1, 4, 5  # enum ggml_log_level in ggml.h
_complaints: deque[str] = deque(maxlen=3)  # llama.cpp's last errors, to say why it refused


@lib.llama_log_callback  # type: ignore[untyped-decorator]  # ctypes has no types for it
def _log(level: int, text: bytes, _: Any) -> None:
    """Write llama.cpp's log to standard error, but for its debugging, and remember errors."""
    if level == ERROR:
        _complaints.append(text.decode(errors="replace").strip())
    if level not in (DEBUG, CONTINUED):
        sys.stderr.buffer.write(text)
        sys.stderr.buffer.flush()


def start_backend() -> None:
    """Start llama.cpp, with a log that survives any bytes it prints; may be called again."""
    lib.llama_log_set(_log, None)
    lib.llama_backend_init()
    _complaints.clear()


def because() -> str:
    """Give llama.cpp's last complaint as the end of a sentence, or nothing."""
    return f": {_complaints[-1].rstrip('.')}" if _complaints else ""


def backend_facts() -> dict[str, str]:
    """Give what this build of llama.cpp can do, for `doctor`."""
    start_backend()
    return {
        "system": lib.llama_print_system_info().decode(errors="replace").strip(),
        "rpc": "yes" if lib.llama_supports_rpc() else "no",
        "mtp": "yes" if hasattr(ext, "llama_set_embeddings_nextn") else "no",
        "devices": ", ".join(devices()) or "CPU",
    }


def devices() -> list[str]:
    """Give name and description of each ggml device."""
    count = ctypes.CFUNCTYPE(ctypes.c_size_t)(("ggml_backend_dev_count", libggml))
    get = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(("ggml_backend_dev_get", libggml))
    text = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)
    name = text(("ggml_backend_dev_name", libggml))
    description = text(("ggml_backend_dev_description", libggml))
    found = [get(index) for index in range(count())]
    return [f"{name(device).decode()} ({description(device).decode()})" for device in found]


class Aborted(EngineError):
    """A decode was given up because its `AbortFlag` was set."""


class AbortFlag:
    """A switch that makes running and later decodes end at their next operation.

    llama.cpp asks a C callback before each operation of its graph. A Python one would cost a
    token of a small model more than its arithmetic, so the callback is the C library's strlen
    and what it is asked of is this flag's text: empty (0, go on) or one character (1, give up).
    """

    def __init__(self) -> None:
        self._text = ctypes.create_string_buffer(2)
        strlen = ctypes.cast(ctypes.CDLL(None).strlen, ctypes.c_void_p)
        self.callback = ctypes.cast(strlen, lib.ggml_abort_callback)
        self.data = ctypes.cast(self._text, ctypes.c_void_p)

    def set(self) -> None:
        """Give up what runs; may be called from any thread."""
        self._text[0] = b"x"

    def clear(self) -> None:
        """Let later decodes run."""
        self._text[0] = b"\0"


class Model:
    """A loaded GGUF file and its vocabulary."""

    def __init__(
        self, path: str, load_mtp: bool, progress: Callable[[float], None] | None = None
    ) -> None:
        """Load the file; raises EngineError when llama.cpp refuses it."""
        start_backend()
        parameters = lib.llama_model_default_params()
        parameters.load_mtp = load_mtp
        last = 0.0

        def report(done: float, _: Any) -> bool:
            nonlocal last
            now = time.monotonic()
            if progress and (done >= 1.0 or now - last > 0.1):
                last = now
                progress(done)
            return True

        self._progress = lib.llama_progress_callback(report)
        parameters.progress_callback = self._progress
        self.handle = lib.llama_model_load_from_file(os.fsencode(path), parameters)
        if not self.handle:
            raise EngineError(
                f"llama.cpp could not load {path}{because()}.",
                "`localseek models show` says what the file holds.",
            )
        self.vocab = lib.llama_model_get_vocab(self.handle)
        self.n_vocab = lib.llama_vocab_n_tokens(self.vocab)
        self.n_embd = lib.llama_model_n_embd_out(self.handle) or lib.llama_model_n_embd(self.handle)
        self.n_nextn = lib.llama_model_n_layer_nextn(self.handle) if load_mtp else 0
        self._pieces: dict[int, bytes] = {}

    @property
    def n_ctx_train(self) -> int:
        """Give the context length that the model was trained for, in tokens."""
        return int(lib.llama_model_n_ctx_train(self.handle))

    @property
    def size_bytes(self) -> int:
        """Give the size of all loaded tensors."""
        return int(lib.llama_model_size(self.handle))

    @property
    def n_params(self) -> int:
        """Give the number of loaded parameters."""
        return int(lib.llama_model_n_params(self.handle))

    @property
    def description(self) -> str:
        """Give llama.cpp's own words for architecture, size and type."""
        buffer = ctypes.create_string_buffer(256)
        lib.llama_model_desc(self.handle, buffer, len(buffer))
        return buffer.value.decode(errors="replace")

    def metadata(self, key: str) -> str | None:
        """Give a metadata value as llama.cpp prints it."""
        buffer = ctypes.create_string_buffer(1)
        length = lib.llama_model_meta_val_str(self.handle, key.encode(), buffer, 1)
        if length < 0:
            return None
        buffer = ctypes.create_string_buffer(length + 1)
        lib.llama_model_meta_val_str(self.handle, key.encode(), buffer, length + 1)
        return buffer.value.decode(errors="replace")

    def tokenize(self, text: str, parse_special: bool = True) -> list[int]:
        """Give the tokens of a text, special tokens by their names, no BOS added."""
        raw = text.encode("utf-8", errors="replace")
        room = len(raw) + 8
        buffer = (lib.llama_token * room)()
        count = lib.llama_tokenize(self.vocab, raw, len(raw), buffer, room, False, parse_special)
        if count < 0:
            raise EngineError("llama.cpp could not tokenize the prompt.")
        return list(buffer[:count])

    def piece(self, token: int) -> bytes:
        """Give the bytes of a token; control tokens are empty, thinking tags are not."""
        found = self._pieces.get(token)
        if found is None:
            found = self._piece(token, special=False)
            if not found:
                named = self._piece(token, special=True)
                found = named if named in (b"<think>", b"</think>") else b""
            self._pieces[token] = found
        return found

    def _piece(self, token: int, special: bool) -> bytes:
        buffer = ctypes.create_string_buffer(256)
        length = lib.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, special)
        if length < 0:
            buffer = ctypes.create_string_buffer(-length)
            length = lib.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, special)
        return buffer.raw[:length]

    def text(self, token: int) -> str:
        """Give a token's text as the vocabulary has it, or nothing for no token."""
        if token < 0:
            return ""
        raw = lib.llama_vocab_get_text(self.vocab, token)
        return raw.decode(errors="replace") if raw else ""

    @property
    def bos(self) -> int:
        """Give the beginning-of-sequence token, or -1."""
        return int(lib.llama_vocab_bos(self.vocab))

    @property
    def eos(self) -> int:
        """Give the end-of-sequence token, or -1."""
        return int(lib.llama_vocab_eos(self.vocab))

    @property
    def add_bos(self) -> bool:
        """Tell whether every sequence begins with BOS."""
        return bool(lib.llama_vocab_get_add_bos(self.vocab))

    def is_end(self, token: int) -> bool:
        """Tell whether a token ends generation."""
        return bool(lib.llama_vocab_is_eog(self.vocab, token))

    def close(self) -> None:
        """Free the model; its contexts must be closed before."""
        if self.handle:
            lib.llama_model_free(self.handle)
            self.handle = None


class Context:
    """A llama.cpp context with one sequence: its cache, its last logits and hidden rows."""

    def __init__(
        self, model: Model, n_ctx: int, threads: int, n_batch: int = 512,
        target: "Context | None" = None, hidden: bool = False, abort: AbortFlag | None = None,
    ) -> None:  # fmt: skip
        """Make a context; with `target` it runs the multi-token prediction layer beside it.

        `hidden` makes every decode give the hidden rows after the final norm; `abort` ends
        decodes early.
        """
        parameters = lib.llama_context_default_params()
        # llama.cpp rounds the context up too, but would shorten its batches to the smaller figure.
        parameters.n_ctx = -(-n_ctx // CONTEXT_STEP) * CONTEXT_STEP
        parameters.n_batch = parameters.n_ubatch = n_batch
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.n_seq_max = 1
        parameters.no_perf = True
        if target is not None:
            parameters.ctx_type = lib.LLAMA_CONTEXT_TYPE_MTP
            parameters.ctx_other = target.handle
        self.model, self.abort = model, abort
        self.handle: Any = lib.llama_init_from_model(model.handle, parameters)
        if not self.handle:
            raise EngineError(
                f"llama.cpp could not make a context of {n_ctx:,} tokens{because()}.",
                "Choose a smaller one with --ctx.",
            )
        self.n_ctx = int(lib.llama_n_ctx(self.handle))
        self.n_batch = int(lib.llama_n_batch(self.handle))
        if abort is not None:
            lib.llama_set_abort_callback(self.handle, abort.callback, abort.data)
        self.memory = lib.llama_get_memory(self.handle)
        if target is not None:
            ext.llama_set_embeddings_nextn(self.handle, True, True)
        elif hidden:
            ext.llama_set_embeddings_nextn(self.handle, True, False)

    def decode(self, batch: Batch) -> None:
        """Run a batch; raises Aborted when told to end, EngineError when llama.cpp cannot."""
        status = lib.llama_decode(self.handle, batch.struct)
        if status == ABORTED:
            raise Aborted("The answer was stopped.")
        if status:
            raise EngineError(
                f"llama.cpp could not decode ({status}).",
                "The context may be full; start a new conversation or raise --ctx.",
            )

    def logits(self, row: int) -> Floats:
        """Give a copy of the logits of an output row, [n_vocab]."""
        pointer = lib.llama_get_logits_ith(self.handle, row)
        return np.ctypeslib.as_array(pointer, shape=(self.model.n_vocab,)).copy()

    def best(self, row: int) -> int:
        """Give the likeliest token of an output row."""
        pointer = lib.llama_get_logits_ith(self.handle, row)
        return int(np.ctypeslib.as_array(pointer, shape=(self.model.n_vocab,)).argmax())

    def hidden(self, count: int) -> Floats:
        """Give a copy of the first `count` hidden rows of the last decode, [count, n_embd]."""
        pointer = ext.llama_get_embeddings_nextn(self.handle)
        return np.ctypeslib.as_array(pointer, shape=(count, self.model.n_embd)).copy()

    def hidden_row(self, row: int) -> Floats:
        """Give a copy of one output row's hidden state, [n_embd]."""
        pointer = ext.llama_get_embeddings_nextn_ith(self.handle, row)
        return np.ctypeslib.as_array(pointer, shape=(self.model.n_embd,)).copy()

    def trim(self, length: int) -> bool:
        """Forget all positions from `length` on; False when the cache cannot (then it is empty)."""
        if lib.llama_memory_seq_rm(self.memory, 0, length, -1):
            return True
        lib.llama_memory_clear(self.memory, True)
        return False

    def close(self) -> None:
        """Free the context."""
        if self.handle:
            lib.llama_free(self.handle)
            self.handle = None
