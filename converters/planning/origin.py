"""What a GGUF file says of where it came from: the source's fingerprint and the recipe.

Takes an open source and the options that decide the bytes, gives `localseek.*` metadata. The
fingerprint is a SHA-256 over the shards' names, sizes and tables of tensors and over the whole
small files, or a GGUF file's metadata; the weights themselves are not read. The same download gives
the same text on every machine: there are no times in it, and no paths.
"""

from __future__ import annotations

import contextlib
import hashlib
import shlex
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version

from converters.layout import Value
from converters.source.checkpoint import Checkpoint
from converters.source.gguf_source import GGUFFile
from converters.source.source import Source
from converters.types.imatrix import Imatrix

# What a conversion reads beside the weights.
_SMALL_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "chat_template.jinja",
)  # fmt: skip


def origin_metadata(checkpoint: Checkpoint, recipe: str) -> dict[str, Value]:
    """Return the keys that tell a file's origin."""
    found = _version()
    found["localseek.source.fingerprint"] = source_fingerprint(checkpoint)
    found["localseek.recipe"] = recipe
    return found


def repeated_metadata(model: GGUFFile, recipe: str) -> dict[str, Value]:
    """Return the keys that change when a GGUF file is the source: one recipe follows another.

    The fingerprint of the checkpoint that it was made from stays; where it tells none, it is the
    source itself.
    """
    earlier = model.get("localseek.recipe")
    chain = f"{earlier}; {recipe}" if isinstance(earlier, str) else recipe
    found = _version()
    if "localseek.source.fingerprint" not in model.metadata:
        found["localseek.source.fingerprint"] = gguf_fingerprint(model)
    return found | {"localseek.recipe": chain}


def _version() -> dict[str, Value]:
    # Run from a folder that was never installed, nobody knows the version.
    with contextlib.suppress(PackageNotFoundError):
        return {"localseek.version": version("localseek")}
    return {}


def recipe_text(
    type_name: str,
    mtp: str = "keep",
    overrides: Sequence[tuple[str, str]] = (),
    fit_bytes: int | None = None,
    imatrix: Imatrix | None = None,
) -> str:
    """Return the options that decide the bytes, as they are written on the command line."""
    words = ["--type", type_name] if fit_bytes is None else ["--fit", str(fit_bytes)]
    if mtp != "keep":
        words += ["--mtp", mtp]
    for pattern, kind in overrides:
        words += ["--tensor-type", f"{pattern}={kind}"]
    if imatrix:
        words += ["--imatrix", imatrix.path.name]
    return shlex.join(words)


def source_fingerprint(checkpoint: Checkpoint) -> str:
    """Return a SHA-256 of a checkpoint that costs no reading of weights."""
    digest = _digest_of_tables(checkpoint)
    for name in _SMALL_FILES:
        path = checkpoint.folder / name
        if path.is_file():
            add_texts(digest, ["file", name, hashlib.sha256(path.read_bytes()).hexdigest()])
    return digest.hexdigest()


def gguf_fingerprint(model: GGUFFile) -> str:
    """Return a SHA-256 of a GGUF model, its metadata included, that reads no weights."""
    digest = _digest_of_tables(model)
    for key, value in model.metadata.items():
        add_texts(digest, ["metadata", key, repr(value)])
    return digest.hexdigest()


def _digest_of_tables(source: Source) -> hashlib._Hash:
    digest = hashlib.sha256()
    for path, size in sorted(source.sizes.items()):
        add_texts(digest, ["shard", path.name, str(size)])
    for stored in sorted(source.tensors.values(), key=lambda one: one.name):
        place = (stored.dtype, stored.shape, stored.offset, stored.size_bytes)
        add_texts(digest, ["tensor", stored.name, stored.shard.name, repr(place)])
    return digest


def add_texts(digest: hashlib._Hash, texts: Iterable[str]) -> None:
    """Add texts so that no two lists of texts can be taken for one another."""
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
