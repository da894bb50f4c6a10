"""Sequences that come back: before a prompt is read, what an earlier run kept of it is put back.

Joins a decoder with the store of saved sequences. Every problem costs time only: what cannot be
used is left out (and removed if it is damaged), a notice says so, and the prompt is read again.
Knows nothing about text.
"""

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from localseek.engine.decoding.decoder import Decoder
from localseek.engine.llama import BUILD
from localseek.engine.loading.state import (
    DamagedError,
    Head,
    Origin,
    StateError,
    image,
    read_tokens,
    restore,
)
from localseek.store.sequences import SequenceStore

WORTH_TOKENS = 64  # fewer are read again in no time
HEAD_BYTES = 1 << 20  # of a model's file, for its fingerprint; from there on, so many samples:
SAMPLES, SAMPLE_BYTES = 256, 4096  # two models of one shape differ nearly everywhere
SPARE = 1.25  # memory that must be free, as a multiple of an image
Tokens = NDArray[np.int32]


def origin(files: Sequence[Path], caches: str) -> Origin:
    """Give what a sequence belongs to: the model's files as they are now, build, kind of caches."""
    digest = hashlib.blake2b(f"{BUILD} {caches}".encode(), digest_size=16)
    for path in files:
        facts = path.stat()
        digest.update(f" {facts.st_size} {facts.st_mtime_ns} ".encode())
        with path.open("rb") as file:
            digest.update(file.read(HEAD_BYTES))
            for number in range(1, SAMPLES):
                file.seek(facts.st_size * number // SAMPLES)
                digest.update(file.read(SAMPLE_BYTES))
    place = hashlib.blake2b(bytes(files[0].resolve()), digest_size=16)
    return Origin(digest.hexdigest(), place.hexdigest())


def shared(a: Tokens, b: Tokens) -> int:
    """Give how many tokens two sequences have in common from the start."""
    length = min(len(a), len(b))
    differ = np.flatnonzero(a[:length] != b[:length])
    return int(differ[0]) if differ.size else length


class Keeper:
    """Saves what a decoder has read and puts it back when a prompt begins alike."""

    def __init__(self, decoder: Decoder, store: SequenceStore, belongs: Origin) -> None:
        self._decoder, self._store, self._origin = decoder, store, belongs
        self._own: Path | None = None  # the file that this conversation came from or wrote last
        self._notice = ""

    def before(self, prompt: list[int]) -> str:
        """Put back the sequence that saves most of a prompt's reading; give a notice or ""."""
        self._notice = ""
        wanted = np.array(prompt, np.int32)
        least = shared(np.array(self._decoder.cached, np.int32), wanted) + WORTH_TOKENS
        useful = []
        stale = False
        for path, (head, tokens) in self._saved().items():
            if (length := shared(tokens, wanted)) >= least:
                if head.model == self._origin.model:
                    useful.append((length, path))
                stale |= head.model != self._origin.model and head.place == self._origin.place
        for _, path in sorted(useful, reverse=True):
            try:
                self._restore(path)
            except (StateError, OSError, ValueError) as error:
                self._leave_out(path, error)
                continue
            self._store.touch(path)
            self._own = path
            return self._notice
        if stale and not useful:
            self._say("it was made from another state of the model's file, or with other options")
        return self._notice

    def _restore(self, path: Path) -> None:
        with self._store.opened(path) as content:
            if self._store.sealed and content.size > psutil.virtual_memory().available:
                raise StateError("too little memory is free")
            data = np.frombuffer(content.first(content.size), np.uint8)
            restore(self._decoder, data, self._origin.model)

    def after(self) -> str:
        """Save what the decoder has read if that is worth it; give a notice or ""."""
        self.save()
        return self._notice

    def save(self) -> Path | None:
        """Save what the decoder has read if that is worth it; give the file that holds it."""
        self._notice = ""
        cached = np.array(self._decoder.cached, np.int32)
        size = self._decoder.state_bytes()
        if len(cached) < WORTH_TOKENS:
            return None
        if size > self._store.limit_bytes:
            self._notice = (
                "The sequence was not saved: it alone is beyond the limit of saved sequences."
            )
            return None
        model = self._origin.model
        saved = {path: t for path, (head, t) in self._saved().items() if head.model == model}
        for path, tokens in saved.items():
            if shared(tokens, cached) == len(cached):
                return path
        if size * SPARE > psutil.virtual_memory().available:
            self._notice = "The sequence was not saved: too little memory is free."
            return None
        try:
            path = self._store.write(model, image(self._decoder, self._origin))
        except OSError as error:
            self._notice = (
                f"The sequence could not be saved in {self._store.folder}: {error.strerror}. "
                "Make room there, or set LOCALSEEK_HOME."
            )
            return None
        for old, tokens in saved.items():
            if self._is_covered(old, tokens, shared(tokens, cached)):
                self._remove(old)
        self._own = path
        return path

    def _is_covered(self, path: Path, tokens: Tokens, common: int) -> bool:
        """Tell whether the new file makes an old one superfluous.

        A template leaves the reasoning of earlier turns out, so that a conversation's own old
        file rarely begins the new one whole.
        """
        return common == len(tokens) or (path == self._own and 2 * common >= len(tokens))

    def _saved(self) -> dict[Path, tuple[Head, Tokens]]:
        """Give head and tokens of every file that can be read; damaged ones are removed."""
        found = {}
        for saved in self._store.list():
            try:
                with self._store.opened(saved.path) as content:
                    found[saved.path] = read_tokens(content)
            except FileNotFoundError:  # another process has just replaced it
                continue
            except (StateError, OSError, ValueError) as error:
                self._leave_out(saved.path, error)
        return found

    def _leave_out(self, path: Path, error: Exception) -> None:
        if isinstance(error, OSError):
            self._say(f"it cannot be read: {error.strerror}")
        elif isinstance(error, StateError):
            self._say(str(error))
        else:  # a file without a byte cannot be mapped
            self._say("it is damaged")
        if isinstance(error, DamagedError | ValueError):
            self._remove(path)

    def _say(self, why: str) -> None:
        self._notice = f"A saved sequence was left out, {why}: the prompt is read again."

    def _remove(self, path: Path) -> None:
        with contextlib.suppress(OSError):  # then it stays, and the store's limit takes it
            self._store.remove(path)
