"""What a placement asks of the processor's side: weights read or mapped, locked or not, threads.

Takes a model's shape, a machine and what lies in its memory, gives each choice with its reason, ""
where there is nothing to say. Knows nothing about layers.
"""

from localseek.placing.memory import DeviceMemory
from localseek.placing.shape import ModelShape
from localseek.system.machine import Device, Machine

SMALL_MODEL_BYTES = 64_000_000  # under it a second thread costs more than it computes
PINNED_SHARE = 0.7  # of the memory: weights are read into it up to this, and mapped above
# Weights in huge pages decode 4 to 13 % faster than a mapped file's; steps that verify drafts, and
# get more out of each reading, -1 to 3 %. Reading takes up to a second a GB where mapping takes
# none, once a start: not worth it for large models and where drafts pay.
QUICKLY_READ_BYTES = 2 * 2**30
QUICKLY_READ_SHARE = 0.25  # of the free memory: the file in the page cache takes as much once more


def choose_mapping(
    shape: ModelShape,
    machine: Machine,
    gpu: Device | None,
    ram: DeviceMemory,
    fits: bool,
    drafts_pay: bool,
) -> tuple[bool, str]:
    """Decide whether the file is mapped or its weights are read: for huge pages, or for a GPU.

    `gpu` is the first one in use; `fits`: what lies in memory fits it; `drafts_pay`: most steps are
    expected to verify some.
    """
    embeddings = sum(part.size_bytes for part in shape.input)  # looked up, never copied
    if gpu and fits and embeddings < ram.weights <= PINNED_SHARE * machine.ram_free:
        return False, f"weights in memory are read, not mapped: {gpu.name} copies them faster so"
    quickly = min(QUICKLY_READ_BYTES, QUICKLY_READ_SHARE * machine.ram_free)
    pays = machine.huge_pages and not gpu and not drafts_pay
    if pays and embeddings < ram.weights <= quickly:
        return False, "weights are read, not mapped: in huge pages they decode some per cent faster"
    return True, "the file is mapped: a second start finds it in memory"


def choose_lock(machine: Machine, ram: DeviceMemory, fits: bool) -> tuple[bool, str]:
    """Decide whether weights are locked in memory."""
    if not machine.swap or not fits:
        return False, ""
    if machine.lock_limit != -1 and machine.lock_limit < ram.weights:
        return False, "not locked in memory: the system's limit is smaller (ulimit -l)"
    return True, "locked in memory: nothing of it is swapped out"


def choose_threads(shape: ModelShape, machine: Machine) -> tuple[int, str]:
    """Choose how many threads compute: hyperthreads share what these models wait for."""
    if shape.weights_bytes < SMALL_MODEL_BYTES:
        return 1, "1 thread: for so small a model waiting for a second costs more"
    cores = machine.cores
    return cores, f"{cores} thread{'s' * (cores > 1)}: one a physical core"
