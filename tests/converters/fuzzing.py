"""Hostile checkpoints by the thousand, in a child process with little memory to spare.

Takes a good checkpoint and a range of seeds; gives how every case ended. A case is one or two
mutated files; it is planned, and converted if it can be planned. Right ends are a file or a
ConvertError of one line; anything else is a defect. The child may use half a gigabyte more than it
has, and every case some seconds of processor time.

By hand, for longer runs:  python tests/converters/fuzzing.py FIRST_SEED CASES
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import checkpoints
import mutations

from converters import ConvertError, ConvertOptions, convert

MEMORY_BYTES = 512 << 20  # that a case may allocate at the most
CPU_SECONDS = 20
TYPES = ("Q8_0", "Q4_K_M", "F16", "BF16", "F32")


class TooLong(BaseException):
    """A case that took more processor time than it may."""


def make_base(folder: Path) -> Path:
    """Make a good checkpoint, as small as a V3 in FP8 with all its files can be."""
    dims = checkpoints.Dims(
        hidden_size=32, intermediate_size=32, moe_intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, n_routed_experts=2, num_experts_per_tok=2, q_lora_rank=32,
        kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16,
    )  # fmt: skip
    config = {"n_group": 1, "topk_group": 1}
    checkpoints.make_v3(folder, dims, shards=2, config=config)
    sampling = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(sampling))
    return folder


def run_cases(checkpoint: Path, seeds: range) -> dict[str, Any]:
    """Run the cases in a child and return its account: counts, defects, peak memory, slowest."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            account = _run(checkpoint, seeds)
            os.write(write, json.dumps(account).encode())
            os._exit(0)
        except BaseException:  # noqa: BLE001  # a child of pytest must never return into it
            traceback.print_exc()
            os._exit(1)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        text = answer.read()
    status = os.waitpid(child, 0)[1]
    assert status == 0 and text, f"the child died with status {status}"
    return dict(json.loads(text))


def _run(checkpoint: Path, seeds: range) -> dict[str, Any]:
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    base = _status_bytes("VmSize")
    before = _status_bytes("VmHWM")
    resource.setrlimit(resource.RLIMIT_AS, (base + MEMORY_BYTES,) * 2)
    signal.signal(signal.SIGVTALRM, _too_long)
    account: dict[str, Any] = {"converted": 0, "refused": 0, "defects": [], "slowest_s": 0.0}
    with tempfile.TemporaryDirectory() as name:
        for seed in seeds:
            folder = Path(name) / "checkpoint"
            started = time.process_time()
            outcome = _case(files, folder, seed)
            account["slowest_s"] = max(account["slowest_s"], time.process_time() - started)
            if outcome in account:
                account[outcome] += 1
            elif len(account["defects"]) < 20:
                account["defects"].append([seed, outcome])
            for left in Path(name).iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
    account["peak_bytes"] = _status_bytes("VmHWM") - before
    return account


def _case(files: dict[str, bytes], folder: Path, seed: int) -> str:
    chance = random.Random(seed)
    folder.mkdir()
    changed = dict(files)
    for name in chance.sample(sorted(files), chance.choice([1, 1, 1, 2])):
        mutate = (
            mutations.mutate_safetensors if name.endswith(".safetensors") else mutations.mutate_json
        )
        changed[name] = mutate(chance, files[name])
    for name, data in changed.items():
        (folder / name).write_bytes(data)
    options = ConvertOptions(type=chance.choice(TYPES), threads=1)
    target = folder.parent / "out.gguf"
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        convert(folder, target, options)
    except ConvertError as error:
        text = str(error)
        left = [path.name for path in folder.parent.iterdir() if path != folder]
        if "\n" in text or len(text) > 500 or not text.strip():
            return f"a message of {len(text)} characters: {text[:200]!r}"
        return f"left {left}" if left else "refused"
    except BaseException as error:  # noqa: BLE001  # whatever else comes out is what is looked for
        return f"{type(error).__name__}: {str(error)[:300]}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return "converted"


def _too_long(_number: int, _frame: object) -> None:
    raise TooLong


def _status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def main() -> int:
    """Run the seeds that were asked for and print the account; return 1 if there are defects."""
    first, count = int(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as name:
        source = make_base(Path(name) / "base")
        account = run_cases(source, range(first, first + count))
    for seed, what in account["defects"]:
        print(f"seed {seed}: {what}")
    print({key: value for key, value in account.items() if key != "defects"})
    return bool(account["defects"])


if __name__ == "__main__":
    sys.exit(main())
