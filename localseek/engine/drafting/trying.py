"""A depth that is not the best one known, tried for a few steps to learn of it.

Plain data of the depth controller. Knows nothing about what is learnt.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class Trying:
    """A depth tried for `steps` more steps; `forced`: all is verified, however unlikely.

    Steps are timed once at most `timed` are left: those before may have paid for the change.
    `blind`: nothing is thought about meanwhile, as if that depth were the usual one.
    """

    depth: int
    steps: int
    forced: bool
    timed: int
    blind: bool = False
