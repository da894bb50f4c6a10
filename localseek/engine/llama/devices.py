"""ggml's devices by name, a placement in llama.cpp's own terms, and what it says it allotted."""

import ctypes
import itertools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import llama_cpp.llama_cpp as lib
from llama_cpp._ggml import libggml

from localseek.errors import EngineError, UsageError
from localseek.placing.placement import Placement
from localseek.system.machine import CPU, Device

GPU, IGPU = 1, 2  # enum ggml_backend_dev_type
CPU_TYPE = 0
GGML_TYPES = {  # enum ggml_type of what a cache can be
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20,
    "bf16": 30,
}  # fmt: skip
Pointer = ctypes.c_void_p


def _function(name: str, result: Any, *arguments: Any) -> Any:
    """Find a function of ggml; ctypes would take pointers for ints without its signature."""
    found = getattr(libggml, name)
    found.restype, found.argtypes = result, list(arguments)
    return found


def device_handles() -> list[int]:
    """Give ggml's handles of all devices of this build, the processor's among them."""
    count = _function("ggml_backend_dev_count", ctypes.c_size_t)
    get = _function("ggml_backend_dev_get", Pointer, ctypes.c_size_t)
    return [get(index) for index in range(count())]


def _backend_function(backend: bytes, name: str) -> int:
    """Find a function that only one of ggml's backends has; 0 if this build has none."""
    by_name = _function("ggml_backend_reg_by_name", Pointer, ctypes.c_char_p)
    address = _function("ggml_backend_reg_get_proc_address", Pointer, Pointer, ctypes.c_char_p)
    registry = by_name(backend)
    return (registry and address(registry, name.encode())) or 0


def leave_out(kind: bytes) -> None:
    """Let no weights be copied into one of the orders that this processor's kernels like.

    May be called again. The list of orders ends with a null pointer, and is ggml's own.
    """
    address = _backend_function(b"CPU", "ggml_backend_dev_get_extra_bufts")
    if not address:
        return
    by_type = _function("ggml_backend_dev_by_type", Pointer, ctypes.c_int)
    name = _function("ggml_backend_buft_name", ctypes.c_char_p, Pointer)
    extra = ctypes.CFUNCTYPE(ctypes.POINTER(Pointer), Pointer)(address)(by_type(CPU_TYPE))
    kept = 0
    for index in itertools.takewhile(lambda at: extra[at], itertools.count()):
        if name(extra[index]) != kind:
            extra[kept] = extra[index]
            kept += 1
    extra[kept] = None


def _rpc_function(name: str, result: Any, *arguments: Any) -> Any:
    """Find a function of ggml's RPC backend; raises EngineError in a build that has none."""
    found = _backend_function(b"RPC", name)
    if not found:
        raise EngineError(
            "This build of llama.cpp knows no workers.", "`localseek doctor` says how to mend it."
        )
    return ctypes.CFUNCTYPE(result, *arguments)(found)


def serve(endpoint: str, threads: int, names: Sequence[str]) -> None:
    """Serve devices to other machines at HOST:PORT, one client at a time; returns on failure.

    `names` empty: all GPUs, the processor if there is none. Raises UsageError for other names.
    """
    known = {device_text(handle)[0]: handle for handle in device_handles()}
    own = {name.lower(): name for name in known}
    for name in names:
        if name.lower() not in own:
            raise UsageError(f"There is no device {name!r} here. There is: {', '.join(known)}.")
    chosen = [own[name.lower()] for name in names] or list(Devices().handles) or [CPU]
    handles = (Pointer * len(chosen))(*(known[name] for name in chosen))
    start = _rpc_function(
        "ggml_backend_rpc_start_server", None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t,
        ctypes.c_size_t, Pointer,
    )  # fmt: skip
    start(endpoint.encode(), None, threads, len(chosen), ctypes.addressof(handles))


def device_text(handle: int) -> tuple[str, str]:
    """Give a device's name and description."""
    name = _function("ggml_backend_dev_name", ctypes.c_char_p, Pointer)(handle)
    description = _function("ggml_backend_dev_description", ctypes.c_char_p, Pointer)(handle)
    return name.decode(errors="replace"), description.decode(errors="replace")


