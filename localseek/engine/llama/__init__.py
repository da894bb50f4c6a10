"""The only package that knows llama_cpp: models, contexts, batches, samplers as Python objects.

Thin wrappers over llama.cpp's C interface, pinned to llama-cpp-python 0.3.36 (struct layouts and
the NextN symbols are bound to that version). Each object frees what it holds in `close`. Runs in
the engine child only; knows nothing about requests or text streams.
"""

import ctypes
from collections.abc import Callable
from typing import Any, NoReturn

import llama_cpp.llama_cpp as lib
import numpy as np
from llama_cpp import __version__ as llama_cpp_version
from llama_cpp import llama_cpp_ext as ext

from localseek.engine.llama.backend import (
    backend_facts,
    because,
    devices,
    forget_complaints,
    start_backend,
)
from localseek.engine.llama.batch import Batch
from localseek.engine.llama.candidates import Candidates
from localseek.engine.llama.devices import (
    GGML_TYPES,
    Allotted,
    Arrangement,
    Devices,
    allotted,
    serve,
)
from localseek.engine.llama.model import Model, Vocabulary
from localseek.engine.llama.sampler import Sampler, SamplerOptions
from localseek.engine.llama.types import Bytes, Floats
from localseek.errors import EngineError
from localseek.options import MAX_DEPTH

__all__ = [
    "BUILD", "AbortFlag", "Aborted", "Allotted", "Arrangement", "Batch", "Bytes", "Candidates",
    "Context", "Devices", "Floats", "Full", "Model", "Sampler", "SamplerOptions",
    "Vocabulary", "allotted", "backend_facts", "devices", "serve", "start_backend",
]  # fmt: skip

CONTEXT_STEP = 256  # tokens; llama.cpp's caches come in multiples of it
FULL, ABORTED, NO_MEMORY = 1, 2, -2  # what llama_decode returns then
BUILD = f"llama-cpp-python {llama_cpp_version}"  # saved states are bound to it
KEPT_VIEWS = 64
SPOILT = -1  # rows that can be taken back from a cache after a decode that failed: not even none

# Bound once more, so that they give an address and not a pointer object that costs more to read.
_address = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
_logits = _address(ctypes.cast(lib.llama_get_logits, ctypes.c_void_p).value or 0)
_hidden = _address(ctypes.cast(ext.llama_get_embeddings_nextn, ctypes.c_void_p).value or 0)


class Aborted(EngineError):
    """A decode was given up because its `AbortFlag` was set."""


class Full(EngineError):
    """A decode found too few free cells in the cache; nothing of it was run."""


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


