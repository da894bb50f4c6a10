"""Time and memory of a conversion beside llama.cpp's two steps and the bare kernels: run by hand.

    python tests/bench/convert_speed.py WORK --tree LLAMA_CPP --quantize LLAMA_QUANTIZE \
        --python PYTHON_WITH_TORCH [--runs 5]

Makes a 0.68 B-parameter V3-shaped FP8 checkpoint with an MTP layer in WORK, then measures whole
processes, in turns: ours to Q8_0 and Q4_K_M; convert_hf_to_gguf.py to BF16 with llama-quantize
after it, and straight to Q8_0; and ggml's quantization kernels alone on the same values, already
in memory as float32. Prints medians and ratios, then the peak memory from 16 to 256 experts.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import checkpoints  # noqa: E402 - the paths above come first
from checkpoints import Dims, Floats, Tensors  # noqa: E402

LARGE = Dims(
    hidden_size=1024, intermediate_size=2816, moe_intermediate_size=512, num_hidden_layers=9,
    num_attention_heads=8, n_routed_experts=44, q_lora_rank=512, kv_lora_rank=256,
    qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, vocab_size=8192,
)  # fmt: skip
CURVE = (16, 32, 64, 128, 256)  # experts
TYPES = ("Q8_0", "Q4_K_M")
OURS = "import sys; from pathlib import Path; import converters as c; " \
    "c.convert(Path(sys.argv[1]), Path(sys.argv[2]), " \
    "c.ConvertOptions(type=sys.argv[3], threads=int(sys.argv[4]), force=True))"  # fmt: skip
# The tokenizer is too small for llama.cpp's hash of it, so the name is given; nothing else changes.
REFERENCE = """
import runpy, sys
tree = sys.argv[1]
sys.path[:0] = [tree, tree + "/gguf-py"]
sys.argv = ["convert_hf_to_gguf.py", *sys.argv[2:]]
import conversion.base
conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "deepseek-v3"
runpy.run_path(tree + "/convert_hf_to_gguf.py", run_name="__main__")
"""

LAUNCHER = """
import os, sys, time
started = time.monotonic()
child = os.spawnvp(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(child, 0)
print(time.monotonic() - started, usage.ru_maxrss * 1024 / 1e6)
sys.exit(status != 0)
"""


class Pool:
    """Weights cut from one pool of normal values, for drawing them takes longer than the work."""

    def __init__(self) -> None:
        drawn = np.random.default_rng(0).standard_normal(1 << 22, dtype=np.float32)
        self.plain = drawn
        self.codes = checkpoints.encode_fp8(drawn.reshape(-1, 2048))[0].reshape(-1)
        self.at = 0

    def take(self, count: int, source: np.ndarray) -> np.ndarray:
        self.at = (self.at + 7919) % (len(source) - 1)
        return np.resize(np.roll(source, self.at), count)


def make(folder: Path, dims: Dims, shards: int = 4) -> Path:
    """Make a checkpoint of the dimensions, FP8 with block scales, in the released layout."""
    if (folder / "config.json").exists():
        return folder
    pool, add, random = Pool(), Tensors.add, checkpoints.random_weight

    def quick(self: Tensors, name: str, values: Floats, dtype: str) -> None:
        if dtype != "F8_E4M3":
            add(self, name, values, dtype)
            return
        codes = pool.take(values.size, pool.codes)
        grid = tuple(math.ceil(n / 128) for n in values.shape)
        scales = np.full(grid, 4 / 448 / math.sqrt(values.shape[-1]), np.float32)
        self.entries[name] = (dtype, values.shape, codes.tobytes())
        self.entries[name + "_scale_inv"] = ("F32", scales.shape, scales.tobytes())

    def cheap(seed: int, name: str, *shape: int) -> Floats:
        if len(shape) == 1 or ".mlp.experts." not in name:
            return random(seed, name, *shape)
        return np.broadcast_to(np.float32(0), shape)

    Tensors.add, checkpoints.random_weight = quick, cheap  # type: ignore[method-assign]
    try:
        checkpoints.make_v3(folder, dims, shards=shards)
    finally:
        Tensors.add, checkpoints.random_weight = add, random  # type: ignore[method-assign]
    return folder


def measured(command: list[str]) -> tuple[float, float]:
    """Run a process; return its seconds and its peak resident memory in MB.

    A small process starts it: a child's peak begins with what its parent had at the fork.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    launch = [sys.executable, "-S", "-c", LAUNCHER, *command]
    done = subprocess.run(
        launch, env=environment, capture_output=True, check=False, errors="replace"
    )
    if done.returncode:
        raise SystemExit(f"{command[:3]} failed: {done.stderr[-2000:]}")
    seconds, peak = done.stdout.split()[-2:]
    return float(seconds), float(peak)


def ours(source: Path, target: Path, kind: str, threads: int) -> tuple[float, float]:
    """Measure our conversion as a process of its own."""
    return measured([sys.executable, "-c", OURS, str(source), str(target), kind, str(threads)])


def kernels(gguf: Path, threads: int) -> float:
    """Return the seconds of ggml's kernels alone for the types of a file, over ready float32.

    The values are drawn a tensor at a time, outside the clock; rows are shared out to threads.
    """
    from gguf import GGMLQuantizationType as Kind
    from gguf import GGUFReader

    from converters.kernels.quantize import quantize_rows, row_bytes

    pool, spent = Pool(), 0.0
    for tensor in GGUFReader(gguf).tensors:
        if tensor.tensor_type == Kind.F32:
            continue
        cols = int(tensor.shape[0])
        rows = pool.take(int(tensor.n_elements), pool.plain).reshape(-1, cols)
        step = max(1, (1 << 20) // cols)
        starts = iter(range(0, len(rows), step))
        lock = threading.Lock()

        def work(rows: Floats = rows, kind: Kind = tensor.tensor_type, step: int = step,
                 starts: object = starts, lock: threading.Lock = lock) -> None:  # fmt: skip
            out = np.empty(step * row_bytes(kind, rows.shape[1]), np.uint8)
            while True:
                with lock:
                    start = next(starts, None)  # type: ignore[call-overload]
                if start is None:
                    return
                quantize_rows(kind, rows[start : start + step], out)

        workers = [threading.Thread(target=work) for _ in range(threads)]
        started = time.monotonic()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        spent += time.monotonic() - started
    return spent


def compare(arguments: argparse.Namespace, source: Path) -> None:
    """Measure everything in turns and print the table."""
    work, threads = arguments.work, arguments.threads
    script = [arguments.python, "-c", REFERENCE, str(arguments.tree), str(source)]
    bf16, out = str(work / "bf16.gguf"), str(work / "out.gguf")
    quantize = [str(arguments.quantize), bf16, out, "Q4_K_M", str(threads)]
    steps: dict[str, Callable[[], tuple[float, float]]] = {
        "localseek Q8_0": lambda: ours(source, work / "q8_0.gguf", "Q8_0", threads),
        "localseek Q4_K_M": lambda: ours(source, work / "q4_k_m.gguf", "Q4_K_M", threads),
        "kernels Q8_0": lambda: (kernels(work / "q8_0.gguf", threads), 0.0),
        "kernels Q4_K_M": lambda: (kernels(work / "q4_k_m.gguf", threads), 0.0),
        "reference Q8_0": lambda: measured([*script, "--outfile", out, "--outtype", "q8_0"]),
        "reference BF16": lambda: measured([*script, "--outfile", bf16, "--outtype", "bf16"]),
        "llama-quantize Q4_K_M": lambda: measured(quantize),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for run in range(arguments.runs):
        for name, step in steps.items():
            found[name].append(step())
        print(f"turn {run + 1} of {arguments.runs}: "
              + ", ".join(f"{name} {times[-1][0]:.1f}" for name, times in found.items()),
              flush=True)  # fmt: skip
    for name, pairs in found.items():
        seconds = [one for one, _ in pairs]
        print(f"{name:24} {statistics.median(seconds):6.2f} s"
              f" ({min(seconds):.2f} to {max(seconds):.2f})"
              f"  peak {max(peak for _, peak in pairs):5.0f} MB")  # fmt: skip

    def ratio(one: str, *others: str) -> float:
        turns = range(arguments.runs)
        sums = [sum(found[other][turn][0] for other in others) for turn in turns]
        return statistics.median(found[one][turn][0] / sums[turn] for turn in turns)

    print(f"Q8_0 / reference     {ratio('localseek Q8_0', 'reference Q8_0'):.2f}")
    two_steps = ratio("localseek Q4_K_M", "reference BF16", "llama-quantize Q4_K_M")
    print(f"Q4_K_M / reference   {two_steps:.2f}")
    for kind in TYPES:
        print(f"{kind} / kernels  {ratio(f'localseek {kind}', f'kernels {kind}'):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--tree", type=Path, help="llama.cpp's source tree")
    parser.add_argument("--quantize", type=Path, help="llama-quantize of the same commit")
    parser.add_argument("--python", default=sys.executable, help="one with torch and transformers")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    source = make(arguments.work / "DeepSeek-V3-0.68B", LARGE)
    count = 0
    for shard in source.glob("*.safetensors"):
        with shard.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        header.pop("__metadata__", None)
        count += sum(
            math.prod(entry["shape"]) for name, entry in header.items() if "_scale" not in name
        )
    print(f"{source.name}: {count / 1e9:.3f} B parameters, {arguments.threads} threads")
    if arguments.tree and arguments.quantize:
        compare(arguments, source)
    print("experts  checkpoint MB  peak MB at Q4_K_M")
    for experts in CURVE:
        dims = Dims(hidden_size=512, moe_intermediate_size=256, n_routed_experts=experts)
        folder = make(arguments.work / f"experts-{experts}", dims)
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        peak = ours(folder, arguments.work / "curve.gguf", "Q4_K_M", arguments.threads)[1]
        print(f"{experts:7} {size / 1e6:14.0f} {peak:8.0f}")


if __name__ == "__main__":
    main()