def device_memory(handle: int) -> tuple[int, int]:
    """Give a device's free and total memory in bytes."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    read = _function("ggml_backend_dev_memory", None, Pointer, Pointer, Pointer)
    read(handle, ctypes.byref(free), ctypes.byref(total))
    return free.value, total.value


class Devices:
    """The devices that can hold layers, by the names that people use."""

    def __init__(self) -> None:
        """Find this machine's own."""
        kind = _function("ggml_backend_dev_type", ctypes.c_int, Pointer)
        self.handles: dict[str, int] = {}
        self.values: list[Device] = []
        for handle in device_handles():
            if kind(handle) in (GPU, IGPU):
                name, description = device_text(handle)
                self.handles[name] = handle
                free, total = device_memory(handle)
                self.values.append(Device(name, "gpu", free, total, description))

    def add_worker(self, name: str, local: str, facts: Sequence[Device]) -> None:
        """Connect to a worker at `local` and name its devices as `facts` do; raises EngineError.

        llama.cpp ends the process if nobody answers there.
        """
        add_server = _rpc_function("ggml_backend_rpc_add_server", Pointer, ctypes.c_char_p)
        registry = add_server(local.encode())
        if not registry:
            raise EngineError(f"The worker {name} has no device.")
        get = _function("ggml_backend_reg_dev_get", Pointer, Pointer, ctypes.c_size_t)
        for index, fact in enumerate(facts):
            self.handles[fact.name] = get(registry, index)
            self.values.append(fact)

    def name_of(self, handle: int) -> str:
        """Give the name of a device; the processor's for any that is not known."""
        names = {known: name for name, known in self.handles.items()}
        return names.get(handle, CPU)

    def buffer_type(self, name: str) -> int:
        """Give the buffer type of a device's own memory."""
        handle = self.handles.get(name)
        if handle is None:
            by_type = _function("ggml_backend_dev_by_type", Pointer, ctypes.c_int)
            handle = by_type(CPU_TYPE)
        own = _function("ggml_backend_dev_buffer_type", Pointer, Pointer)
        return int(own(handle))


class _Override(ctypes.Structure):
    """struct llama_model_tensor_buft_override."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", Pointer))


class Arrangement:
    """A placement as llama_model_params; keeps alive what they point to."""

    def __init__(self, placement: Placement, devices: Devices) -> None:
        self.placement, self.devices = placement, devices
        handles = [devices.handles[name] for name in placement.devices]
        self._devices = (Pointer * (len(handles) + 1))(*handles, None)
        rules = [(rule.encode(), devices.buffer_type(name)) for rule, name in placement.overrides]
        self._overrides = (_Override * (len(rules) + 1))(
            *(_Override(rule, kind) for rule, kind in rules), _Override(None, None)
        )
        self._split = (ctypes.c_float * lib.llama_max_devices())(*placement.split)

    def apply(self, parameters: Any, no_alloc: bool) -> None:
        """Fill in llama_model_params; `no_alloc` is for a load that only measures."""
        parameters.devices = ctypes.addressof(self._devices)
        parameters.tensor_buft_overrides = ctypes.addressof(self._overrides)
        parameters.tensor_split = ctypes.cast(self._split, ctypes.POINTER(ctypes.c_float))
        parameters.n_gpu_layers = self.placement.gpu_layers
        parameters.use_extra_bufts = self.placement.repack
        parameters.no_alloc = no_alloc
        mapped, locked = self.placement.mmap, self.placement.mlock
        parameters.load_mode = (
            lib.LLAMA_LOAD_MODE_NONE if no_alloc or not (mapped or locked)
            else lib.LLAMA_LOAD_MODE_MMAP_MLOCK if mapped and locked
            else lib.LLAMA_LOAD_MODE_MMAP if mapped
            else lib.LLAMA_LOAD_MODE_MLOCK
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Allotted:
    """What llama.cpp says of a context's memory on a device, in bytes."""

    device: str
    weights: int
    cache: int
    compute: int


class _Map(ctypes.Structure):
    """std::map of libstdc++: comparison, then the header of its tree, then its size."""

    _fields_ = (
        ("compare", ctypes.c_uint64), ("colour", ctypes.c_uint64), ("root", Pointer),
        ("first", Pointer), ("last", Pointer), ("count", ctypes.c_size_t),
    )  # fmt: skip


class _Node(ctypes.Structure):
    """A node of it: llama_memory_breakdown_data by buffer type (src/llama-ext.h)."""

    _fields_ = (
        ("colour", ctypes.c_uint64), ("parent", Pointer), ("left", Pointer), ("right", Pointer),
        ("buffer_type", Pointer), ("weights", ctypes.c_size_t), ("cache", ctypes.c_size_t),
        ("compute", ctypes.c_size_t),
    )  # fmt: skip


def allotted(context: Any, devices: Devices) -> list[Allotted]:
    """Ask llama.cpp what a context's model, cache and buffers take, by device.

    Gives nothing where this build does not tell: the function is C++'s, and only on Linux is its
    map certain to be libstdc++'s. The map's few nodes are not freed.
    """
    ask = getattr(lib._lib, "_Z26llama_get_memory_breakdownPK13llama_context", None)
    if ask is None or sys.platform != "linux":
        return []
    ask.restype, ask.argtypes = _Map, [Pointer]
    found = ask(context)
    nodes = list(_nodes(found.root))
    if len(nodes) != found.count:
        return []
    sums: dict[str, list[int]] = {}
    is_host = _function("ggml_backend_buft_is_host", ctypes.c_bool, Pointer)
    owner = _function("ggml_backend_buft_get_device", Pointer, Pointer)
    for node in nodes:
        on_cpu = is_host(node.buffer_type)
        name = CPU if on_cpu else devices.name_of(owner(node.buffer_type))
        total = sums.setdefault(name, [0, 0, 0])
        for index, size in enumerate((node.weights, node.cache, node.compute)):
            total[index] += size
    return [Allotted(name, *total) for name, total in sums.items()]


def _nodes(address: int | None) -> Iterable[_Node]:
    if address:
        node = _Node.from_address(address)
        yield node
        yield from _nodes(node.left)
        yield from _nodes(node.right)
