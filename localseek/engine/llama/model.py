"""A loaded GGUF file and its vocabulary."""

import ctypes
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np
from numpy.typing import NDArray

from localseek.engine.llama.backend import because, start_backend
from localseek.engine.llama.devices import Arrangement
from localseek.engine.llama.stack import on_a_large_stack
from localseek.errors import EngineError

LONG_TEXT = 4096  # bytes; fewer fit any stack
BYTE_STACK = 1024  # bytes of stack for a byte of text; 100,000 without a space took 52 MB
NO_MEMORY = re.compile(r"insufficient memory|failed to allocate|unable to allocate|out of memory")


# Texts of the tokens that begin a turn. A reply that contains one talks to itself.
ROLE_TEXTS = (
    "<｜User｜>", "<｜Assistant｜>", "<|User|>", "<|Assistant|>", "<|im_start|>",
    "<|start_header_id|>",
)  # fmt: skip


@dataclass(frozen=True)
class Vocabulary:
    """What a file says of its tokens that llama.cpp does not heed.

    `plain`: ordinary tokens, with their texts, that llama.cpp makes special. `ends`: further tokens
    that end a reply.
    """

    plain: Mapping[int, str] = field(default_factory=dict)
    ends: frozenset[int] = frozenset()


class Model:
    """A loaded GGUF file and its vocabulary."""

    def __init__(
        self, path: str, load_mtp: bool, progress: Callable[[float], None] | None = None,
        arrangement: Arrangement | None = None, no_alloc: bool = False,
    ) -> None:  # fmt: skip
        """Load the file; raises EngineError when llama.cpp refuses it.

        Without an arrangement llama.cpp places everything as it likes. `no_alloc` reads no
        weights and allots nothing: what contexts would need can be asked of such a model, no more.
        """
        start_backend()
        parameters = lib.llama_model_default_params()
        parameters.load_mtp = load_mtp
        self._arrangement = arrangement
        if arrangement is not None:
            arrangement.apply(parameters, no_alloc)
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
            why = because()
            raise EngineError(
                f"llama.cpp could not load {path}{why}.",
                "A smaller --ctx or model needs less, or close other programs."
                if NO_MEMORY.search(why)
                else "`localseek models show` says what the file holds.",
            )
        self.vocab = lib.llama_model_get_vocab(self.handle)
        self.n_vocab = lib.llama_vocab_n_tokens(self.vocab)
        self.n_embd = lib.llama_model_n_embd_out(self.handle) or lib.llama_model_n_embd(self.handle)
        self.n_nextn = lib.llama_model_n_layer_nextn(self.handle) if load_mtp else 0
        self._pieces: dict[int, bytes] = {}
        self.vocabulary = Vocabulary()

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

    @property
    def branches(self) -> bool:
        """Tell whether a beginning can belong to several sequences, and any end be cut off.

        States of recurrent layers stand for all that was read; V4's cache of llama.cpp keeps
        cells for each sequence apart.
        """
        whole = lib.llama_model_is_recurrent(self.handle) or lib.llama_model_is_hybrid(self.handle)
        return not whole and self.metadata("general.architecture") != "deepseek4"

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
        if parse_special and any(plain in text for plain in self.vocabulary.plain.values()):
            return self._tokenize_around(text)
        return self._tokenize(text, parse_special)

    def _tokenize_around(self, text: str) -> list[int]:
        """Tokenize a text in which tokens stand that llama.cpp takes for special by mistake."""
        found: list[int] = []
        for part in self._control_texts.split(text):
            if part in self._controls:
                found.append(self._controls[part])
            elif part:
                plain = any(one in part for one in self.vocabulary.plain.values())
                found += self._tokenize(part, not plain)
        return found

    @cached_property
    def _controls(self) -> dict[str, int]:
        """Give the texts of the control tokens that are right; none where there are no texts."""
        if lib.llama_vocab_type(self.vocab) == lib.LLAMA_VOCAB_TYPE_NONE:
            return {}
        plain = self.vocabulary.plain
        return {
            self.text(token): token for token in range(self.n_vocab)
            if lib.llama_vocab_is_control(self.vocab, token) and token not in plain
        }  # fmt: skip

    @cached_property
    def _control_texts(self) -> re.Pattern[str]:
        texts = sorted((text for text in self._controls if text), key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, texts))})" if texts else r"(?!)")

    def _tokenize(self, text: str, parse_special: bool) -> list[int]:
        raw = text.encode("utf-8", errors="replace")
        room = len(raw) + 8
        buffer = (lib.llama_token * room)()
        call = partial(
            lib.llama_tokenize, self.vocab, raw, len(raw), buffer, room, False, parse_special
        )
        # llama.cpp splits text by std::regex, which calls itself for each byte of an unbroken run.
        count = call() if len(raw) < LONG_TEXT else on_a_large_stack(call, len(raw) * BYTE_STACK)
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
                shown = named in (b"<think>", b"</think>") or token in self.vocabulary.plain
                found = named if shown else b""
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

    @cached_property
    def ends(self) -> frozenset[int]:
        """Give the tokens that end generation, as llama.cpp knows them."""
        found = frozenset(token for token in range(self.n_vocab) if self.is_end(token))
        return found - self.vocabulary.plain.keys()

    @cached_property
    def stops(self) -> frozenset[int]:
        """Give the tokens at which a reply is over: its ends, and those that begin another turn."""
        begun = {self._controls[text] for text in ROLE_TEXTS if text in self._controls}
        return self.ends | begun | self.vocabulary.ends

    @cached_property
    def unseen(self) -> NDArray[np.int64]:
        """Give the control tokens that end nothing and that no reader sees."""
        control = (t for t in range(self.n_vocab) if lib.llama_vocab_is_control(self.vocab, t))
        return np.array([t for t in control if not self.piece(t) and t not in self.ends], np.int64)

    def close(self) -> None:
        """Free the model; its contexts must be closed before."""
        if self.handle:
            lib.llama_model_free(self.handle)
            self.handle = None
