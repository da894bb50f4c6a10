"""Start the engine child: leave the network first, then load everything else.

`python -m localseek.engine` is what `client.Engine` starts.
"""

import sys

from localseek.airgap import isolate


def main() -> int:
    """Run the child until its client is done with it."""
    reachable = isolate()
    from localseek.engine.worker import main as work  # noqa: PLC0415  (starts threads: numpy)

    return work(reachable)


if __name__ == "__main__":
    sys.exit(main())
