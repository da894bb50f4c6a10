"""Predicted memory beside what llama.cpp reports after a real load, by device; run by hand.

    python tests/bench/memory.py MODEL.gguf… [--ctx 2048 8192 32768] [--parallel 8]

For each model, each context, with and without drafts, on the processor alone and with the experts
of half the layers in memory and all else on a worker on loopback. Weights are read, not mapped:
of a mapped file llama.cpp reports the range of addresses, used or not. Exits with 1 when a
prediction is more than 3 % off.
"""

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from engine.workers import serving  # noqa: E402

from localseek.draft_file import choose_drafting  # noqa: E402
from localseek.engine.client import Engine  # noqa: E402
from localseek.engine.protocol import Fixed, LoadOptions  # noqa: E402
from localseek.gguf_info import read_info  # noqa: E402

TOLERANCE = 0.03


def measure(options: LoadOptions) -> list[tuple[str, int, int]]:
    """Plan, then load for real; give (device, predicted bytes, reported bytes)."""
    with Engine(options) as engine:
        planned = engine.ask("plan")["placement"]
        info = engine.load()
    said = {one["device"]: one["weights"] + one["cache"] + one["compute"] for one in info.allotted}
    parts = ("weights", "cache", "draft_cache", "compute")
    return [
        (one["device"], sum(one[part] for part in parts), said.get(one["device"], 0))
        for one in planned["memory"]
    ]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--ctx", nargs="+", type=int, default=[2048, 8192, 32768])
    parser.add_argument("--parallel", type=int, default=1, help="sequences that share the context")
    arguments = parser.parse_args()
    worst = 0.0
    print("| model | context | drafts | device | predicted | reported | off |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "log") as (address, _):
        for path in arguments.models:
            info = read_info(path)
            drafts = choose_drafting(info, "auto", "").on
            experts = info.block_count // 2 if info.experts[0] else None
            splits = (
                Fixed(mmap=False),
                Fixed(mmap=False, remote=(address,), cpu_experts=experts),
            )
            for ctx in arguments.ctx:
                for mtp in ("auto", "off") if drafts else ("off",):
                    for fixed in splits:
                        options = LoadOptions(
                            str(path), ctx, 1, mtp, fixed=fixed, parallel=arguments.parallel
                        )
                        found = measure(options)
                        for device, predicted, reported in found:
                            off = predicted / reported - 1 if reported else 0.0
                            worst = max(worst, abs(off))
                            name = device.replace(address, "worker")
                            sizes = f"{predicted / 1e6:.2f} MB | {reported / 1e6:.2f} MB"
                            row = (
                                f"| {info.name} | {ctx:,} | {mtp} | {name} | {sizes} | {off:+.2%} |"
                            )
                            print(row, flush=True)
    print(f"\nlargest difference: {worst:.2%}")
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