class Context:
    """A llama.cpp context: its cache, its last logits and hidden rows.

    With `sequences` more than 1 they share all cells, and a cell can belong to several.
    """

    def __init__(  # noqa: PLR0913, PLR0917  (each a field of llama_context_params)
        self, model: Model, n_ctx: int, threads: int, n_batch: int = 512,
        target: "Context | None" = None, hidden: bool = False, abort: AbortFlag | None = None,
        cache_type: str = "f16", sequences: int = 1,
    ) -> None:  # fmt: skip
        """Make a context; with `target` it runs the multi-token prediction layer beside it.

        `hidden` makes every decode give the hidden rows that this layer takes, and keeps what is
        needed to take back the last `MAX_DEPTH` rows of a decode; `abort` ends decodes early.
        """
        parameters = lib.llama_context_default_params()
        # llama.cpp rounds the context up too, but would shorten its batches to the smaller figure.
        parameters.n_ctx = -(-n_ctx // CONTEXT_STEP) * CONTEXT_STEP
        parameters.n_batch = parameters.n_ubatch = n_batch
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.n_seq_max, parameters.kv_unified = sequences, sequences > 1
        parameters.type_k = parameters.type_v = GGML_TYPES[cache_type]
        parameters.no_perf = True
        # V4's cache cannot be trimmed far anyway; whole, its windows would take many gigabytes.
        parameters.swa_full = model.metadata("general.architecture") != "deepseek4"
        parameters.n_rs_seq = MAX_DEPTH if hidden else 0
        if target is not None:
            parameters.ctx_type = lib.LLAMA_CONTEXT_TYPE_MTP
            parameters.ctx_other = target.handle
        self.model, self.abort = model, abort
        forget_complaints()
        self._views: dict[tuple[int, int, int], Floats] = {}
        self._greatest: dict[int, Callable[[], Any]] = {}  # address of a row → its argmax
        self._row_bytes = model.n_vocab * ctypes.sizeof(ctypes.c_float)
        self.handle: Any = lib.llama_init_from_model(model.handle, parameters)
        if not self.handle:
            raise EngineError(
                f"llama.cpp could not make a context of {n_ctx:,} tokens{because()}.",
                "Choose a smaller one with --ctx, or another --cache-type.",
            )
        self.n_ctx = int(lib.llama_n_ctx(self.handle))
        self.n_batch = int(lib.llama_n_batch(self.handle))
        if abort is not None:
            lib.llama_set_abort_callback(self.handle, abort.callback, abort.data)
        self.memory = lib.llama_get_memory(self.handle)
        # Caches that fold tokens together keep snapshots to take rows back, if they can at all.
        self._snapshots = int(lib.llama_n_rs_seq(self.handle))
        self._window = 0 if parameters.swa_full else int(lib.llama_model_n_swa(model.handle))
        self._removable = 0  # rows of the last decode that snapshots can take back
        if target is not None:
            ext.llama_set_embeddings_nextn(self.handle, True, True)
        elif hidden:
            ext.llama_set_embeddings_nextn(self.handle, True, False)

    def decode(self, batch: Batch) -> None:
        """Run a batch; raises Aborted when told to end, Full, EngineError if llama.cpp cannot."""
        status = lib.llama_decode(self.handle, batch.struct)
        if self._snapshots:
            self._removable = batch.struct.n_tokens - 1 if not status else SPOILT
        if status:
            self._fail(status)

    def _fail(self, status: int) -> NoReturn:
        """Raise what a decode's status means."""
        if status == ABORTED:
            raise Aborted("The answer was stopped.")
        if status == NO_MEMORY:
            raise EngineError(
                "The engine ran out of memory.",
                "A smaller --ctx or model needs less, or close other programs.",
            )
        error = Full if status == FULL else EngineError
        raise error(
            f"llama.cpp could not decode ({status}).",
            "The context may be full; start a new conversation or raise --ctx.",
        )

    def give_hidden(self, wanted: bool) -> None:
        """Make later decodes give the hidden row of every token after the final norm, or not."""
        ext.llama_set_embeddings_nextn(self.handle, wanted, False)

    def logits(self, rows: int) -> Floats:
        """Give the logits of the last decode's output rows, [rows, n_vocab], until the next one."""
        return self._view(_logits(self.handle), rows, self.model.n_vocab)

    def likeliest(self, row: int) -> int:
        """Give the token with the greatest logit in an output row of the last decode."""
        address = _logits(self.handle) + row * self._row_bytes
        found = self._greatest.get(address) or self._watch(address)
        return int(found())

    def first_likeliest(self) -> Callable[[], int]:
        """Make a function that gives `likeliest(0)`, for one that is called for every token."""
        handle, known, watch, logits = self.handle, self._greatest, self._watch, _logits

        def likeliest() -> int:
            address = logits(handle)
            return int((known.get(address) or watch(address))())

        return likeliest

    def _watch(self, address: int) -> Callable[[], Any]:
        """Keep what finds the greatest logit of a row; llama.cpp's memory seldom moves."""
        if len(self._greatest) > KEPT_VIEWS:
            self._greatest.clear()
        found: Callable[[], Any] = self._view(address, 1, self.model.n_vocab)[0].argmax
        self._greatest[address] = found
        return found

    def check_numbers(self, row: int) -> None:
        """Raise EngineError if the logits of a batch's row (-1: the last) are not numbers."""
        logits = lib.llama_get_logits_ith(self.handle, row)
        if np.isnan(np.ctypeslib.as_array(logits, (self.model.n_vocab,))).any():
            raise EngineError(
                "The model computes no numbers (NaN): its file is damaged, or this build fails it.",
                "`localseek models verify` says more.",
            )

    def hidden(self, rows: int) -> Floats:
        """Give the first hidden rows of the last decode, [rows, n_embd], until the next one.

        With a target context (`target`), only output rows have one, and it is theirs for certain
        only where all rows are outputs.
        """
        return self._view(_hidden(self.handle), rows, self.model.n_embd)

    def _view(self, address: int, rows: int, width: int) -> Floats:
        """Give llama.cpp's own memory as an array; it seldom moves, so arrays are kept."""
        key = (address, rows, width)
        found = self._views.get(key)
        if found is None:
            if len(self._views) > KEPT_VIEWS:
                self._views.clear()
            memory = (ctypes.c_float * (rows * width)).from_address(address)
            found = np.ctypeslib.as_array(memory).reshape(rows, width)
            self._views[key] = found
        return found

    def state_bytes(self) -> int:
        """Give how many bytes `state` takes now."""
        return int(lib.llama_state_seq_get_size(self.handle, 0))

    def state(self) -> Bytes:
        """Give what the cache holds of the sequence, in llama.cpp's own form."""
        data = np.empty(self.state_bytes(), np.uint8)
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        size = lib.llama_state_seq_get_data(self.handle, pointer, data.size, 0)
        return data[:size]

    def put_state(self, data: Bytes) -> bool:
        """Put a state back into the empty cache; False when llama.cpp does not take it."""
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        self._removable = 0
        return bool(lib.llama_state_seq_set_data(self.handle, pointer, data.size, 0) == data.size)

    def length(self) -> int:
        """Give the position after the last one that the cache holds."""
        return int(lib.llama_memory_seq_pos_max(self.memory, 0)) + 1

    def trim(self, length: int) -> bool:
        """Forget all positions from `length` on; False when the cache cannot (then it is empty)."""
        if self._trimmable(length) and lib.llama_memory_seq_rm(self.memory, 0, length, -1):
            return True
        lib.llama_memory_clear(self.memory, True)
        self._removable = 0
        return False

    def cut(self, sequence: int, length: int) -> bool:
        """Forget a sequence from position `length` on; False when it had to be forgotten whole."""
        if lib.llama_memory_seq_rm(self.memory, sequence, length, -1):
            return True
        lib.llama_memory_seq_rm(self.memory, sequence, 0, -1)
        return False

    def share(self, source: int, sequence: int, length: int) -> None:
        """Let an empty sequence have the first `length` cells of another one too."""
        lib.llama_memory_seq_cp(self.memory, source, sequence, 0, length)

    @property
    def takes_back(self) -> bool:
        """Tell whether all rows of a decode can be forgotten again, not only its later ones."""
        return not self._snapshots and not self._window

    def _trimmable(self, length: int) -> bool:
        """Tell what llama.cpp does not check: snapshots lost, or a window with a gap before it."""
        if self._snapshots:
            removed = int(lib.llama_memory_seq_pos_max(self.memory, 0)) + 1 - length
            fits = length == 0 or max(removed, 0) <= self._removable
            self._removable = 0 if length == 0 or removed > 0 else self._removable
            return fits
        if self._window:
            first = int(lib.llama_memory_seq_pos_min(self.memory, 0))
            return first <= max(0, length - self._window)
        return True

    def close(self) -> None:
        """Free the context."""
        if self.handle:
            lib.llama_free(self.handle)
            self.handle = None
