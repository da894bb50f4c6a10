"""What an engine must see: its model, the state it writes, the programs it is made of, devices.

Takes load options, gives a `View` for Landlock. Folders of the system are named whole: which of
their files a driver opens, nobody here knows. The user's home and localseek's own state are closed
wherever they are, save for what is named.
"""

import contextlib
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import localseek
from localseek.airgap.landlock import View
from localseek.errors import LocalseekError
from localseek.options import LoadOptions
from localseek.system import environment, hardware, paths

SPLIT_NAME = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")  # as gguf/info.py has it
MOST_PARTS = 10_000  # a name can claim as many as it likes
# Libraries, drivers and what these read. /proc as a whole: its files are other ones each time
# that they are looked up, so that rules for single ones would be lost when memory runs short.
SYSTEM = (
    "/usr", "/lib", "/lib32", "/lib64", "/bin", "/opt", "/nix/store", "/gnu/store", "/app",
    "/snap", "/run/opengl-driver", "/run/nvidia", "/run/current-system", "/proc", "/sys",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload",
    "/etc/alternatives", "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd", "/etc/group",
    "/etc/machine-id", "/etc/OpenCL", "/etc/vulkan", "/etc/nvidia", "/etc/nvidia-mps",
    "/dev/urandom", "/dev/random",
)  # fmt: skip
ALWAYS_USED = ("/dev/null", "/dev/zero", "/dev/full")
# Only where there is a device that computes: its driver's memory and its compiled programs.
BESIDE_DEVICES = ("/dev/shm", "/dev/infiniband", "/dev/udmabuf")
DRIVER_CACHES = (
    "~/.nv", "~/.cache/nvidia", "~/.cache/mesa_shader_cache", "~/.cache/mesa_shader_cache_db",
    "~/.cache/neo_compiler_cache", "~/.cache/radv_builtin_shaders", "~/.cache/AMD",
)  # fmt: skip


def view_of(options: LoadOptions, ports: tuple[int, ...] = ()) -> View:
    """Give what the engine needs for these options; makes the folders that it writes to."""
    devices = _devices()
    written = list(_state(options))
    if devices:
        written += [Path(one).expanduser() for one in (*DRIVER_CACHES, *_named_caches())]
    used = [*devices, *map(Path, ALWAYS_USED)]
    used += [Path(one) for one in BESIDE_DEVICES] if devices else []
    drafting = list(_beside(options))
    closed = (Path.home().resolve(), paths.home().resolve())
    system = [one for path in map(Path, SYSTEM) for one in _sparing(path, closed)]
    programs = [one for path in _programs() for one in _sparing(path, closed)]
    read = [*system, *programs, *_model(options), *drafting]
    listed = [one.parent for one in drafting[:1]]
    # Opened as the folder that it is, it is told to be one.
    listed += [one for one in (Path(options.model),) if options.model and one.is_dir()]
    return View(tuple(read), tuple(written), tuple(used), tuple(listed), ports)


def _model(options: LoadOptions) -> Iterator[Path]:
    """Give the model's files and the one that drafts for it, all parts of each."""
    for name in (options.model, options.draft_model):
        if not name or Path(name).is_dir():
            continue
        path = Path(name).expanduser() if name == options.draft_model else Path(name)
        yield path
        if match := SPLIT_NAME.fullmatch(path.name):
            count = min(int(match["count"]), MOST_PARTS)
            for number in range(1, count + 1):
                yield path.with_name(f"{match['stem']}-{number:05}-of-{match['count']}.gguf")


def _beside(options: LoadOptions) -> Iterator[Path]:
    """Give files beside the model that might draft for it, as gguf/draft_file.py looks for them."""
    if not options.model or options.draft_model or options.mtp == "off":
        return
    try:
        found = sorted(Path(options.model).parent.glob("*.gguf"))
    except OSError:  # then nobody finds them
        return
    yield from (path for path in found if "mtp" in path.name.lower())


def _state(options: LoadOptions) -> Iterator[Path]:
    wanted = {"sequences": options.prompt_cache,
              "drafting": options.draft_memory and options.mtp == "auto"}  # fmt: skip
    for name in (name for name, is_wanted in wanted.items() if is_wanted):
        try:
            yield paths.folder(name)
        except LocalseekError:  # a home that cannot be written to: it answers without
            continue


def _programs() -> Iterator[Path]:
    """Give where Python, its packages and the libraries that the user names are."""
    home = Path.home().resolve()
    yield Path(localseek.__file__).parent
    yield Path(os.path.realpath(sys.executable))
    named = [*sys.path, *sysconfig.get_paths().values(), *environment.library_folders()]
    named += [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    for prefix in dict.fromkeys((sys.prefix, sys.base_prefix, sys.exec_prefix)):
        named += [f"{prefix}/lib", f"{prefix}/lib64", f"{prefix}/pyvenv.cfg"]
    for one in dict.fromkeys(named):
        path = Path(one)
        if path.is_absolute() and not home.is_relative_to(path.resolve()):
            yield path


def _sparing(path: Path, closed: tuple[Path, ...]) -> Iterator[Path]:
    """Give a path, or if something closed is in it, what else is."""
    real = path.resolve()
    if not any(one.is_relative_to(real) for one in closed):
        yield path
    elif real not in closed and path.is_dir():
        with contextlib.suppress(OSError):
            for inner in path.iterdir():
                yield from _sparing(inner, closed)


def _devices() -> list[Path]:
    """Give the device files of drivers that compute."""
    try:
        names = os.listdir("/dev")
    except OSError:
        return []
    return [Path("/dev", name) for name in names if name.startswith(hardware.DEVICE_FILES)]


def _named_caches() -> list[str]:
    return [one for one in (environment.cuda_cache(),) if one]
