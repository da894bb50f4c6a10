"""The layers between an engine and the rest of the machine, in their order, and what each says.

`leave` first, before a thread is started: an empty network namespace, then a filter of system
calls. `narrow` once it is known which model is meant: Landlock, then Python's audit hook. Each is
tried whatever became of the others, each says whether it holds. Knows nothing about llama.cpp.
"""

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from localseek.airgap import hook, landlock, namespace, seccomp
from localseek.airgap.kernel import Refused
from localseek.airgap.landlock import View
from localseek.system import environment

NAMESPACE, SECCOMP, LANDLOCK, HOOK = "namespace", "seccomp", "Landlock", "audit hook"
MPS = "/tmp/nvidia-mps"  # where the server is that shares NVIDIA's devices, if there is one


@dataclass(frozen=True)
class Layer:
    """One layer: whether it holds, and in words."""

    name: str
    holds: bool
    words: str = "holds"


@dataclass(frozen=True)
class Layers:
    """What became of the layers; `bridged`: TCP to the bridge must stay possible."""

    tried: tuple[Layer, ...] = ()
    bridged: bool = False
    landlock: int = 0  # its version, if it holds

    def holds(self, name: str) -> bool:
        """Tell whether a layer holds."""
        return any(layer.holds for layer in self.tried if layer.name == name)

    @property
    def cutting(self) -> tuple[str, ...]:
        """Name the layers of the kernel that keep networks away, () if there are gaps in them."""
        by_filter = self.holds(SECCOMP) and (
            not self.bridged or self.landlock >= landlock.NET_VERSION
        )
        held = (self.holds(NAMESPACE), by_filter)
        return tuple(name for name, is_held in zip((NAMESPACE, SECCOMP), held, strict=True)
                     if is_held)  # fmt: skip

    def network(self, workers: Sequence[str]) -> str:
        """Say what can be reached; `workers` are those that the bridge leads to."""
        if self.cutting:
            save = f", save for the bridge to {', '.join(workers)}" if workers else ""
            return f"cut off by the kernel{save}: {', '.join(self.cutting)}"
        why = ", ".join(f"{one.name} {one.words}" for one in self.tried if not one.holds)
        rest = "Python's audit hook alone holds" if self.holds(HOOK) else "nothing holds"
        return f"reachable: {rest} ({why})"

    def facts(self, workers: Sequence[str]) -> dict[str, str]:
        """Say it all, for `doctor`."""
        stopping = [name for name in (SECCOMP, LANDLOCK) if self.holds(name)]
        programs = f"cannot be started: {', '.join(stopping)}" if stopping else "reachable"
        seen = f"the model's and its programs' only: Landlock {self.landlock}"
        return {
            "network": self.network(workers),
            "files": seen if self.holds(LANDLOCK) else "reachable: all that you can read",
            "other programs": programs,
            **{f"layer {layer.name}": layer.words for layer in self.tried},
        }


def leave(bridged: bool) -> Layers:
    """Leave networks and other programs; `bridged` leaves TCP to the namespace's own loopback.

    Must run before any thread is started.
    """
    off = environment.layers_off()
    unix = bool(environment.mps_pipe()) or os.path.exists(MPS)
    entered = _tried(NAMESPACE, off, lambda: namespace.leave_networks(loopback=bridged))
    filtered = _tried(SECCOMP, off, lambda: seccomp.close_off(unix=unix, tcp=bridged))
    return Layers((entered, filtered), bridged)


def narrow(before: Layers, view: View) -> Layers:
    """Close the files that are not in the view, and the ways of Python itself."""
    off = environment.layers_off()
    found: list[int] = []
    held = _tried(LANDLOCK, off, lambda: found.append(landlock.hold_to(view)))
    hooked = _tried(HOOK, off, lambda: hook.refuse_networks(programs=False))
    version = found[0] if held.holds else 0
    return replace(before, tried=(*before.tried, held, hooked), landlock=version)


def _tried(name: str, off: Collection[str], take: Callable[[], None]) -> Layer:
    if name.lower() in off:
        return Layer(name, False, f"switched off by {environment.LAYERS_OFF}")
    try:
        take()
    except Refused as error:
        return Layer(name, False, f"refused: {error}")
    return Layer(name, True)

