"""What the disk holds while a source is freed, beside an ordinary conversion: run by hand.

    python tests/bench/free_disk.py WORK [--shards 16] [--threads 2]

Makes a 0.4 B-parameter V3-shaped FP8 checkpoint in WORK, then converts a copy of it to Q4_K_M, in
turns: as usual, and with `free_source`. A thread counts the blocks that source and output take,
fifty times a second. Prints time, peak and what is left, and compares the two outputs.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import threading
import time
from pathlib import Path

from convert_speed import Dims, make

from converters import ConvertOptions, convert

SIZE = Dims(
    hidden_size=1024, intermediate_size=2816, moe_intermediate_size=512, num_hidden_layers=9,
    num_attention_heads=8, n_routed_experts=28, q_lora_rank=512, kv_lora_rank=256,
    qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, vocab_size=8192,
)  # fmt: skip


def used(folder: Path) -> int:
    """Count the bytes that a folder's files take on the disk."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:  # removed meanwhile
            continue
    return total


class Watch:
    """A thread that keeps the most and the least that a folder took."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._over = folder, threading.Event()
        self.first = self.peak = used(folder)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.02):
            self.peak = max(self.peak, used(self._folder))

    def stop(self) -> int:
        """Stop; return what the folder takes now."""
        self._over.set()
        self._thread.join()
        return used(self._folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    whole, digests = make(arguments.work / "whole", SIZE, arguments.shards), set()
    print("               source    peak    left  seconds")
    for free in (False, True, False, True):
        place = arguments.work / "place"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(whole, place / "source")
        options = ConvertOptions(
            type="Q4_K_M", threads=arguments.threads, name="model", free_source=free
        )
        watch, started = Watch(place), time.monotonic()
        result = convert(place / "source", place / "out.gguf", options)
        seconds, left = time.monotonic() - started, watch.stop()
        with result.path.open("rb") as file:
            digests.add(hashlib.file_digest(file, "sha256").hexdigest())
        sizes = "".join(f"{size / 1e6:8.1f}" for size in (watch.first, watch.peak, left))
        print(f"{'freed' if free else 'as usual':>13}{sizes} {seconds:8.1f}", flush=True)
    print("the same bytes" if len(digests) == 1 else "OTHER BYTES")
    return len(digests) != 1


if __name__ == "__main__":
    sys.exit(main())
