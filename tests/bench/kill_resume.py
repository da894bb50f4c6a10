"""Conversions killed at random times and gone on with, on real files: run by hand.

    python tests/bench/kill_resume.py WORK [--kills 20] [--seed 0] [--save-seconds 0.3] [--free]

Makes a V3-shaped FP8 checkpoint in WORK and converts it to Q4_K_M on one thread, without a stop.
Then, for every kill: a process of its own is ended by SIGKILL at a time drawn evenly from the whole
run's, another goes on to the end, and the SHA-256 of what comes out is compared. It saves more
often than a conversion does otherwise, so that a short one has something to go on with. With
`--free` each kill has a copy of the checkpoint, whose shards are removed as they are consumed.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from convert_speed import ROOT, Dims, make

SIZE = Dims(hidden_size=512, moe_intermediate_size=256, n_routed_experts=48)
CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
import converters
from converters.writing import saver
saver.SAVE_SECONDS = float(sys.argv[3])
first = []
def report(progress):
    first.append(progress.resumed_bytes / progress.total_bytes)
    del first[1:]
free = sys.argv[5] == "free"
options = converters.ConvertOptions(type="Q4_K_M", threads=1, name="model", free_source=free)
converters.convert(Path(sys.argv[1]), Path(sys.argv[2]), options, report)
print(first[0] if first else 1.0)
"""


def start(source: Path, target: Path, save_seconds: float, free: bool) -> subprocess.Popen[str]:
    """Start a conversion that prints, at its end, the share that earlier ones had done."""
    words = [str(source), str(target), str(save_seconds), str(ROOT), "free" if free else "keep"]
    command = [sys.executable, "-c", CHILD, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> float:
    """Wait for the end and return what was printed."""
    text = process.communicate()[0]
    if process.returncode:
        raise SystemExit("the conversion failed")
    return float(text)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-seconds", type=float, default=0.3)
    parser.add_argument("--free", action="store_true")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    source, target = make(arguments.work / "checkpoint", SIZE, 10), arguments.work / "out.gguf"
    copy = arguments.work / "copy"
    target.unlink(missing_ok=True)
    started = time.monotonic()
    finish(start(source, target, arguments.save_seconds, False))
    whole_s, whole = time.monotonic() - started, digest(target)
    size = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    print(f"{size / 1e6:.0f} MB, {whole_s:.1f} s without a stop, SHA-256 {whole[:16]}")
    chance, wrong = random.Random(arguments.seed), 0
    print("kill  after s  gone on at  same bytes")
    for number in range(1, arguments.kills + 1):
        target.unlink()
        after = chance.uniform(0, whole_s)
        used = source
        if arguments.free:
            shutil.rmtree(copy, ignore_errors=True)
            used = shutil.copytree(source, copy)
        process = start(used, target, arguments.save_seconds, arguments.free)
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        if target.exists():
            print(f"{number:4} {after:8.2f}  it was done already")
            wrong += digest(target) != whole
            continue
        removed = len(list(source.glob("*.safetensors"))) - len(list(used.glob("*.safetensors")))
        share = finish(start(used, target, arguments.save_seconds, arguments.free))
        same = digest(target) == whole
        wrong += not same
        told = f"{'yes' if same else 'NO'}{f', {removed} shards gone' if arguments.free else ''}"
        print(f"{number:4} {after:8.2f} {share:11.1%}  {told}", flush=True)
    print(f"{arguments.kills - wrong} of {arguments.kills} with the same bytes")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
