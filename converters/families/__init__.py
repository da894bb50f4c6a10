"""The model families that can be converted, found by their Hugging Face architecture.

A family is one module with ARCHITECTURES, GGUF_ARCHITECTURE, metadata() and tensors(); adding one
means writing that module and naming it in _MODULES.
Does not know how tensors are typed, quantized or written.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Protocol, cast

from converters.errors import ConvertError
from converters.layout import Described, Dropped, Target
from converters.source.checkpoint import Checkpoint
from converters.source.config import Config, architecture_of

_MODULES = (
    "deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_v4", "deepseek", "llama", "qwen2",
    "qwen3",
)  # fmt: skip


class Family(Protocol):
    """What a family's module offers."""

    ARCHITECTURES: tuple[str, ...]
    GGUF_ARCHITECTURE: str

    def metadata(self, config: Config, checkpoint: Checkpoint, mtp: bool) -> Described:
        """Return the `{arch}.*` metadata, checked against what the runtime accepts."""
        ...

    def tensors(
        self, config: Config, checkpoint: Checkpoint, mtp: bool
    ) -> Iterator[Target | Dropped]:
        """Yield every target in file order, and every tensor left out on purpose."""
        ...


def draft_family(family: Family) -> Family:
    """Return what writes a family's MTP layer alone, or raise ConvertError if nothing does."""
    name = getattr(family, "DRAFT_MODULE", None)
    if name is None:
        raise ConvertError("--mtp only is for DeepSeek V4: elsewhere the MTP layer is in the file")
    return cast(Family, importlib.import_module(f"converters.families.{name}"))


def find_family(config: Config) -> Family:
    """Return the family of a checkpoint, or raise ConvertError naming its architecture."""
    name = architecture_of(config)
    known: list[str] = []
    for module_name in _MODULES:
        module = importlib.import_module(f"converters.families.{module_name}")
        family = cast(Family, module)
        if name in family.ARCHITECTURES:
            return family
        known.extend(family.ARCHITECTURES)
    raise ConvertError(f"{name} is not supported (only {', '.join(known)})")
