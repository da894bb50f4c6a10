"""`localseek plan MODEL`: what would go where, how much memory it takes, and why.

MODEL is a model file or a config.json. The machine is this one, measured by the engine without
loading any weights, or one that `--vram` and `--ram` make up.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from localseek.api import looking
from localseek.api.models import find_runnable_model
from localseek.errors import ModelError, UsageError
from localseek.gguf.header import Tensor
from localseek.gguf.info import GGUFInfo, read_info
from localseek.options import LoadOptions
from localseek.placing.fits import place
from localseek.placing.placement import Placement
from localseek.placing.shape import ModelShape, read_shape
from localseek.system import hardware
from localseek.system.machine import Machine, imagined
from localseek.system.sizes import read_size, rough_size
from localseek.terminal import settings
from localseek.terminal.columns import folded, table
from localseek.terminal.drawing import cache_lines, plan_page
from localseek.terminal.messages import clean, prepare_streams, width_of

EXAMPLES = """examples:
  localseek plan nano
  localseek plan r1.gguf --ctx 65536
  localseek plan r1.gguf --vram 24GiB --ram 128GiB
  localseek plan DeepSeek-V3/config.json --type Q4_K_M --type Q2_K --vram 24GiB --ram 128GiB

sizes: 24GiB is 24·2^30 bytes, as memory is sold; 24GB and 24G are 24·10^9.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="a model's name, a GGUF file, or a config.json")
    add("--type", action="append", default=[], metavar="TYPE",
        help="of a config.json: the type to convert to (repeatable; default Q4_K_M)")  # fmt: skip
    add("--vram", action="append", default=[], type=_size, metavar="SIZE",
        help="imagine a machine: a GPU with this much free memory (repeatable)")  # fmt: skip
    add("--ram", type=_size, metavar="SIZE", help="imagine a machine: its free memory")
    add("--cores", type=_cores, metavar="N", help="imagine a machine: its physical cores")
    add("--json", action="store_true", help="print one JSON object, or one a type")
    settings.add_load_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Plan and print."""
    prepare_streams()
    source = Path(arguments.model).expanduser()
    if (source / "snapshots").is_dir():
        from converters import followed

        source = followed(source)
    is_config = source.suffix == ".json" or (source / "config.json").is_file()
    if arguments.type and not is_config:
        raise UsageError("--type is for a config.json.", "A file has the type that it has.")
    options = LoadOptions(
        model="", ctx=arguments.ctx, threads=arguments.threads, mtp=arguments.mtp,
        fixed=settings.fixed_from(arguments), draft_model=arguments.draft_model, draft_memory=True,
    )  # fmt: skip
    imagine = bool(arguments.vram or arguments.ram or arguments.cores)
    if imagine and arguments.remote:
        raise UsageError(
            "--remote is a real machine, --vram, --ram and --cores make one up.", "Leave one out."
        )
    machine = _imagined(arguments) if imagine else None
    if is_config:
        types = arguments.type or ["Q4_K_M"]
        infos = [_info_from_config(source, name) for name in types]
        machine = machine or _real(options)
        plans = [_decided(info, machine, options) for info in infos]
    else:
        path = find_runnable_model(arguments.model)
        info = read_info(path)
        plans = [_decided(info, machine, options) if machine else _measured(info, path, options)]
    if arguments.json:
        for shape, where, placement in plans:
            print(json.dumps(_object(shape, where, placement)))
        return 0
    width = width_of(sys.stdout)
    lines = _comparison(plans, width) if len(plans) > 1 else plan_page(*plans[0], width)
    print("\n".join(folded(map(clean, lines), width)))
    return 0


Planned = tuple[ModelShape, Machine, Placement]


def _size(text: str) -> int:
    try:
        return read_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _cores(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) <= settings.MAX_THREADS:
        return int(text)
    limit = f"{settings.MAX_THREADS:,}"
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {limit}")


def _imagined(arguments: argparse.Namespace) -> Machine:
    here = hardware.read_hardware()
    ram = arguments.ram if arguments.ram is not None else here.memory_bytes
    return imagined(tuple(arguments.vram), ram, arguments.cores or here.cores)


def _real(options: LoadOptions) -> Machine:
    """Let the engine say what there is here and at the workers named."""
    return looking.look_around(options.fixed)


def _decided(info: GGUFInfo, machine: Machine, options: LoadOptions) -> Planned:
    shape, placement = place(info, machine, options)
    return shape, machine, placement


def _measured(info: GGUFInfo, path: Path, options: LoadOptions) -> Planned:
    """Let the engine plan: it knows the devices, and llama.cpp tells it the size of buffers."""
    machine, placement = looking.plan(path, options)
    draft = read_info(Path(placement.draft_file)) if placement.draft_file else None
    return read_shape(info, draft), machine, placement


def _info_from_config(source: Path, type_name: str) -> GGUFInfo:
    """Give the facts of the file that a conversion would write."""
    from converters.checking.config_only import open_source
    from converters.errors import ConvertError, OptionError
    from converters.planning.plan import make_plan

    try:
        with open_source(source) as checkpoint:
            plan = make_plan(checkpoint, type_name)
    except OptionError as error:
        raise UsageError(f"{error}.") from error
    except ConvertError as error:
        raise ModelError(f"{error}.") from error
    tensors = tuple(
        Tensor(one.name, tuple(reversed(one.shape)), one.kind.name, one.offset, one.size_bytes)
        for one in plan.tensors
    )
    metadata: dict[str, Any] = dict(plan.metadata)
    return GGUFInfo(source, (source,), (), plan.size_bytes, 3, metadata, tensors)


def _comparison(plans: list[Planned], width: int | None) -> list[str]:
    """Show several types beside each other."""
    rows = [("TYPE", "FILE", "ON DEVICES", "PROCESSOR", "CONTEXT", "FROM DISK")]
    for shape, machine, placement in plans:
        ram = placement.memory[0]
        devices = sum(one.total for one in placement.memory[1:])
        missing = max(0, ram.total - machine.ram_free)
        rows.append((
            shape.type, rough_size(shape.weights_bytes),
            f"{rough_size(devices)} of {rough_size(sum(d.free_bytes for d in machine.devices))}",
            f"{rough_size(ram.total)} of {rough_size(machine.ram_free)}",
            f"{placement.ctx:,}", rough_size(missing) if missing else "-",
        ))  # fmt: skip
    shape, _, placement = plans[0]
    return [*table(rows, width), *cache_lines(shape, placement)]


def _object(shape: ModelShape, machine: Machine, placement: Placement) -> dict[str, Any]:
    return {
        "model": shape.name,
        "architecture": shape.architecture,
        "type": shape.type,
        "weights_bytes": shape.weights_bytes,
        "cache_bytes_per_token": shape.cache_bytes(placement.cache_type),
        "draft_cache_bytes_per_token": shape.cache_bytes("f16", draft=True),
        "full_attention_bytes_per_token": shape.full_attention_bytes,
        "machine": asdict(machine),
        "placement": asdict(placement),
    }
