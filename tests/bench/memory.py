"""Predicted memory beside what llama.cpp reports after a real load, by device; run by hand.

    python tests/bench/memory.py MODEL.gguf… [--ctx 2048 8192 32768] [--parallel 8]

For each model, each context, with and without drafts: where llama.cpp has no GPU, on the processor
alone and with the experts of half the layers in memory and all else on a worker on loopback; where
it has some, all on them, and with the experts of half the layers and of all in memory; the last
column is then what nvidia-smi shows more after prompts and answers than before the load. Weights
are read, not mapped: of a mapped file llama.cpp reports the range of addresses, used or not. Exits
with 1 when a prediction is more than 3 % off.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from engine.workers import serving  # noqa: E402

from localseek import Engine  # noqa: E402
from localseek.api import looking  # noqa: E402
from localseek.engine.process.measurement import Task  # noqa: E402
from localseek.gguf.draft_file import choose_drafting  # noqa: E402
from localseek.gguf.info import GGUFInfo, read_info  # noqa: E402
from localseek.options import Fixed, LoadOptions  # noqa: E402

TOLERANCE = 0.03


@dataclass(frozen=True)
class Found:
    """A device's bytes: planned, reported by llama.cpp after the load, and really taken (GPUs)."""

    device: str
    predicted: int
    reported: int
    taken: int | None

    @property
    def off(self) -> float:
        """Give the prediction's error, as a share of what was reported."""
        return self.predicted / self.reported - 1 if self.reported else 0.0


def measure(options: LoadOptions) -> list[Found]:
    """Plan, then load for real and decode something."""
    planned = looking.plan(Path(options.model), options)[1]
    with Engine.of(options) as engine:
        before = used_on_gpus()
        info = engine.load()
        if before:
            for task in (Task("prompt", "off", 1024, 1), Task("decode", "off", 16, 2)):
                engine.measure(task)
        after = used_on_gpus()
    said = {one["device"]: one["weights"] + one["cache"] + one["compute"] for one in info.allotted}
    parts = ("weights", "cache", "draft_cache", "compute")
    taken = after[0] - before[0] if len(after) == 1 else None
    return [
        Found(
            one.device, sum(getattr(one, part) for part in parts), said.get(one.device, 0),
            taken if one.device.startswith("CUDA") else None,
        )
        for one in planned.memory
    ]  # fmt: skip


def used_on_gpus() -> list[int]:
    """Ask nvidia-smi for the bytes that are used on each GPU; [] without it."""
    if shutil.which("nvidia-smi") is None:
        return []
    words = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return [int(line) * 2**20 for line in told.split()]


def has_gpu() -> bool:
    """Ask the engine for devices of its own."""
    return bool(looking.look_around(Fixed()).devices)


def ways_to_split(info: GGUFInfo, worker: str) -> list[Fixed]:
    """Give the placements to compare."""
    if not info.experts[0]:
        shares: list[int | None] = [None]
    else:
        shares = [None, info.block_count // 2, info.block_count]
    if has_gpu():
        return [Fixed(mmap=False, cpu_experts=share) for share in shares]
    half = shares[1] if len(shares) > 1 else None
    return [Fixed(mmap=False), Fixed(mmap=False, remote=(worker,), cpu_experts=half)]


def row(info: GGUFInfo, options: LoadOptions, one: Found, worker: str) -> str:
    """Give a row of the table."""
    experts = options.fixed.cpu_experts
    where = "placed" if experts is None else f"{experts} layers in memory"
    sizes = f"{one.predicted / 1e6:.2f} MB | {one.reported / 1e6:.2f} MB | {one.off:+.2%}"
    taken = "" if one.taken is None else f"{one.taken / 1e6:.0f} MB"
    name = one.device.replace(worker, "worker")
    return (
        f"| {info.name} | {options.ctx:,} | {options.mtp} | {where} | {name} | {sizes} | {taken} |"
    )


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--ctx", nargs="+", type=int, default=[2048, 8192, 32768])
    parser.add_argument("--parallel", type=int, default=1, help="sequences that share the context")
    arguments = parser.parse_args()
    worst = 0.0
    titles = ["model", "context", "drafts", "experts", "device", "predicted", "reported", "off"]
    print(f"| {' | '.join([*titles, 'taken'])} |\n{'|---' * (len(titles) + 1)}|")
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "log") as (address, _):
        for path in arguments.models:
            info = read_info(path)
            drafts = choose_drafting(info, "auto", "").on
            splits = ways_to_split(info, address)
            for ctx in arguments.ctx:
                for mtp in ("auto", "off") if drafts else ("off",):
                    for fixed in splits:
                        options = LoadOptions(
                            str(path), ctx, 1, mtp, fixed=fixed, parallel=arguments.parallel
                        )
                        for one in measure(options):
                            worst = max(worst, abs(one.off))
                            print(row(info, options, one, address), flush=True)
    print(f"\nlargest difference: {worst:.2%}")
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
