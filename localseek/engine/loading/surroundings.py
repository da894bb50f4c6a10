"""What was found out around an engine before it closed itself in: layers, workers, the history.

A plain value, made by the child's start. Knows nothing about models.
"""

from dataclasses import dataclass

from localseek.airgap.layers import Layers
from localseek.engine.process.bridge import Remote


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an engine cannot look up itself any more."""

    layers: Layers
    remotes: tuple[Remote, ...] = ()
    history_locked: bool = False  # the history is encrypted

    @property
    def workers(self) -> tuple[str, ...]:
        """Give the addresses of the workers that the bridge leads to."""
        return tuple(remote.facts.address for remote in self.remotes)

    @property
    def network(self) -> str:
        """Say what this process can reach."""
        return self.layers.network(self.workers)
