"""What a list of models tells of each, as one plain value that can be kept.

Knows nothing about files or machines.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Facts:
    """A model in a list. `obstacle` says why it cannot answer, "" if it can."""

    title: str
    architecture: str
    family: str
    type: str
    size_bytes: int  # of all parts that are there
    parameters: int
    context_length: int
    layers: int
    experts: int
    experts_used: int
    mtp: bool
    only_mtp: bool
    files: tuple[str, ...]  # all parts, the first one first
    missing: tuple[str, ...]  # parts that are not there
    obstacle: str
    drafts: bool  # it drafts where nothing else is said
    shape: dict[str, Any] | None  # a condensed ModelShape; None where there is nothing to place
