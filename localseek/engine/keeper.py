"""Sequences that come back: before a prompt is read, what an earlier run kept of it is put back.

Joins a decoder with the store of saved sequences. Every problem costs time only: a file that
cannot be used is removed, a notice says so, and the prompt is read again. Knows nothing about
text.
"""

import hashlib
from pathlib import Path

import numpy as np
import psutil

from localseek.engine.decoder import Decoder, common_prefix
from localseek.engine.llama import BUILD, Bytes
from localseek.engine.state import StateError, image, read_head, restore
from localseek.sequences import SequenceStore

WORTH_TOKENS = 64  # fewer are read again in no time
HEAD_BYTES = 1 << 20  # of a model's file, for its fingerprint
SPARE = 1.25  # memory that must be free, as a multiple of an image


def fingerprint(model: Path, caches: str) -> str:
    """Give what a sequence belongs to: the model's file as it is now, build and kind of caches."""
    facts = model.stat()
    with model.open("rb") as file:
        digest = hashlib.blake2b(file.read(HEAD_BYTES), digest_size=16)
    digest.update(f"{facts.st_size} {facts.st_mtime_ns} {BUILD} {caches}".encode())
    return digest.hexdigest()


class Keeper:
    """Saves what a decoder has read and puts it back when a prompt begins alike."""

    def __init__(self, decoder: Decoder, store: SequenceStore, model: str) -> None:
        self._decoder, self._store, self._model = decoder, store, model
        self._own: Path | None = None  # the file that this conversation came from or wrote last
        self._notice = ""

    def before(self, prompt: list[int]) -> str:
        """Put back the sequence that saves most of a prompt's reading; give a notice or ""."""
        self._notice = ""
        least = common_prefix(self._decoder.cached, prompt) + WORTH_TOKENS
        lengths = {path: common_prefix(tokens, prompt) for path, tokens in self._saved().items()}
        best = max(lengths, key=lambda path: lengths[path], default=None)
        if best is not None and lengths[best] >= least:
            try:
                restore(self._decoder, _mapped(best), self._model)
            except (StateError, OSError, ValueError) as error:
                self._refuse(best, error)
            else:
                self._store.touch(best)
                self._own = best
        return self._notice

    def after(self) -> str:
        """Save what the decoder has read if that is worth it; give a notice or ""."""
        self._notice = ""
        cached = self._decoder.cached
        size = self._decoder.state_bytes()
        if len(cached) < WORTH_TOKENS or size > self._store.limit_bytes:
            return ""
        saved = self._saved()
        if any(common_prefix(tokens, cached) == len(cached) for tokens in saved.values()):
            return self._notice
        if size * SPARE > psutil.virtual_memory().available:
            return "The sequence was not saved: too little memory is free."
        try:
            path = self._store.write(self._model, image(self._decoder, self._model))
        except OSError as error:
            return f"The sequence could not be saved: {error.strerror}."
        for old, tokens in saved.items():
            if self._is_covered(old, tokens, common_prefix(tokens, cached)):
                self._store.remove(old)
        self._own = path
        return self._notice

    def _is_covered(self, path: Path, tokens: list[int], shared: int) -> bool:
        """Tell whether the new file makes an old one superfluous.

        A template leaves the reasoning of earlier turns out, so that a conversation's own old
        file rarely begins the new one whole.
        """
        return shared == len(tokens) or (path == self._own and 2 * shared >= len(tokens))

    def _saved(self) -> dict[Path, list[int]]:
        """Give the tokens of every file of this model; what cannot be read is removed."""
        found: dict[Path, list[int]] = {}
        for saved in self._store.list():
            if saved.path.name.startswith(self._model):
                try:
                    found[saved.path] = read_head(_mapped(saved.path), saved.size_bytes)[1]
                except FileNotFoundError:  # another process has just replaced it
                    continue
                except (StateError, OSError, ValueError) as error:
                    self._refuse(saved.path, error)
        return found

    def _refuse(self, path: Path, error: Exception) -> None:
        self._store.remove(path)
        self._notice = f"A saved sequence was left out, {error}: the prompt is read again."


def _mapped(path: Path) -> Bytes:
    return np.memmap(path, np.uint8, "r")
