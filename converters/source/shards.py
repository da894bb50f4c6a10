"""Shards that come and go while a conversion reads them: what it asks of whoever brings them.

A conversion needs one shard after the other, and no shard twice. Whoever brings them (a download)
or takes them away (`--free-source`) is told in which order they are needed, waits until each is
whole, and learns when it may go.
Does not know where shards come from, nor what is in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Shards(Protocol):
    """Brings the shards of a checkpoint's folder; all calls come from the caller's thread."""

    def order(self, names: Sequence[str]) -> None:
        """Hear which shard files are still needed, in the order in which they are first needed.

        Called once, after planning and after an earlier run's work was taken up.
        """

    def take(self, name: str) -> None:
        """Return when the shard is whole in its folder; raise ConvertError if it cannot be.

        Called once a shard, before the first byte of its tensors is read.
        """

    def give_back(self, name: str) -> None:
        """Hear that this conversion reads nothing more of a shard, and needs it no more.

        All that was made of it is synced and in the journal. A shard that an earlier run was
        killed over may be given back before any is taken, and what no tensor is made of at the end.
        """


class Standing:
    """Shards that are in their folder and stay there."""

    def order(self, names: Sequence[str]) -> None:
        """Take note of nothing."""

    def take(self, name: str) -> None:
        """Return at once: what is missing was refused before."""

    def give_back(self, name: str) -> None:
        """Leave the shard where it is."""
